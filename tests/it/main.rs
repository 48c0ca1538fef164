//! The guarantees, seen from outside: real Postgres, real Redis, several replicas in one process.

mod delivery;
mod harness;
mod messages;
mod retries;
mod rooms;
mod socket;
mod unread;
