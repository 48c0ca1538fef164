//! The guarantees, seen from outside: real Postgres, real Redis, several replicas in one process.

mod delivery;
mod harness;
mod messages;
mod people;
mod retries;
mod rooms;
mod search;
mod socket;
mod unread;
