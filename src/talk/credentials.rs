//! Who one is, by which token.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::TalkError;
use crate::dev::{self, Signing, TokenOptions};

/// How long a token made here is good for: long enough to be renewed some times in a long talk only.
const TTL: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
enum Source {
    Given(String),
    /// Made anew whenever one is needed.
    Signed(TokenOptions),
}

#[derive(Debug)]
pub(super) struct Credentials {
    user: String,
    source: Source,
}

impl Credentials {
    /// With a `token`, else as `me` with one made as `signing` says. An empty token is none, as an
    /// empty variable is.
    pub(super) fn new(
        token: Option<String>,
        me: Option<String>,
        signing: Signing,
    ) -> Result<Self, TalkError> {
        match (token.filter(|token| !token.is_empty()), me) {
            (Some(token), me) => {
                let user = match (user_of(&token), me) {
                    (Some(theirs), Some(me)) if theirs != me => {
                        return Err(TalkError::TokenOfAnother { theirs, me });
                    }
                    (Some(user), _) | (None, Some(user)) => user,
                    (None, None) => {
                        let why = "it can't be read; it should be a JWT".to_owned();
                        return Err(TalkError::TokenRefused(why));
                    }
                };
                Ok(Self { user, source: Source::Given(token) })
            }
            (None, me) => {
                let user = me.unwrap_or_default();
                let options =
                    TokenOptions { user: user.clone(), name: None, ttl: TTL, scope: None, signing };
                Ok(Self { user, source: Source::Signed(options) })
            }
        }
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// Whether another token can be had when one is refused.
    pub(super) fn can_renew(&self) -> bool {
        matches!(self.source, Source::Signed(_))
    }

    pub(super) fn token(&self) -> Result<String, TalkError> {
        match &self.source {
            Source::Given(token) => Ok(token.clone()),
            Source::Signed(options) => Ok(dev::token(options.clone())?),
        }
    }
}

/// Whose token it is, by its own word; whether that is true is the service's business.
fn user_of(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
    }
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    Some(serde_json::from_slice::<Claims>(&payload).ok()?.sub)
}
