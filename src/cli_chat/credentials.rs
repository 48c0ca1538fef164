//! The user's token: given, or signed here.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::ChatError;
use crate::{
    dev::{self, DevError, Signing, TokenOptions},
    model::UserId,
};

/// Life of a token signed here: a long conversation renews it only a few times.
const TTL: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
enum Source {
    Given(String),
    /// Signed again whenever one is needed.
    Signed(TokenOptions),
}

#[derive(Debug)]
pub(super) struct Credentials {
    user: UserId,
    source: Source,
}

impl Credentials {
    /// Uses `token`, or else signs one for `me` by `signing`. An empty token counts as missing, like an
    /// empty variable.
    pub(super) fn new(
        token: Option<String>,
        me: Option<String>,
        signing: Signing,
    ) -> Result<Self, ChatError> {
        match (token.filter(|token| !token.is_empty()), me) {
            (Some(token), me) => {
                let user = match (user_of(&token), me) {
                    (Some(theirs), Some(me)) if theirs != me => {
                        return Err(ChatError::TokenOfAnother { theirs, me });
                    }
                    (Some(user), _) | (None, Some(user)) => user,
                    (None, None) => {
                        let why = "it can't be read; it should be a JWT".to_owned();
                        return Err(ChatError::TokenRefused(why));
                    }
                };
                Ok(Self { user: id(user)?, source: Source::Given(token) })
            }
            (None, me) => {
                let user = me.unwrap_or_default();
                let options =
                    TokenOptions { user: user.clone(), name: None, ttl: TTL, scope: None, signing };
                Ok(Self { user: id(user)?, source: Source::Signed(options) })
            }
        }
    }

    pub(super) fn user(&self) -> &UserId {
        &self.user
    }

    /// Converts to the client's credentials.
    ///
    /// # Errors
    /// No token can be signed.
    pub(super) fn into_tokens(self) -> Result<beseda_client::Credentials, ChatError> {
        match self.source {
            Source::Given(token) => Ok(beseda_client::Credentials::fixed(token)),
            Source::Signed(options) => {
                // Signed once here, so that an error is reported at once.
                dev::token(options.clone())?;
                Ok(beseda_client::Credentials::renewed_by(move |_| {
                    let token = dev::token(options.clone());
                    async move { Ok(Some(token?)) }
                }))
            }
        }
    }
}

fn id(user: String) -> Result<UserId, ChatError> {
    UserId::parse(&user).ok_or_else(|| ChatError::Token(DevError::UserId(user)))
}

/// Reads the user of a token without verifying it, which the service does.
fn user_of(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
    }
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    Some(serde_json::from_slice::<Claims>(&payload).ok()?.sub)
}
