#![doc = include_str!("../README.md")]

pub mod bounds;
mod close;
mod error;
pub mod frame;
pub mod model;
pub mod rest;
mod tagged;

pub use self::{
    close::{Close, CloseAction},
    error::{ErrorCode, FieldError, Problem},
    frame::{ClientFrame, ReceivedFrame, ResetReason, ServerFrame},
};

/// The WebSocket subprotocol, offered by clients and echoed by the server.
pub const SUBPROTOCOL: &str = "chat.v1";
