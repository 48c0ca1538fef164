//! A chat service that scales by adding identical replicas.

pub mod app;
pub mod config;
pub mod dev;
pub mod error;
pub mod model;
pub mod search;
