//! The guarantees, seen from outside: real Postgres, real Redis, several replicas in one process.

mod delivery;
mod harness;
mod limits;
mod messages;
mod operators;
mod people;
mod plans;
mod problems;
mod retries;
mod rooms;
mod search;
mod socket;
mod system;
mod tokens;
mod unread;
