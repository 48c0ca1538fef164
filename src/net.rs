//! IP networks, and the client address of a request.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use http::HeaderMap;

/// A range of addresses (`10.0.0.0/8`, `fd00::/8`) or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// An IPv4 address is stored mapped to IPv6 (RFC 4291 §2.5.5.2), so that both spellings are equal.
    address: u128,
    /// One bits at the leading positions to be compared.
    mask: u128,
}

/// Length of the common prefix of all IPv4 addresses mapped to IPv6, in bits.
const MAPPED_BITS: u32 = 96;

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "must be an address, or a range like 10.0.0.0/8";
        let value = value.trim();
        let (address, bits) = match value.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (value, None),
        };
        let address: IpAddr = address.parse().map_err(|_| WRONG)?;
        let before = if address.is_ipv4() { MAPPED_BITS } else { 0 };
        let bits = match bits {
            // `parse` would accept a sign.
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse::<u32>().map_err(|_| WRONG)?.saturating_add(before)
            }
            Some(_) => return Err(WRONG),
            None => u128::BITS,
        };
        let free = u128::BITS.checked_sub(bits).ok_or(WRONG)?;
        let mask = u128::MAX.checked_shl(free).unwrap_or(0);
        Ok(Self { address: mapped(address), mask })
    }
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        (self.address ^ mapped(address)) & self.mask == 0
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Whether one of the ranges contains the address.
pub fn is_within(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// Whether an address is globally reachable: not private, loopback, link-local or reserved (RFC 6890 and
/// its successors).
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            !(address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_documentation()
                || matches!(a, 0 | 224..)
                || (a == 100 && (64..128).contains(&b))
                || (a, b, c) == (192, 0, 0)
                || (a, b, c) == (192, 88, 99)
                || (a == 198 && (18..20).contains(&b)))
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h] = address.segments();
            match (a, b) {
                // NAT64 (RFC 6052): the embedded IPv4 address decides.
                (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => {
                    let [w, x] = g.to_be_bytes();
                    let [y, z] = h.to_be_bytes();
                    is_public(IpAddr::from([w, x, y, z]))
                }
                // Special purposes such as Teredo, and documentation.
                (0x2001, ..0x200 | 0xdb8) | (0x3fff, ..0x1000) => false,
                // 6to4, a tunnel to any IPv4 address.
                (0x2002, _) => false,
                _ => a & 0xe000 == 0x2000,
            }
        }
    }
}

/// Returns the address that a request came from: the peer, or, behind trusted proxies, the last address
/// in `X-Forwarded-For` that is no trusted proxy. Earlier ones are the client's own claim.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let mut client = peer.to_canonical();
    let hops = headers.get_all("x-forwarded-for").iter().rev();
    // Split as bytes, because a client may have sent a value that is no text.
    let hops = hops.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops {
        if !is_within(trusted, client) {
            break;
        }
        // An unreadable hop is no address, so the proxy that added it counts as the client.
        let Some(address) = std::str::from_utf8(hop).ok().and_then(|hop| parse_hop(hop.trim()))
        else {
            break;
        };
        client = address;
    }
    client
}

/// Parses one hop, to which some proxies add the port.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().or_else(|_| hop.parse::<SocketAddr>().map(|it| it.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// Returns the prefix that limits treat as one client: an IPv4 address, or an IPv6 /64 network, because a
/// client has all addresses of it.
pub fn client_prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ip(raw: &str) -> IpAddr {
        raw.parse().expect("an address")
    }

    fn networks(raw: &[&str]) -> Vec<Network> {
        raw.iter().map(|raw| raw.parse().expect("a network")).collect()
    }

    #[test]
    fn a_range_holds_what_it_should() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.168.1.7", "192.168.1.7", "192.168.1.8"),
            ("192.168.1.0/31", "192.168.1.1", "192.168.1.2"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1", "::1", "::2"),
            ("::ffff:127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("::ffff:7f00:1", "::ffff:127.0.0.1", "127.0.0.2"),
            ("::ffff:10.0.0.0/104", "10.255.0.1", "11.0.0.0"),
            ("127.0.0.1", "::ffff:127.0.0.1", "::ffff:127.0.0.2"),
            ("::/0", "10.0.0.1", "not at all"),
        ] {
            let networks = networks(&[range]);
            assert!(is_within(&networks, ip(inside)), "{range} {inside}");
            let outside = outside.parse().is_ok_and(|outside| is_within(&networks, outside));
            assert!(!outside, "{range}");
        }
        assert!(is_within(&networks(&["0.0.0.0/0"]), ip("203.0.113.9")));
        assert!(!is_within(&networks(&["0.0.0.0/0"]), ip("2001:db8::1")));
        for wrong in
            ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "::/129", "a.example"]
        {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn public_addresses_are_told_from_all_others() {
        for public in [
            "8.8.8.8",
            "1.1.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "223.255.255.1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(is_public(ip(public)), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.0.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(ip(private)), "{private}");
        }
    }

    #[test]
    fn only_trusted_proxies_are_believed_and_only_as_far_as_they_saw() {
        let trusted = networks(&["10.0.0.0/8", "fd00::/8"]);
        let client = |peer: &str, values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-forwarded-for", value.parse().expect("a header"));
            }
            client_address(ip(peer), &headers, &trusted).to_string()
        };
        assert_eq!(client("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        // The client's own claim stands first.
        assert_eq!(client("10.0.0.1", &["8.8.8.8, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["8.8.8.8", "198.51.100.1, 10.0.0.7"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["10.0.0.2, 10.0.0.3"]), "10.0.0.2");
        assert_eq!(client("::ffff:10.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1:5000"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1, unknown"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1,"]), "10.0.0.1");
        // The client's part is not UTF-8, but the address that the proxy appended is.
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(b"\xff\xfe, 198.51.100.1").expect("a header");
        headers.append("x-forwarded-for", value);
        assert_eq!(client_address(ip("10.0.0.1"), &headers, &trusted), ip("198.51.100.1"));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        assert_eq!(client_prefix(ip("2001:db8:1:2:3:4:5:6")), ip("2001:db8:1:2::"));
        assert_eq!(client_prefix(ip("203.0.113.9")), ip("203.0.113.9"));
        assert_eq!(client_prefix(ip("::ffff:203.0.113.9")), ip("203.0.113.9"));
    }
}
