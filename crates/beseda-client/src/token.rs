//! The host application's token, and how the next one is had.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::Error;

/// How long the host application may take to give a token: every call waits for it.
const ASK_TIMEOUT: Duration = Duration::from_secs(15);

/// Pauses between questions that brought no token which the server took: none before the second one,
/// then a second, doubled up to half a minute.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

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
    state: Mutex<State>,
    ask: Option<Box<Ask>>,
    /// One question at a time, however many calls wait for its answer.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    token: Option<Arc<str>>,
    /// Whether the server took the token in use.
    is_proven: bool,
    /// Questions in a row that brought no token which the server took.
    failures: u32,
    /// Until then the last answer stands.
    not_before: Option<Instant>,
    /// Why the last question failed; `None`: the answer was that there is no token.
    trouble: Option<Error>,
}

impl State {
    fn set(&mut self, token: Arc<str>) {
        (self.token, self.is_proven) = (Some(token), false);
    }

    /// The answer that stands, where it is too early for another question.
    fn standing(&mut self, now: Instant) -> Option<Result<bool, Error>> {
        if self.not_before.is_some_and(|earliest| earliest > now) {
            return Some(self.trouble.clone().map_or(Ok(false), Err));
        }
        if self.is_proven {
            self.failures = 0;
        }
        None
    }

    /// Takes the answer to a question, which counts as failed until the server has taken its token.
    fn answered(
        &mut self,
        now: Instant,
        answer: Result<Option<String>, Error>,
    ) -> Result<(), Error> {
        self.failures += 1;
        self.trouble = answer.as_ref().err().cloned();
        let doublings = self.failures.checked_sub(2);
        self.not_before = doublings.map(|n| now + (PAUSE.0 * 2_u32.pow(n.min(10))).min(PAUSE.1));
        if let Some(token) = answer? {
            self.set(token.into());
        }
        Ok(())
    }

    fn prove(&mut self, token: &str) {
        self.is_proven |= self.token.as_deref() == Some(token);
    }

    fn wake(&mut self) {
        (self.failures, self.not_before) = (0, None);
    }
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
            state: Mutex::new(State { token, ..State::default() }),
            ask,
            asking: tokio::sync::Mutex::default(),
        }))
    }

    /// Whether another token can be requested.
    pub fn can_renew(&self) -> bool {
        self.0.ask.is_some()
    }

    /// Takes a token of the same user.
    pub fn set(&self, token: impl Into<Arc<str>>) {
        self.state().set(token.into());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain assignments leave nothing half done.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self) -> Option<Arc<str>> {
        self.state().token.clone()
    }

    /// The server took this token.
    pub(crate) fn prove(&self, token: &str) {
        self.state().prove(token);
    }

    /// The network or the user is back: the host application is asked at once.
    pub(crate) fn wake(&self) {
        self.state().wake();
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

    /// Sees to a token other than `old`; whether there is one now. A host application that answers in
    /// vain is asked ever less often; until the next question its last answer stands.
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
        if let Some(standing) = self.state().standing(Instant::now()) {
            return standing;
        }
        let answer = match tokio::time::timeout(ASK_TIMEOUT, ask(reason)).await {
            Ok(answer) => answer.map_err(|cause| Error::network(Unasked(cause))),
            Err(late) => Err(Error::network(late)),
        };
        self.state().answered(Instant::now(), answer)?;
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

    /// How often a host application is asked within a minute of ten calls a second.
    fn questions_in_a_minute(
        answer: fn(usize) -> Result<Option<String>, Error>,
        is_taken: bool,
    ) -> usize {
        let (mut state, began, mut asked) = (State::default(), Instant::now(), 0);
        for call in 0..600 {
            let now = began + call * Duration::from_millis(100);
            if state.standing(now).is_some() {
                continue;
            }
            let _ = state.answered(now, answer(asked));
            if let Some(token) = state.token.clone().filter(|_| is_taken) {
                state.prove(&token);
            }
            asked += 1;
        }
        asked
    }

    fn away() -> Error {
        Error::network(Unasked("away".into()))
    }

    #[test]
    fn a_host_application_that_answers_in_vain_is_asked_ever_less_often() {
        // At 0, 0.1, 1.1, 3.1, 7.1, 15.1 and 31.1 s.
        assert_eq!(questions_in_a_minute(|_| Ok(None), false), 7);
        assert_eq!(questions_in_a_minute(|_| Err(away()), false), 7);
        assert_eq!(questions_in_a_minute(|n| Ok(Some(format!("dead {n}"))), false), 7);
        // Tokens that the server takes may live as shortly as they like.
        assert_eq!(questions_in_a_minute(|n| Ok(Some(format!("good {n}"))), true), 600);
    }

    #[test]
    fn the_last_answer_stands_until_the_next_question_and_a_wake_asks_at_once() {
        let (mut state, now) = (State::default(), Instant::now());
        for _ in 0..2 {
            assert_eq!(state.standing(now), None);
            assert_eq!(state.answered(now, Err(away())), Err(away()));
        }
        assert_eq!(state.standing(now), Some(Err(away())));
        state.wake();
        assert_eq!(state.standing(now), None);
    }
}
