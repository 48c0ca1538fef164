//! The guarantees, seen from outside: real Postgres, real Redis, several replicas in one process.

mod delivery;
mod harness;
mod rooms;
