//! Close codes: why a socket ended, and what a client does next.

/// Why the server closes a socket. 40xx: stop; 41xx: get a new token; 42xx: back off and resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// Not JSON text.
    BadFrame,
    Forbidden,
    ChatGone,
    UserGone,
    TooManySockets,
    TokenExpired,
    TokenInvalid,
    Draining,
    TooSlow,
    NoPong,
    Internal,
    RateLimited,
}

/// What a close code asks of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseAction {
    /// Another attempt would end in the same way.
    Stop,
    /// Get a new token or ticket, then resume at once.
    Renew,
    /// Back off with jitter, then resume.
    Retry,
}

impl Close {
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

    /// Short enough for a control frame: 125 bytes, two of them the code (RFC 6455 §5.5).
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

    /// The reason behind a code; `None` for codes of the WebSocket protocol or of a proxy.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|close| close.code() == code)
    }

    /// What any close code asks of a client: by its range, so that codes of later versions work too.
    /// Codes that are not the server's own (a proxy's 1006, 1011, 1012) are a retry.
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
