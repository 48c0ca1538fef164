//! The host application's token, and how the next one is had.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::Error;

/// How long the host application may take to give a token: every call waits for it.
const ASK_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenReason {
    /// There is none yet.
    Start,
    /// The one in use ends soon.
    Expiring,
    /// The server refused the one in use.
    Refused,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Asked = Pin<Box<dyn Future<Output = Result<Option<String>, BoxError>> + Send>>;
type Ask = dyn Fn(TokenReason) -> Asked + Send + Sync;

/// The token in use, shared by all calls. A clone is cheap.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    token: Mutex<Option<Arc<str>>>,
    ask: Option<Box<Ask>>,
    /// One question at a time, however many calls wait for its answer.
    asking: tokio::sync::Mutex<()>,
}

/// Says nothing of the token.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("can_renew", &self.can_renew()).finish_non_exhaustive()
    }
}

impl Credentials {
    /// A token that can't be renewed, but by [`Credentials::set`].
    pub fn fixed(token: impl Into<Arc<str>>) -> Self {
        Self::new(Some(token.into()), None)
    }

    /// Tokens that the host application gives whenever one is needed. An error counts as "try again
    /// later"; `None`: there is none to be had.
    ///
    /// ```
    /// use beseda_client::Credentials;
    ///
    /// let credentials = Credentials::renewed_by(|reason| async move {
    ///     println!("a token is needed: {reason:?}");
    ///     Ok(Some("token from the host application".to_owned()))
    /// });
    /// assert!(credentials.can_renew());
    /// ```
    pub fn renewed_by<F, A>(ask: F) -> Self
    where
        F: Fn(TokenReason) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Option<String>, BoxError>> + Send + 'static,
    {
        Self::new(None, Some(Box::new(move |reason| Box::pin(ask(reason)))))
    }

    fn new(token: Option<Arc<str>>, ask: Option<Box<Ask>>) -> Self {
        Self(Arc::new(Inner {
            token: Mutex::new(token),
            ask,
            asking: tokio::sync::Mutex::default(),
        }))
    }

    /// Whether there is somebody to ask.
    pub fn can_renew(&self) -> bool {
        self.0.ask.is_some()
    }

    /// Takes a token of the same user.
    pub fn set(&self, token: impl Into<Arc<str>>) {
        *self.0.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.into());
    }

    fn get(&self) -> Option<Arc<str>> {
        self.0.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The token in use; the first call asks for it.
    ///
    /// # Errors
    /// There is none, or the host application could not be asked.
    pub async fn current(&self) -> Result<Arc<str>, Error> {
        if self.get().is_none() {
            self.renew(None, TokenReason::Start).await?;
        }
        self.get().ok_or_else(|| Error::answered(401, b""))
    }

    /// Sees to a token other than `old`; whether there is one now.
    ///
    /// # Errors
    /// The host application could not be asked.
    pub async fn renew(&self, old: Option<&str>, reason: TokenReason) -> Result<bool, Error> {
        let _one = self.0.asking.lock().await;
        let is_new = || self.get().as_deref() != old;
        if is_new() {
            return Ok(true);
        }
        let Some(ask) = &self.0.ask else { return Ok(false) };
        let asked = tokio::time::timeout(ASK_TIMEOUT, ask(reason)).await;
        let token =
            asked.map_err(Error::network)?.map_err(|cause| Error::network(Unasked(cause)))?;
        if let Some(token) = token {
            self.set(token);
        }
        Ok(is_new())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the host application gave no token: {0}")]
struct Unasked(BoxError);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn however_many_wait_the_host_application_is_asked_once() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let credentials = Credentials::renewed_by(move |_| {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::task::yield_now().await;
                Ok(Some(format!("token {number}")))
            }
        });
        let (one, two) = tokio::join!(credentials.current(), credentials.current());
        assert_eq!((&*one.unwrap(), &*two.unwrap()), ("token 0", "token 0"));
        let renewed = credentials.renew(Some("token 0"), TokenReason::Refused);
        assert!(renewed.await.unwrap());
        assert!(credentials.renew(Some("token 0"), TokenReason::Refused).await.unwrap());
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        let fixed = Credentials::fixed("x");
        assert!(!fixed.renew(Some("x"), TokenReason::Refused).await.unwrap());
        assert!(!format!("{fixed:?}").contains('x'));
    }
}
