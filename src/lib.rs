//! A chat service that scales by adding identical replicas.

pub mod api;
pub mod app;
pub mod auth;
pub mod broker;
pub mod chat;
pub mod config;
pub mod context;
pub mod dev;
pub mod error;
pub mod hub;
pub mod input;
pub mod limits;
pub mod metrics;
pub mod model;
pub mod outbox;
pub mod presence;
pub mod protocol;
pub mod purge;
pub mod search;
pub mod server;
pub mod socket;
pub mod store;
pub mod telemetry;
pub mod unread;
pub mod writer;
