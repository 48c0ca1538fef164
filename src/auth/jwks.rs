//! The keys that an issuer publishes at a URL (RFC 7517), refreshed while the replica runs.

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

/// How often the set is refreshed: a withdrawn key is trusted that long.
const REFRESH: Duration = Duration::from_secs(600);

/// Pause after a failed refresh: without any set nobody can authenticate, and new keys stay
/// unknown.
const RETRY: Duration = Duration::from_secs(5);

/// Minimum pause between refreshes caused by tokens that no key fits, separately for unknown `kid`s
/// and for bad signatures: anyone can forge either.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// Time-out of a request to the issuer; a user waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum size of a set in bytes: a hundred times the usual one.
const MAX_SET_BYTES: usize = 256 * 1024;

/// An issuer's published keys. The last good set stays in use while the issuer is unavailable.
pub(super) struct Jwks {
    url: Url,
    rules: Validation,
    client: Client,
    keys: ArcSwapOption<KeySet>,
    /// When tokens may cause the next refresh; the lock also allows one refresh at a time.
    not_before: Mutex<Pauses>,
}

/// Separate, because forged tokens with a known `kid` must not delay the refresh for a new one.
#[derive(Default)]
struct Pauses {
    name: Option<Instant>,
    key: Option<Instant>,
}

/// The reason why a set could not be read.
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
    /// Creates the client without a request.
    pub(super) fn new(url: Url, rules: Validation) -> Result<Self, ConfigError> {
        let refused = |error: &dyn std::error::Error| ConfigError {
            name: "BESEDA_JWT_JWKS_URL".into(),
            reason: format!("no HTTP client: {error}"),
        };
        let client = Client::builder()
            .tls_backend_preconfigured(tls::client_config(None).map_err(|error| refused(&error))?)
            // Only the configured URL is trusted.
            .redirect(Policy::none())
            .no_proxy()
            .timeout(FETCH_TIMEOUT)
            .build()
            .map_err(|error| refused(&error))?;
        let (keys, not_before) = (ArcSwapOption::empty(), Mutex::default());
        Ok(Self { url, rules, client, keys, not_before })
    }

    /// The last set; `None` before the first one.
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.keys.load_full()
    }

    /// Refreshes the set for a token that no key fits, unless the last such refresh is too recent.
    pub(super) async fn ask_again(self: &Arc<Self>, misfit: Misfit) {
        let jwks = Arc::clone(self);
        // A task of its own: a caller that leaves must not cancel the refresh, since the next one
        // is a minute away.
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
        // The task fails only by a panic, and nothing in it panics.
        let _ = asking.await;
    }

    /// Refreshes the set periodically, for ever.
    pub(super) async fn keep_fresh(&self) {
        loop {
            let pause = if self.keys.load().is_some() { REFRESH } else { RETRY };
            // Jitter, so that replicas do not ask at the same moment.
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
            self.refresh().await;
        }
    }

    /// Refreshes the set; false, with the old set kept, if that fails.
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
