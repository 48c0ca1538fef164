//! Attachments: announced, uploaded, checked, sent, read, gone.

mod announcing;
mod azure;
mod buckets;
mod content;
mod downloads;
mod keeping;
mod removal;
mod scanning;
mod sending;
mod uploads;

use std::io::Cursor;

use bytes::Bytes;
use image::{DynamicImage, ImageBuffer, ImageFormat, Rgb};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Chat, Client, Cluster, Request, User};

/// A file and its announcement.
struct File {
    name: &'static str,
    content_type: &'static str,
    bytes: Bytes,
}

impl File {
    fn new(name: &'static str, content_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        Self { name, content_type, bytes: bytes.into() }
    }

    fn text() -> Self {
        Self::new("notes.txt", "text/plain", "Some notes.")
    }

    /// Bytes of no known type.
    fn of_size(size: usize) -> Self {
        let bytes: Vec<u8> = (0..size).map(|n| (n * 31 + n / 256) as u8 | 0x80).collect();
        Self::new("data.bin", "application/octet-stream", bytes)
    }

    /// A photo of these sides, in pixels.
    fn photo(width: u32, height: u32, format: ImageFormat) -> Self {
        let pixels = ImageBuffer::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 40]));
        let mut bytes = Vec::new();
        DynamicImage::ImageRgb8(pixels)
            .write_to(&mut Cursor::new(&mut bytes), format)
            .expect("an image can be written");
        let (name, content_type) = match format {
            ImageFormat::Jpeg => ("photo.jpg", "image/jpeg"),
            ImageFormat::Gif => ("photo.gif", "image/gif"),
            ImageFormat::WebP => ("photo.webp", "image/webp"),
            _ => ("photo.png", "image/png"),
        };
        Self::new(name, content_type, bytes)
    }

    fn announcement(&self) -> Value {
        json!({ "name": self.name, "content_type": self.content_type, "size": self.bytes.len() })
    }
}

/// An announced attachment.
#[derive(Clone)]
struct Announced {
    id: String,
    /// Below the replica's address.
    path: String,
    content_type: String,
}

impl Announced {
    fn read(ticket: &Value) -> Self {
        let field = |value: &Value| value.as_str().expect("a text").to_owned();
        let url = reqwest::Url::parse(&field(&ticket["upload"]["url"])).expect("a URL");
        Self {
            id: field(&ticket["attachment_id"]),
            path: url.path().to_owned(),
            content_type: field(&ticket["upload"]["headers"]["Content-Type"]),
        }
    }

    /// Uploads to a replica, without a token.
    fn put(&self, anyone: &Client, bytes: impl Into<Bytes>) -> Request {
        anyone.request(Method::PUT, &self.path).body(&self.content_type, bytes.into())
    }

    /// Uploads a part.
    fn put_part(&self, anyone: &Client, first: usize, part: Bytes, total: usize) -> Request {
        let range = format!("bytes {first}-{}/{total}", first + part.len() - 1);
        self.put(anyone, part).header("Content-Range", range)
    }
}

async fn announce(user: &Client, chat: &Chat, file: &File) -> Announced {
    let ticket = user.post(&chat.path("attachments/"), file.announcement()).await.expect(201);
    Announced::read(&ticket)
}

/// Announces and uploads a file.
async fn upload(cluster: &Cluster, user: &User, chat: &Chat, file: &File) -> Announced {
    let announced = announce(&user.on(0), chat, file).await;
    announced.put(&cluster.anyone(0), file.bytes.clone()).await.expect(204);
    announced
}

/// Uploads some file; returns its id.
pub(crate) async fn uploaded(cluster: &Cluster, user: &User, chat: &Chat) -> String {
    upload(cluster, user, chat, &File::text()).await.id
}

/// Uploads a file, and sends it as a message.
async fn send(cluster: &Cluster, user: &User, chat: &Chat, file: &File) -> (Announced, Value) {
    let announced = upload(cluster, user, chat, file).await;
    let body = json!({ "text": "", "attachments": [announced.id] });
    let message = user.on(0).post(&chat.path("messages/"), body).await.expect(201);
    (announced, message)
}

fn path_of(chat: &Chat, announced: &Announced) -> String {
    chat.path(&format!("attachments/{}/", announced.id))
}

async fn read(user: &Client, chat: &Chat, announced: &Announced) -> Answer {
    user.get(&path_of(chat, announced)).await
}

/// Two people in a chat.
async fn pair(cluster: &Cluster) -> (User, User, Chat) {
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    (alice, bob, chat)
}

/// The names of all files of the store, sorted.
fn stored(cluster: &Cluster) -> Vec<String> {
    let mut names = Vec::new();
    for chat in std::fs::read_dir(cluster.files()).expect("the folder") {
        let chat = chat.expect("an entry").path();
        for file in std::fs::read_dir(&chat).into_iter().flatten() {
            names.push(file.expect("an entry").file_name().into_string().expect("UTF-8"));
        }
    }
    names.sort();
    names
}
