//! Our own tickets for sockets: short, because they stand in URLs.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    derive_key,
    token::{Identity, MAX_TOKEN_BYTES, refusal},
};
use crate::{
    error::Error,
    model::{ChatId, Time, UserId},
};

/// How long a ticket may wait to be used: a page's round trip and a slow handshake, not more,
/// because tickets stand in URLs and so in logs.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(60);

/// The audience of tickets; no host token can pass for one, as the key differs too.
const TICKET_AUDIENCE: &str = "ws";

/// What a ticket lets its bearer open.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Ticket {
    #[serde(rename = "sub")]
    pub user_id: UserId,
    /// The one chat's socket; `None`: the many-chats socket.
    #[serde(rename = "chat", skip_serializing_if = "Option::is_none")]
    pub chat_id: Option<ChatId>,
    /// For its single use.
    #[serde(rename = "jti")]
    pub id: Uuid,
    aud: String,
    exp: i64,
    /// When the token that it was given for expires, in seconds since 1970.
    #[serde(rename = "tex")]
    pub token_expires_at: i64,
    /// When that token was issued, where it says so.
    #[serde(rename = "tia", default, skip_serializing_if = "Option::is_none")]
    pub token_issued_at: Option<Time>,
    #[serde(default, rename = "adm")]
    pub admin: bool,
}

/// Makes and checks tickets; the key is the installation's, so any replica takes any other's.
#[derive(Clone)]
pub struct Tickets {
    signing: Arc<EncodingKey>,
    checking: Arc<DecodingKey>,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    pub fn new(instance_secret: &[u8]) -> Self {
        let key = derive_key(instance_secret, "tickets");
        Self {
            signing: Arc::new(EncodingKey::from_secret(&key)),
            checking: Arc::new(DecodingKey::from_secret(&key)),
        }
    }

    pub fn issue(&self, identity: &Identity, chat_id: Option<ChatId>) -> Result<String, Error> {
        let lifetime = TICKET_LIFETIME.as_secs().cast_signed();
        let ticket = Ticket {
            user_id: identity.user_id().clone(),
            chat_id,
            id: Uuid::now_v7(),
            aud: TICKET_AUDIENCE.to_owned(),
            exp: jiff::Timestamp::now().as_second() + lifetime,
            token_expires_at: identity.expires_at,
            token_issued_at: identity.issued_at,
            admin: identity.admin,
        };
        encode(&Header::new(Algorithm::HS256), &ticket, &self.signing).map_err(Error::internal)
    }

    pub fn check(&self, ticket: &str) -> Result<Ticket, Error> {
        if ticket.len() > MAX_TOKEN_BYTES {
            return Err(Error::TokenInvalid("it is longer than 8 KiB"));
        }
        let mut validation = Validation::new(Algorithm::HS256);
        // Both clocks are replicas' own; a minute's ticket needs little tolerance.
        validation.leeway = 5;
        validation.set_audience(&[TICKET_AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "sub", "aud"]);
        decode::<Ticket>(ticket, &self.checking, &validation)
            .map(|data| data.claims)
            .map_err(refusal)
    }
}
