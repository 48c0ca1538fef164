//! The guarantees, seen from outside: real Postgres, real Redis, several replicas in one process.

mod delivery;
mod export;
mod harness;
mod issuers;
mod leaks;
mod limits;
mod matrix;
mod messages;
mod operators;
mod people;
mod plans;
mod postgres;
mod problems;
mod reports;
mod retries;
mod revocation;
mod rolling;
mod rooms;
mod search;
mod socket;
mod system;
mod tokens;
mod traces;
mod unread;
mod webhooks;
mod wire;
