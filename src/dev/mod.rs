//! `beseda dev` and the stack of the tests: real Postgres and Redis as child processes.
