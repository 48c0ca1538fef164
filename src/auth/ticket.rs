//! Our own tickets for sockets; short-lived, because they appear in URLs.

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

/// Lifetime of a ticket: enough for a page's round trip and a slow handshake, not more, because
/// tickets appear in URLs and so in logs.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(60);

/// The audience of tickets. A host token cannot pass for a ticket in any case, because the key
/// differs.
const TICKET_AUDIENCE: &str = "ws";

/// The claims of a ticket.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Ticket {
    #[serde(rename = "sub")]
    pub user_id: UserId,
    /// The chat of the socket; `None`: the many-chats socket.
    #[serde(rename = "chat", skip_serializing_if = "Option::is_none")]
    pub chat_id: Option<ChatId>,
    /// Identifies the ticket, so that it can be used only once.
    #[serde(rename = "jti")]
    pub id: Uuid,
    aud: String,
    exp: i64,
    /// When the token behind the ticket expires, in seconds since 1970.
    #[serde(rename = "tex")]
    pub token_expires_at: i64,
    /// When that token was issued; `None`: it has no `iat`.
    #[serde(rename = "tia", default, skip_serializing_if = "Option::is_none")]
    pub token_issued_at: Option<Time>,
    #[serde(default, rename = "adm")]
    pub admin: bool,
}

/// Issues and checks tickets. The key is the installation's, so any replica accepts tickets of any
/// other.
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
        // In seconds: both clocks belong to replicas, and a ticket of a minute needs little
        // tolerance.
        validation.leeway = 5;
        validation.set_audience(&[TICKET_AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "sub", "aud"]);
        decode::<Ticket>(ticket, &self.checking, &validation)
            .map(|data| data.claims)
            .map_err(refusal)
    }
}
