//! The labels of the metrics, and the outcomes that are counted.

use prometheus_client::encoding::EncodeLabelSet;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HttpLabels {
    pub method: &'static str,
    /// The matched route pattern.
    pub route: String,
    pub status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueryLabels {
    pub query: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabels {
    pub code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CloseLabels {
    /// The server's close code; 1000 if the client closed.
    pub code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    pub(super) outcome: &'static str,
}

/// The outcome of an event for webhooks, or of one attempt to send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookOutcome {
    Delivered,
    /// An attempt failed; another one follows.
    Failed,
    Dead,
    /// The event was no longer true, so it was not sent.
    Skipped,
}

impl WebhookOutcome {
    pub(super) const ALL: [Self; 4] = [Self::Delivered, Self::Failed, Self::Dead, Self::Skipped];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Dead => "dead",
            Self::Skipped => "skipped",
        }
    }
}

/// What became of a read that a standby might serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandbyRead {
    Read,
    /// The standby had not replayed all in time; the primary was read.
    Behind,
    /// The standby is away, or none; the primary was read.
    Failed,
    /// All standbys were behind or failed a moment ago; the primary was read.
    Resting,
}

impl StandbyRead {
    pub(super) const ALL: [Self; 4] = [Self::Read, Self::Behind, Self::Failed, Self::Resting];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Behind => "behind",
            Self::Failed => "failed",
            Self::Resting => "resting",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PushLabels {
    pub(super) platform: &'static str,
    pub(super) outcome: &'static str,
}

/// The outcome of a push, or of one attempt to send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushResult {
    Accepted,
    /// An attempt failed; another one follows.
    Failed,
    /// An attempt failed, because the provider does not accept our key.
    Unauthorized,
    /// The provider knows the device no more.
    Gone,
    Dead,
    /// It was read or deleted meanwhile, so it was not sent.
    Skipped,
}

impl PushResult {
    pub(super) const ALL: [Self; 6] =
        [Self::Accepted, Self::Failed, Self::Unauthorized, Self::Gone, Self::Dead, Self::Skipped];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Failed => "failed",
            Self::Unauthorized => "unauthorized",
            Self::Gone => "gone",
            Self::Dead => "dead",
            Self::Skipped => "skipped",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StateLabels {
    pub(super) state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClassLabels {
    pub class: &'static str,
}
