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

/// A WAVE file: one channel of 8,000 samples a second, of a byte each.
fn wave(samples: u32) -> Bytes {
    let mut file = [&b"RIFF"[..], &(36 + samples).to_le_bytes(), b"WAVEfmt "].concat();
    file.extend(16_u32.to_le_bytes());
    file.extend([1_u16, 1].map(u16::to_le_bytes).concat());
    file.extend([8_000_u32, 8_000].map(u32::to_le_bytes).concat());
    file.extend([1_u16, 8].map(u16::to_le_bytes).concat());
    file.extend(b"data");
    file.extend(samples.to_le_bytes());
    file.resize(file.len() + samples as usize, 0x80);
    file.into()
}

/// A voice message: Opus in Ogg (RFC 7845), which counts samples of 1/48,000 s.
fn opus(samples: u64) -> Bytes {
    let head = b"OpusHead\x01\x01\x00\x00\x80\xbb\x00\x00\x00\x00\x00";
    let tags = b"OpusTags\x04\x00\x00\x00test\x00\x00\x00\x00";
    let page = |flags: u8, granule: u64, number: u32, content: &[u8]| {
        let length = u8::try_from(content.len()).expect("a short text");
        let mut page = [&b"OggS\x00"[..], &[flags], &granule.to_le_bytes(), &[7, 0, 0, 0]].concat();
        page.extend(number.to_le_bytes());
        page.extend([0, 0, 0, 0, 1, length]);
        page.extend(content);
        let sum = page.iter().fold(0_u32, |mut crc, byte| {
            crc ^= u32::from(*byte) << 24;
            for _ in 0..8 {
                crc = (crc << 1) ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 };
            }
            crc
        });
        page[22..26].copy_from_slice(&sum.to_le_bytes());
        page
    };
    let audio = page(4, samples, 2, &[0xfc; 200]);
    [page(2, 0, 0, head), page(0, 0, 1, tags), audio].concat().into()
}

/// A film of MPEG-4 with sound and nothing in it: what says how long it lasts comes last.
fn film(seconds: u32) -> Bytes {
    let part = |kind: &[u8; 4], content: &[u8]| {
        let length = u32::try_from(8 + content.len()).expect("a short box");
        [&length.to_be_bytes()[..], kind, content].concat()
    };
    let zeros = |count: usize| vec![0_u8; count];
    let times = [1_000, seconds * 1_000].map(u32::to_be_bytes).concat();
    let head = part(b"mvhd", &[zeros(12), times.clone(), zeros(80)].concat());
    let track = part(b"mdhd", &[zeros(12), times, zeros(4)].concat());
    let sound = part(b"hdlr", &[&zeros(8)[..], b"soun", &zeros(13)].concat());
    let samples = part(b"stbl", &part(b"stsd", &zeros(8)));
    let media = part(b"mdia", &[track, sound, part(b"minf", &samples)].concat());
    let whole = part(b"moov", &[head, part(b"trak", &media)].concat());
    [part(b"ftyp", b"isom\0\0\x02\0isommp42"), part(b"mdat", &zeros(3_000_000)), whole]
        .concat()
        .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_tells_how_long_it_is() {
    let cluster = Cluster::start(1).await;
    let (alice, _, chat) = pair(&cluster).await;
    let mut broken = wave(8_000).to_vec();
    broken.truncate(30);
    for (content_type, bytes, duration) in [
        ("audio/wav", wave(20_000), Some(2_500)),
        ("audio/ogg", opus(144_000), Some(3_000)),
        ("video/mp4", film(90), Some(90_000)),
        ("audio/wav", broken.into(), None),
        ("audio/ogg", opus(u64::MAX / 2), None),
        ("audio/mpeg", Bytes::from_static(b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f"), None),
        ("text/plain", Bytes::from_static(b"RIFF"), None),
    ] {
        let file = File::new("recording", content_type, bytes);
        let (_, message) = send(&cluster, &alice, &chat, &file).await;
        let given = &message["attachments"][0];
        assert_eq!(given["duration_ms"].as_i64(), duration, "{given}");
    }
}
