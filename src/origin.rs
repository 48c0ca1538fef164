//! Origins of web pages (RFC 6454), and hosts of requests. A setting, a browser and a proxy may
//! write the same one differently, so they are parsed, never compared as bytes.

use std::{fmt, str::FromStr};

/// A host with an optional port: the value of `Host`, or an origin without its scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// As browsers write it (WHATWG URL §3.5): lower case, international names in Punycode.
    host: String,
    port: Option<u16>,
}

impl FromStr for Authority {
    type Err = &'static str;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        // Split by hand, because a URL parser drops the scheme's default port.
        let (host, port) = match raw.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (raw, ""),
        };
        if host.is_empty() {
            return Err("names no host");
        }
        // Browsers never send a `*`, but the parser of hosts would accept it.
        if host.contains('*') {
            return Err("has a `*`: name each host");
        }
        let host = url::Host::parse(host).map_err(|_| "has a host that cannot be one")?;
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port {
            "" => None,
            port if digits => Some(port.parse().map_err(|_| "has a port above 65535")?),
            _ => return Err("has a port that is no number"),
        };
        Ok(Self { host: host.to_string(), port })
    }
}

impl Authority {
    /// Formats the authority without the default port of `scheme`.
    pub fn within<'a>(&'a self, scheme: &str) -> impl fmt::Display + use<'a> {
        let port = self.port.filter(|port| Some(*port) != default_port(scheme));
        Written { host: &self.host, port }
    }
}

struct Written<'a> {
    host: &'a str,
    port: Option<u16>,
}

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(self.host),
        }
    }
}

/// The origin of a page: any value of `Origin` except `null`.
#[derive(Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    /// Without the scheme's default port.
    authority: Authority,
}

impl FromStr for Origin {
    type Err = &'static str;

    /// Accepts the usual spellings of an origin: capitals, a trailing slash, the default port, an
    /// international name. Ambiguous ones are refused.
    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        let raw = raw.trim();
        match raw {
            "" => return Err("an origin is missing"),
            "*" => return Err("`*` is no origin: name each one, like https://app.example.com"),
            "null" => return Err("`null` is the origin of any sandboxed page and any file"),
            _ => {}
        }
        let (scheme, rest) = raw
            .split_once("://")
            .filter(|(scheme, _)| is_scheme(scheme))
            .ok_or("must have a scheme and a host, like https://app.example.com")?;
        let scheme = scheme.to_ascii_lowercase();
        if matches!(scheme.as_str(), "ws" | "wss" | "file") {
            return Err("no page has such an origin: one begins with https:// or http://");
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '\\', '?', '#']) {
            return Err("must end after the host and its port: an origin has no path");
        }
        if rest.contains('@') {
            return Err("must have no user and no password");
        }
        if rest.contains(|char: char| char.is_whitespace() || char.is_control()) {
            return Err("has a blank within");
        }
        let mut authority: Authority = rest.parse()?;
        authority.port = authority.port.filter(|port| Some(*port) != default_port(&scheme));
        Ok(Self { scheme, authority })
    }
}

