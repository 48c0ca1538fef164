//! Close codes: why a socket ended, and what a client does next.

/// Why the server closes a socket. 40xx: stop; 41xx: get a new token; 42xx: back off and resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// A frame was not a JSON object in a text frame.
    BadFrame,
    /// The token does not allow the socket.
    Forbidden,
    /// The chat does not exist, was deleted, or is not one of the user's.
    ChatGone,
    /// The user was erased.
    UserGone,
    /// The user has too many sockets open.
    TooManySockets,
    /// The token expired, and no `auth` with another one came in time.
    TokenExpired,
    /// The token or ticket is missing, invalid, used or revoked.
    TokenInvalid,
    /// The replica shuts down.
    Draining,
    /// The client reads too slowly.
    TooSlow,
    /// The client answered no ping.
    NoPong,
    /// The server failed.
    Internal,
    /// The user connects too often, or sends too many commands that are refused.
    RateLimited,
}

/// What a client does after a close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseAction {
    /// Do not reconnect: another attempt would fail in the same way.
    Stop,
    /// Get a new token or ticket, then resume at once.
    Renew,
    /// Back off with jitter, then resume.
    Retry,
}

impl Close {
    /// All close codes.
    pub const ALL: [Self; 12] = [
        Self::BadFrame,
        Self::Forbidden,
        Self::ChatGone,
        Self::UserGone,
        Self::TooManySockets,
        Self::TokenExpired,
        Self::TokenInvalid,
        Self::Draining,
        Self::TooSlow,
        Self::NoPong,
        Self::Internal,
        Self::RateLimited,
    ];

    /// Returns the code on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::BadFrame => 4000,
            Self::Forbidden => 4003,
            Self::ChatGone => 4004,
            Self::UserGone => 4006,
            Self::TooManySockets => 4009,
            Self::TokenExpired => 4101,
            Self::TokenInvalid => 4102,
            Self::Draining => 4200,
            Self::TooSlow => 4201,
            Self::NoPong => 4202,
            Self::Internal => 4203,
            Self::RateLimited => 4204,
        }
    }

    /// Returns the reason on the wire, at most 123 bytes: a control frame carries 125, two of them the code
    /// (RFC 6455 §5.5).
    pub fn reason(self) -> &'static str {
        match self {
            Self::BadFrame => "send JSON objects as text frames",
            Self::Forbidden => "not allowed",
            Self::ChatGone => "no such chat among yours",
            Self::UserGone => "this user is gone",
            Self::TooManySockets => "too many sockets of this user",
            Self::TokenExpired => "the token has expired",
            Self::TokenInvalid => "no valid token or ticket",
            Self::Draining => "this replica is shutting down",
            Self::TooSlow => "reading too slowly",
            Self::NoPong => "no answer to pings",
            Self::Internal => "internal error",
            Self::RateLimited => "too much at once",
        }
    }

    /// Returns the reason with this code; `None` for codes of the WebSocket protocol or of a proxy.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|close| close.code() == code)
    }

    /// Returns what a client does after any close code. The range decides, so that codes of later versions
    /// work too. Codes of a proxy (1006, 1011, 1012) mean a retry.
    ///
    /// ```
    /// use beseda_protocol::{Close, CloseAction};
    ///
    /// assert_eq!(Close::action(4004), CloseAction::Stop);
    /// assert_eq!(Close::action(4101), CloseAction::Renew);
    /// assert_eq!(Close::action(1006), CloseAction::Retry);
    /// ```
    pub fn action(code: u16) -> CloseAction {
        match code {
            1003 | 1009 | 4000..=4099 => CloseAction::Stop,
            4100..=4199 => CloseAction::Renew,
            _ => CloseAction::Retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_known_by_its_number_and_its_reason_fits_a_control_frame() {
        for close in Close::ALL {
            assert_eq!(Close::from_code(close.code()), Some(close));
            assert!(close.reason().len() <= 123, "{close:?}");
        }
        assert_eq!(Close::from_code(1006), None);
    }
}
