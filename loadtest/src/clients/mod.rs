//! Clients of the scenarios: senders, readers and listeners, in pairs or by the thousand.

pub(crate) mod baseline;
pub(crate) mod chats;
pub(crate) mod count;
pub(crate) mod fanout_clients;
pub(crate) mod listener;
pub(crate) mod paired_chats;
pub(crate) mod people;
pub(crate) mod push_service;
pub(crate) mod reads;
pub(crate) mod recount;
pub(crate) mod send;
pub(crate) mod socket;
