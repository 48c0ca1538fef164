//! Content must be what it claims.

use bytes::Bytes;
use image::ImageFormat;

use super::{File, announce, pair, path_of, send, stored};
use crate::harness::Cluster;

const PAGE: &[u8] = b"<!DOCTYPE html><script>alert(document.cookie)</script>";
const SVG: &[u8] = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_something_else_is_refused_and_may_be_uploaded_anew() {
    let cluster = Cluster::start(1).await;
    let (alice, _, chat) = pair(&cluster).await;
    let png = File::photo(20, 20, ImageFormat::Png).bytes;
    let broken = File::photo(900, 900, ImageFormat::Png).bytes;
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(100, 0);
    let program = Bytes::from(program);
    for (name, content_type, bytes) in [
        ("a.png", "image/png", Bytes::from_static(PAGE)),
        ("a.png", "image/png", Bytes::from_static(SVG)),
        ("a.jpg", "image/jpeg", png.clone()),
        ("a.txt", "text/plain", Bytes::from_static(PAGE)),
        ("a.bin", "application/octet-stream", Bytes::from_static(SVG)),
        ("a.bin", "application/octet-stream", program),
        ("a.pdf", "application/pdf", Bytes::from_static(b"MZ\x90\0")),
        ("a.png", "image/png", broken.slice(..broken.len() / 2)),
        ("a.png", "image/png", bomb(&png)),
    ] {
        let file = File::new(name, content_type, bytes);
        let announced = announce(&alice.on(0), &chat, &file).await;
        let anyone = cluster.anyone(0);
        let put = announced.put(&anyone, file.bytes.clone());
        put.await.expect_faults(&["attachments"]);
        let body = serde_json::json!({ "text": "", "attachments": [announced.id] });
        alice.on(0).post(&chat.path("messages/"), body).await.expect_faults(&["attachments"]);
        assert_eq!(stored(&cluster), <[&str; 0]>::default(), "{name}");
    }
    // The same link takes the right bytes.
    let file = File::new("a.png", "image/png", png.clone());
    let announced = announce(&alice.on(0), &chat, &file).await;
    let wrong = Bytes::from(vec![b'x'; png.len()]);
    announced.put(&cluster.anyone(0), wrong).await.expect_faults(&["attachments"]);
    announced.put(&cluster.anyone(0), png).await.expect(204);
}

/// A PNG whose header claims 65,535 pixels a side.
fn bomb(png: &Bytes) -> Bytes {
    let mut bomb = png.to_vec();
    bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    let sum = !bomb[12..29].iter().fold(u32::MAX, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
        crc
    });
    bomb[29..33].copy_from_slice(&sum.to_be_bytes());
    bomb.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_tells_its_size_and_has_a_thumbnail() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, chat) = pair(&cluster).await;
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP] {
        let file = File::photo(1_200, 600, format);
        let (announced, message) = send(&cluster, &alice, &chat, &file).await;
        let given = &message["attachments"][0];
        assert_eq!(given["attachment_id"], *announced.id);
        let size = (given["width"].as_i64(), given["height"].as_i64());
        assert_eq!(size, (Some(1_200), Some(600)), "{given}");
        assert_eq!(given["thumbnail"], true);
        assert_eq!(given["status"], "ready");
        assert!(given["blurhash"].as_str().is_some_and(|hash| hash.len() > 20), "{given}");
        let path = format!("{}?variant=thumbnail", path_of(&chat, &announced));
        let small = bob.on(0).get(&path).await;
        assert_eq!(small.header("content-type"), Some("image/jpeg"));
        assert_eq!(small.header("content-security-policy"), Some("sandbox; default-src 'none'"));
        let image = image::load_from_memory(&small.bytes).expect("an image");
        assert_eq!((image.width(), image.height()), (480, 240));
    }
    let (announced, message) = send(&cluster, &alice, &chat, &File::text()).await;
    assert_eq!(message["attachments"][0]["thumbnail"], false);
    assert_eq!(message["attachments"][0]["width"], serde_json::Value::Null);
    let path = format!("{}?variant=thumbnail", path_of(&chat, &announced));
    bob.on(0).get(&path).await.expect_problem(404, "attachment_not_found");
    let path = format!("{}?variant=large", path_of(&chat, &announced));
    bob.on(0).get(&path).await.expect_faults(&["variant"]);
}
