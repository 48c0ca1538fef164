//! Keys that an issuer publishes at a URL (RFC 7517), kept fresh while replicas run.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use jsonwebtoken::Validation;
use reqwest::{Client, StatusCode, header, redirect::Policy};
use tokio::sync::Mutex;
use url::Url;

use super::keys::{KeySet, Misfit};
use crate::{config::ConfigError, tls};

/// How often the set is read anew: what an issuer has taken back is believed that long.
const REFRESH: Duration = Duration::from_secs(600);

/// The same after a failure: while there is no set at all nobody can come in, and a new key is not
/// known.
const RETRY: Duration = Duration::from_secs(5);

/// How often a token that no key fits may make us ask, by its name or by its signature: anybody can
/// invent either.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// How long the issuer may take to answer; a person waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest set read, in bytes: a hundred times a usual one.
const MAX_SET_BYTES: usize = 256 * 1024;

/// An issuer's published keys. The last good set stays while the issuer is away.
pub(super) struct Jwks {
    url: Url,
    rules: Validation,
    client: Client,
    keys: ArcSwapOption<KeySet>,
    /// Before when no token makes us ask; also, one asks at a time.
    not_before: Mutex<Pauses>,
}

/// Each for itself: forged tokens under a known name must not hold up who comes with a new one.
#[derive(Default)]
struct Pauses {
    name: Option<Instant>,
    key: Option<Instant>,
}

/// Why a set could not be had.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no answer: {0}")]
    Http(#[from] reqwest::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("more than {MAX_SET_BYTES} bytes")]
    TooLarge,
    #[error("no JWK set with a key that can be used here (RSA, P-256 or Ed25519, to verify)")]
    NoKeys,
}

impl Jwks {
    /// Asks for nothing yet.
    pub(super) fn new(url: Url, rules: Validation) -> Result<Self, ConfigError> {
        let refused = |error: &dyn std::error::Error| ConfigError {
            name: "BESEDA_JWT_JWKS_URL".into(),
            reason: format!("no HTTP client: {error}"),
        };
        let client = Client::builder()
            .tls_backend_preconfigured(tls::client_config(None).map_err(|error| refused(&error))?)
            // What is configured is asked, and nobody else.
            .redirect(Policy::none())
            .no_proxy()
            .timeout(FETCH_TIMEOUT)
            .build()
            .map_err(|error| refused(&error))?;
        let (keys, not_before) = (ArcSwapOption::empty(), Mutex::default());
        Ok(Self { url, rules, client, keys, not_before })
    }

    /// The set as last read; `None` before the first one.
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.keys.load_full()
    }

    /// Reads the set anew for a token that no key fits, unless that was done a moment ago.
    pub(super) async fn ask_again(self: &Arc<Self>, misfit: Misfit) {
        let jwks = Arc::clone(self);
        // A task of its own: who asks may leave at any moment, and must not take with them what the
        // next one has to wait a minute for.
        let asking = tokio::spawn(async move {
            let mut pauses = jwks.not_before.lock().await;
            let not_before = match misfit {
                Misfit::Name => &mut pauses.name,
                Misfit::Key(_) => &mut pauses.key,
            };
            if not_before.is_none_or(|at| Instant::now() >= at) {
                let pause = if jwks.refresh().await { ASK_AGAIN } else { RETRY };
                *not_before = Some(Instant::now() + pause);
            }
        });
        // It panics as little as this does.
        let _ = asking.await;
    }

    /// Reads the set anew, again and again.
    pub(super) async fn keep_fresh(&self) {
        loop {
            let pause = if self.keys.load().is_some() { REFRESH } else { RETRY };
            // Jitter, so that replicas do not ask all at once.
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
            self.refresh().await;
        }
    }

    /// Reads the set anew; what there is stays where that fails, which is false.
    pub(super) async fn refresh(&self) -> bool {
        match self.fetch().await {
            Ok(keys) => {
                tracing::debug!(url = %self.url, keys = keys.len(), "read an issuer's keys");
                self.keys.store(Some(Arc::new(keys)));
                true
            }
            Err(error) => {
                let kept = self.keys.load().as_ref().map_or(0, |keys| keys.len());
                tracing::warn!(url = %self.url, %error, kept, "reading an issuer's keys failed");
                false
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let request = self.client.get(self.url.clone());
        let mut answer = request.header(header::ACCEPT, "application/json").send().await?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > MAX_SET_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        KeySet::parse(&body, &self.rules).ok_or(FetchError::NoKeys)
    }
}
