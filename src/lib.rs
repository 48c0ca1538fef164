//! A chat service that scales by adding identical replicas. Postgres is the truth; Redis may be
//! lost at any moment, and costs latency then, never a message or a wrong counter.
//!
//! A message travels: [`api`] or [`socket`] → [`chat`] (the rule) → [`writer`] → [`store`] (one
//! transaction for a batch) → [`outbox`] → [`broker`] (Redis) → [`hub`] on every replica →
//! [`socket`].
//!
//! The map in `ARCHITECTURE.md` lists the modules from the top down; a module uses only modules
//! that stand below it.
//!
//! The guarantees, and the means that keep them:
//!
//! - **Numbers without holes.** `seq` numbers a chat's messages, `ev` all its changes, in commit
//!   order: both move under the lock of the chat's row.
//! - **Durable, and once.** A message is acknowledged after its commit; with a `client_msg_id` its
//!   id is derived, so that a retry finds the first one.
//! - **Nothing missed, nothing twice.** Rows carry the `ev` that changed them last, so a position
//!   is resumed by a query; publications are compared with Postgres, and a gap is read from it.
//! - **Exact counters.** Unread is computed from numbers that move under the same lock; its copies in Redis are versioned.
//!
//! `ARCHITECTURE.md` has the reasons, and the test that proves each guarantee.

pub mod admin;
pub mod admission_cache;
pub mod api;
pub mod app;
pub mod attachments;
pub mod auth;
mod beat;
pub mod bench_entry;
pub mod broker;
pub mod chat;
#[cfg(feature = "dev")]
pub mod cli_chat;
pub mod config;
pub mod context;
#[cfg(feature = "dev")]
pub mod dev;
pub mod error;
pub mod fuzz_entry;
pub mod history;
pub mod hub;
pub mod input;
pub mod json;
pub mod limits;
pub mod metrics;
pub mod model;
pub mod net;
pub mod origin;
pub mod outbound;
pub mod outbox;
pub mod presence;
pub mod protocol;
pub mod purge;
pub mod push;
pub mod readiness;
pub mod search;
pub mod server;
pub mod signals;
pub mod socket;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod token_cache;
pub mod trace;
pub mod unread;
pub mod webhooks;
pub mod writer;
