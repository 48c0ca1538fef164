//! Sends each message that it receives back to its sender.
//!
//! `BESEDA_URL=http://127.0.0.1:8080/ BESEDA_TOKEN=… cargo run --example echo_bot`

use beseda_client::{
    Client, Credentials, Event,
    protocol::{ReceivedFrame, model::ChatId},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("BESEDA_URL")?.parse()?;
    let credentials = Credentials::fixed(std::env::var("BESEDA_TOKEN")?);
    let (client, mut events) = Client::builder(url, credentials).connect()?;
    while let Some(event) = events.next().await {
        match event {
            // Opens every chat of the list, and new ones as soon as they are reported.
            Event::Chats => {
                let known: Vec<ChatId> = client.look(|machine| {
                    machine.chats().list().iter().map(|chat| chat.chat_id).collect()
                });
                known.into_iter().for_each(|chat_id| client.open(chat_id));
            }
            Event::Frame(frame) => {
                let ReceivedFrame::MessageCreated { message, .. } = *frame else { continue };
                if client.look(|machine| machine.me() != Some(&message.sender_id)) {
                    client.mark_read(message.chat_id, message.seq);
                    client.send(message.chat_id, message.text);
                }
            }
            _ => {}
        }
    }
    Ok(())
}
