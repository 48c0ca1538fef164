#![doc = include_str!("../README.md")]

mod client;
mod driver;
mod error;
mod file;
pub mod machine;
mod rest;
mod tls;
mod token;
pub mod wire;

pub use beseda_protocol as protocol;
pub use beseda_protocol::rest::Window;

pub use self::{
    client::{Client, ClientBuilder, Events},
    error::Error,
    file::NewFile,
    machine::{Event, State},
    rest::{Changes, ChatFilter, Export, MemberFilter, Rest},
    token::{Credentials, TokenReason},
    wire::{Closed, Connection, Utf8Bytes, Wire, WireError, WireOptions, WsMessage},
};
