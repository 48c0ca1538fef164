//! Attachments in a store that signs no URL for clients: Azure's, through the real program.

use std::time::Duration;

use beseda::config::{AttachmentPlace, Config};
use serde_json::json;

use super::{Announced, File, announce, pair, path_of, read};
use crate::harness::{Azure, Cluster, Program, eventually_within};

/// A sweeper looks every few seconds.
const SWEPT: Duration = Duration::from_secs(60);

/// Bytes of a part that a replica passes on.
const PART: usize = 8 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn azure_keeps_what_passes_through_any_replica_until_it_is_deleted() {
    let Some(azure) = Azure::start().await else { return };
    let off = |config: &mut Config| config.attachments.attachments = AttachmentPlace::Off;
    let mut cluster = Cluster::with(1, off).await;
    let settings = azure.environment();
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let (_one, first) = Program::join(&mut cluster, &settings).await;
    let (_two, second) = Program::join(&mut cluster, &settings).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let send = async |announced: &Announced| {
        let body = json!({ "text": "", "attachments": [announced.id] });
        alice.on(first).post(&chat.path("messages/"), body).await.expect(201)
    };

    let photo = File::photo(1_000, 500, image::ImageFormat::Png);
    let small = announce(&alice.on(first), &chat, &photo).await;
    small.put(&cluster.anyone(first), photo.bytes.clone()).await.expect(204);
    let message = send(&small).await;
    assert_eq!(message["attachments"][0]["thumbnail"], true);
    let given = read(&bob.on(second), &chat, &small).await;
    assert_eq!((given.status, given.header("content-type")), (200, Some("image/png")));
    assert_eq!(given.bytes, photo.bytes);

    let total = PART + 1_000_000;
    let file = File::of_size(total);
    let large = announce(&alice.on(first), &chat, &file).await;
    let part = large.put_part(&cluster.anyone(first), 0, file.bytes.slice(..PART + 7), total).await;
    assert_eq!((part.status, part.header("range")), (308, Some("bytes=0-8388607")));
    let rest = large.put_part(&cluster.anyone(second), PART, file.bytes.slice(PART..), total);
    rest.within(Duration::from_secs(60)).await.expect(204);
    send(&large).await;
    let range =
        bob.on(second).get(&path_of(&chat, &large)).header("Range", "bytes=8388600-8388615");
    let given = range.await;
    assert_eq!(given.status, 206);
    assert_eq!(given.bytes, file.bytes.slice(8_388_600..8_388_616));

    let thumbnail = format!("{}.thumbnail", small.id);
    let mut all = [small.id.clone(), thumbnail, large.id.clone()];
    all.sort();
    assert_eq!(azure.objects().await, all);
    let message_id = message["message_id"].as_str().expect("an id");
    alice.on(first).delete(&chat.path(&format!("messages/{message_id}/"))).await.expect(204);
    eventually_within(SWEPT, async || {
        let left = azure.objects().await;
        if left == [large.id.as_str()] { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}