impl Origin {
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Whether a page of this origin came from `host`. A host without a port counts as at the
    /// default port of the page's scheme, because behind a proxy that terminates TLS no other is
    /// known.
    pub fn is_of_host(&self, host: &Authority) -> bool {
        let own = default_port(&self.scheme);
        self.authority.host == host.host && self.authority.port.or(own) == host.port.or(own)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority.within(&self.scheme))
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Checks a scheme (RFC 3986 §3.1). Apps in a web view have schemes of their own
/// (`capacitor://localhost`).
fn is_scheme(raw: &str) -> bool {
    raw.starts_with(|char: char| char.is_ascii_alphabetic())
        && raw.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// Whether a value is valid for the `Host` header (RFC 9110 §7.2): `uri-host [":" port]` of RFC
/// 3986. An empty host is invalid, because no HTTP URI has one (RFC 9110 §4.2.1).
pub fn is_host(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((address, rest)) = value.strip_prefix('[').and_then(|it| it.split_once(']')) {
        let port = if rest.is_empty() { Some("") } else { rest.strip_prefix(':') };
        return address.parse::<std::net::Ipv6Addr>().is_ok() && port.is_some_and(is_port);
    }
    let (name, port) = value.split_once(':').unwrap_or((value, ""));
    let mut encoded = name.split('%');
    let is_plain = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte))
    };
    let is_encoded =
        |part: &str| part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    !name.is_empty()
        && is_port(port)
        && encoded.next().is_none_or(is_plain)
        && encoded.all(|part| is_encoded(part) && is_plain(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(raw: &str) -> Origin {
        raw.parse().unwrap_or_else(|reason| panic!("{raw}: {reason}"))
    }

    #[test]
    fn one_origin_is_equal_however_it_is_written() {
        for (written, sent) in [
            ("https://app.example", "https://app.example"),
            ("https://app.example/", "https://app.example"),
            ("  HTTPS://App.Example:443/ ", "https://app.example"),
            ("http://app.example:80", "http://app.example"),
            ("http://app.example:443", "http://app.example:443"),
            ("https://app.example:08443", "https://app.example:8443"),
            ("https://чат.рф", "https://xn--80a0bn.xn--p1ai"),
            ("https://ЧАТ.РФ:443", "https://xn--80a0bn.xn--p1ai"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://abcdefghij", "chrome-extension://abcdefghij"),
        ] {
            assert_eq!(origin(written), origin(sent), "{written}");
            assert_eq!(origin(written).to_string(), sent);
        }
        for (one, other) in [
            ("https://app.example", "http://app.example"),
            ("https://app.example", "https://app.example:8443"),
            ("https://app.example", "https://app.example.evil.example"),
            ("https://app.example", "https://app.example."),
            ("https://app.example:80", "http://app.example"),
        ] {
            assert_ne!(origin(one), origin(other), "{one} {other}");
        }
    }

    #[test]
    fn what_can_mean_no_page_is_refused_with_its_reason() {
        for (wrong, reason) in [
            ("", "missing"),
            ("*", "`*`"),
            ("null", "`null`"),
            ("https://*.example.com", "`*`"),
            ("app.example", "scheme"),
            ("//app.example", "scheme"),
            ("https:app.example", "scheme"),
            ("1://x", "scheme"),
            ("wss://app.example", "no page"),
            ("file:///", "no page"),
            ("https://", "no host"),
            ("https://:443", "no host"),
            ("https://app.example/chat", "no path"),
            ("https://app.example//", "no path"),
            ("https://app.example?x", "no path"),
            ("https://app.example\\x", "no path"),
            ("https://me@app.example", "no user"),
            ("https://app.example https://b.example", "no path"),
            ("https://app example", "blank"),
            ("https://app.example:port", "no number"),
            ("https://app.example:+443", "no number"),
            ("https://app.example:65536", "65535"),
            ("https://[::1", "host"),
            ("https://a<b", "host"),
        ] {
            let refused = wrong.parse::<Origin>().expect_err(wrong);
            assert!(refused.contains(reason), "{wrong}: {refused}");
        }
    }

    #[test]
    fn a_page_is_of_the_host_that_it_was_had_from() {
        for (page, host, is) in [
            ("https://chat.example", "chat.example", true),
            ("https://chat.example", "Chat.Example", true),
            ("https://chat.example", "chat.example:443", true),
            ("http://chat.example", "chat.example:80", true),
            ("http://chat.example:8080", "chat.example:8080", true),
            ("https://xn--80a0bn.xn--p1ai", "чат.рф", true),
            ("https://chat.example:8443", "chat.example", false),
            ("https://chat.example", "chat.example:8443", false),
            ("http://chat.example", "chat.example:443", false),
            ("https://evil.example", "chat.example", false),
        ] {
            let host: Authority = host.parse().expect("a host");
            assert_eq!(origin(page).is_of_host(&host), is, "{page} {host:?}");
        }
    }

    #[test]
    fn hosts_are_told_from_what_cannot_be_one() {
        for host in [
            "chat.example",
            "Chat.Example:443",
            "localhost:",
            "127.0.0.1:8080",
            "[::1]",
            "[2001:db8::1]:80",
            "my_service.1:8080",
            "xn--80a0bn.xn--p1ai",
            "a%41",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for wrong in [
            "",
            ":80",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "me@a",
            "a:b",
            "a:80:80",
            "a:+80",
            "http://a",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "[a]",
            "::1",
            "a%4",
            "a%zz",
            "a\\b",
            "чат.рф",
            "a,b c",
            "<a>",
        ] {
            assert!(!is_host(wrong.as_bytes()), "{wrong}");
        }
        assert!(!is_host(b"\xff"));
    }
}
