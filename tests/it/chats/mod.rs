//! Opening, seeing, listing and deleting chats.

mod deletion;
mod list;
mod opening;
mod routes;
