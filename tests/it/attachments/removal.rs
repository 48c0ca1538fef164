//! What is deleted is gone, bytes and all.

use image::ImageFormat;

use super::{File, announce, pair, send, stored, upload};
use crate::harness::{Cluster, eventually_within};

use std::time::Duration;

/// A sweeper looks every few seconds.
const SWEPT: Duration = Duration::from_secs(30);

async fn until_empty(cluster: &Cluster) {
    eventually_within(SWEPT, async || {
        let left = stored(cluster);
        let queued: i64 = cluster.psql_value("SELECT count(*) FROM attachment_removals").await;
        if left.is_empty() && queued == 0 {
            Ok(())
        } else {
            Err(format!("{left:?}, {queued} queued"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_message_takes_its_bytes_with_it() {
    let cluster = Cluster::start(2).await;
    let (alice, _, chat) = pair(&cluster).await;
    let file = File::photo(600, 600, ImageFormat::Png);
    let (_, message) = send(&cluster, &alice, &chat, &file).await;
    assert_eq!(stored(&cluster).len(), 2, "the image and its thumbnail");
    let id = message["message_id"].as_str().expect("an id");
    alice.on(0).delete(&chat.path(&format!("messages/{id}/"))).await.expect(204);
    until_empty(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_chat_takes_all_bytes_with_it() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, chat) = pair(&cluster).await;
    send(&cluster, &alice, &chat, &File::text()).await;
    upload(&cluster, &bob, &chat, &File::text()).await;
    let begun = announce(&bob.on(0), &chat, &File::of_size(1_000)).await;
    let part = File::of_size(1_000).bytes.slice(..500);
    begun.put_part(&cluster.anyone(0), 0, part, 1_000).await;
    alice.on(0).delete(&chat.path("")).await.expect(204);
    until_empty(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_person_takes_theirs_and_leaves_others() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, chat) = pair(&cluster).await;
    send(&cluster, &alice, &chat, &File::text()).await;
    upload(&cluster, &alice, &chat, &File::text()).await;
    let (stays, _) = send(&cluster, &bob, &chat, &File::text()).await;
    cluster.host().on(0).delete("/users/alice/").await.expect(204);
    eventually_within(SWEPT, async || {
        let left = stored(&cluster);
        if left == [stays.id.as_str()] { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_never_sent_goes_after_a_day() {
    let cluster = Cluster::start(2).await;
    let (alice, _, chat) = pair(&cluster).await;
    upload(&cluster, &alice, &chat, &File::text()).await;
    let (sent, _) = send(&cluster, &alice, &chat, &File::text()).await;
    cluster.psql("UPDATE attachments SET created_at = created_at - interval '25 hours'").await;
    eventually_within(SWEPT, async || {
        let left = stored(&cluster);
        if left == [sent.id.as_str()] { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}
