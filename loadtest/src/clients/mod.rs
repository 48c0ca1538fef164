//! Who a scenario lets send, read and listen: people with their chats, one after another or very many.

pub(crate) mod baseline;
pub(crate) mod chats;
pub(crate) mod fanout_clients;
pub(crate) mod listener;
pub(crate) mod paired_chats;
pub(crate) mod people;
pub(crate) mod reads;
pub(crate) mod send;
pub(crate) mod socket;
