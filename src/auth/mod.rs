//! Authentication: the host application's tokens, and our own tickets for sockets.

mod jwks;
mod keys;
mod ticket;
mod token;

pub use self::{
    ticket::{TICKET_LIFETIME, Ticket, Tickets},
    token::{Identity, MAX_TOKEN_BYTES, Verifier, is_revoked},
};

/// Derives a key for one purpose from the installation's secret, with HMAC as a pseudo-random
/// function (RFC 5869 §2.3 with one block).
pub fn derive_key(instance_secret: &[u8], purpose: &str) -> [u8; 32] {
    mac(instance_secret, &[purpose.as_bytes()])
}

/// Computes HMAC-SHA256 over length-prefixed parts, so that no two lists of parts have the same
/// input.
pub fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    use aws_lc_rs::hmac;
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

#[cfg(test)]
mod tests;
