//! Uploads: whole or in parts, by any replica, and what goes wrong on the way.

use std::time::{Duration, SystemTime};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use beseda::{
    auth::{derive_key, mac},
    config::{AttachmentPlace, Switch},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::Method;

use super::{Announced, File, announce, pair, read, stored};
use crate::harness::{Answer, Client, Cluster, eventually};

/// Where an unfinished upload is to be continued.
#[track_caller]
fn received(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 308, "{answer:?}");
    answer.header("location").is_none().then_some(()).expect("nothing to follow");
    match answer.header("range") {
        None => 0,
        Some(range) => {
            let last = range.strip_prefix("bytes=0-").expect("a range from the first byte on");
            last.parse::<u64>().expect("a number") + 1
        }
    }
}

async fn progress(anyone: &Client, announced: &Announced) -> Answer {
    // A connection may be about to close after an answer that left a part of a body unread.
    eventually(async || {
        let answer = anyone.request(Method::HEAD, &announced.path).attempt().await;
        answer.map_err(|error| format!("{error:?}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_taken_by_any_replica_and_a_repeat_does_no_harm() {
    let cluster = Cluster::start(2).await;
    let (alice, _, chat) = pair(&cluster).await;
    let file = File::of_size(1_000_000);
    let all = &file.bytes;
    let announced = announce(&alice.on(0), &chat, &file).await;
    let (one, two) = (cluster.anyone(0), cluster.anyone(1));
    assert_eq!(received(&progress(&two, &announced).await), 0);
    let part = announced.put_part(&one, 0, all.slice(..400_000), all.len());
    assert_eq!(received(&part.await), 400_000);
    assert_eq!(received(&progress(&two, &announced).await), 400_000);
    // The same again, one that overlaps, and one that would leave a gap.
    let again = announced.put_part(&two, 0, all.slice(..400_000), all.len());
    assert_eq!(received(&again.await), 400_000);
    let over = announced.put_part(&two, 300_000, all.slice(300_000..500_000), all.len());
    assert_eq!(received(&over.await), 500_000);
    let gap = announced.put_part(&one, 600_000, all.slice(600_000..), all.len());
    assert_eq!(received(&gap.await), 500_000);
    read(&alice.on(0), &chat, &announced).await.expect_problem(404, "attachment_not_found");
    let rest = announced.put_part(&one, 500_000, all.slice(500_000..), all.len());
    rest.await.expect(204);
    progress(&two, &announced).await.expect(204);
    // Its answer was lost, so it is repeated.
    let rest = announced.put_part(&two, 500_000, all.slice(500_000..), all.len());
    rest.await.expect(204);
    assert_eq!(read(&alice.on(1), &chat, &announced).await.bytes, *all);
    assert_eq!(stored(&cluster), [announced.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_received_before_a_connection_broke_need_not_be_sent_again() {
    let cluster = Cluster::start(1).await;
    let (alice, _, chat) = pair(&cluster).await;
    let file = File::of_size(2_000_000);
    let announced = announce(&alice.on(0), &chat, &file).await;
    let anyone = cluster.anyone(0);
    let half = file.bytes.slice(..1_000_000);
    let breaks = stream::iter([Ok(half)])
        .chain(stream::once(async { Err(std::io::Error::other("out of reach")) }));
    let put = anyone
        .request(Method::PUT, &announced.path)
        .header("Content-Length", "2000000")
        .body("application/octet-stream", reqwest::Body::wrap_stream(breaks));
    put.attempt().await.expect_err("a broken request");
    let there = eventually(async || match progress(&anyone, &announced).await {
        answer if answer.header("range").is_some() => Ok(received(&answer)),
        answer => Err(format!("{answer:?}")),
    })
    .await;
    assert!(there <= 1_000_000, "{there}");
    let first = usize::try_from(there).expect("a size");
    // The server may still be about to note that the first connection broke.
    eventually(async || {
        let rest = announced.put_part(&anyone, first, file.bytes.slice(first..), file.bytes.len());
        match rest.await {
            answer if answer.status == 204 => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    })
    .await;
    assert_eq!(read(&alice.on(0), &chat, &announced).await.bytes, file.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_uploads_of_the_same_at_once_leave_it_whole() {
    let cluster = Cluster::start(2).await;
    let (alice, _, chat) = pair(&cluster).await;
    let file = File::of_size(3_000_000);
    let announced = announce(&alice.on(0), &chat, &file).await;
    let clients = [cluster.anyone(0), cluster.anyone(1)];
    let asked = (0..6).map(|n| announced.put(&clients[n % 2], file.bytes.clone()).into_future());
    let answers = futures_util::future::join_all(asked).await;
    assert!(answers.iter().any(|answer| answer.status == 204), "{answers:?}");
    for answer in answers.into_iter().filter(|answer| answer.status != 204) {
        match answer.status {
            429 => drop(answer.expect_problem(429, "rate_limited")),
            _ => drop(answer.expect_problem(503, "unavailable")),
        }
    }
    assert_eq!(read(&alice.on(0), &chat, &announced).await.bytes, file.bytes);
    assert_eq!(stored(&cluster), [announced.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_size_than_announced_is_refused_while_it_comes() {
    let cluster = Cluster::start(1).await;
    let (alice, _, chat) = pair(&cluster).await;
    let file = File::of_size(1_000);
    let announced = announce(&alice.on(0), &chat, &file).await;
    let anyone = cluster.anyone(0);
    let more = Bytes::from(vec![b'x'; 1_001]);
    announced.put(&anyone, more.clone()).await.expect_problem(413, "payload_too_large");
    // Without a Content-Length it is seen when it is too much.
    let pieces: Vec<_> = more.chunks(100).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect();
    let put = anyone
        .request(Method::PUT, &announced.path)
        .body("application/octet-stream", reqwest::Body::wrap_stream(stream::iter(pieces)));
    put.await.expect_problem(413, "payload_too_large");
    assert_eq!(received(&progress(&anyone, &announced).await), 0);
    announced.put(&anyone, more.slice(..999)).await.expect_faults(&["attachments"]);
    let part = announced.put_part(&anyone, 0, more.slice(..10), 1_001);
    part.await.expect_faults(&["attachments"]);
    let odd = announced.put(&anyone, more.slice(..10)).header("Content-Range", "bytes 5-1/1000");
    odd.await.expect_problem(400, "invalid_request");
    announced.put(&anyone, file.bytes).await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_leaves_nothing_behind() {
    let disk = tempfile::tempdir().expect("a folder");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(disk.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: a small disk cannot be mounted (it takes root)");
        return;
    }
    let _mounted = Mounted(disk.path().to_owned());
    let cluster = Cluster::with(1, |config| {
        config.attachments.attachments = AttachmentPlace::Folder(disk.path().to_owned());
    })
    .await;
    let (alice, _, chat) = pair(&cluster).await;
    let anyone = cluster.anyone(0);
    let large = File::of_size(3_000_000);
    let announced = announce(&alice.on(0), &chat, &large).await;
    let first = large.bytes.slice(..500_000);
    let part = announced.put_part(&anyone, 0, first, large.bytes.len());
    assert_eq!(received(&part.await), 500_000);
    let rest = large.bytes.slice(500_000..);
    let put = announced.put_part(&anyone, 500_000, rest, large.bytes.len());
    put.await.expect_problem(503, "unavailable");
    assert_eq!(received(&progress(&anyone, &announced).await), 500_000);
    // There is room for others.
    let small = File::of_size(1_000_000);
    let announced = announce(&alice.on(0), &chat, &small).await;
    announced.put(&anyone, small.bytes.clone()).await.expect(204);
    assert_eq!(read(&alice.on(0), &chat, &announced).await.bytes, small.bytes);
}

/// A file system that goes with this.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a replica may still have a file open.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Longer than a body may stand still.
const CUT_OFF: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stands_still_is_ended_and_goes_on_from_where_it_was() {
    let cluster = Cluster::start(1).await;
    let (alice, _, chat) = pair(&cluster).await;
    let announced = announce(&alice.on(0), &chat, &File::text()).await;
    let bytes = File::text().bytes;
    let begun = stream::iter([Ok::<_, std::io::Error>(bytes.slice(..4))]).chain(stream::pending());
    let put = cluster
        .anyone(0)
        .request(Method::PUT, &announced.path)
        .body("text/plain", reqwest::Body::wrap_stream(begun));
    let answer = put.within(CUT_OFF).await;
    assert_eq!((answer.status, answer.header("range")), (308, Some("bytes=0-3")), "{answer:?}");
    let rest = announced.put_part(&cluster.anyone(0), 4, bytes.slice(4..), bytes.len());
    rest.await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_uploads_four_files_at_once() {
    let cluster = Cluster::with(1, |config| config.limits.rate_limits = Switch::On).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let anyone = cluster.anyone(0);
    let mut slow = Vec::new();
    for _ in 0..4 {
        let announced = announce(&alice.on(0), &chat, &File::text()).await;
        let anyone = anyone.clone();
        slow.push(tokio::spawn(async move {
            // Again where the fifth one below was faster and had the permit.
            loop {
                let body = reqwest::Body::wrap_stream(
                    stream::iter([Ok::<_, std::io::Error>("Some")]).chain(stream::pending()),
                );
                let put = anyone.request(Method::PUT, &announced.path).body("text/plain", body);
                let _ = put.attempt().await;
            }
        }));
    }
    let fifth = announce(&alice.on(0), &chat, &File::text()).await;
    eventually(async || match fifth.put(&anyone, &b"x"[..]).await {
        answer if answer.status == 429 => Ok(answer.expect_problem(429, "rate_limited")),
        answer => Err(format!("{answer:?}")),
    })
    .await;
    let other = announce(&bob.on(0), &chat, &File::text()).await;
    other.put(&anyone, File::text().bytes).await.expect(204);
    slow.iter().for_each(|upload| upload.abort());
    eventually(async || match fifth.put(&anyone, File::text().bytes).await {
        answer if answer.status == 204 => Ok(()),
        answer => Err(format!("{answer:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_good_for_its_attachment_only() {
    let cluster = Cluster::start(1).await;
    let (alice, _, chat) = pair(&cluster).await;
    let file = File::text();
    let announced = announce(&alice.on(0), &chat, &file).await;
    let anyone = cluster.anyone(0);
    let link = announced.path.trim_end_matches('/').rsplit('/').next().expect("a link");
    for wrong in [link.to_ascii_lowercase(), link[1..].to_owned(), "x".to_owned()] {
        let path = format!("/api/v1/uploads/{wrong}/");
        let put = anyone.request(Method::PUT, &path).body("text/plain", "Some notes.");
        put.await.expect_problem(403, "forbidden");
    }
    let read = anyone.request(Method::GET, &format!("/api/v1/downloads/{link}/"));
    read.await.expect_problem(403, "forbidden");
    cluster.psql("DELETE FROM attachments").await;
    announced.put(&anyone, file.bytes).await.expect_problem(404, "attachment_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_good_until_it_expires() {
    let cluster = Cluster::start(1).await;
    let (alice, _, chat) = pair(&cluster).await;
    let file = File::text();
    let announced = announce(&alice.on(0), &chat, &file).await;
    let link = announced.path.trim_end_matches('/').rsplit('/').next().expect("a link");
    let link = BASE64_URL_SAFE_NO_PAD.decode(link).expect("a link");
    let secret: String = cluster.psql_value("SELECT encode(secret, 'base64') FROM instance").await;
    let secret = BASE64_STANDARD.decode(secret).expect("a secret");
    // As the service signs it: two ids and a size, then the end in seconds since 1970.
    let ends = |from_now: i64| {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs().cast_signed();
        let mut bytes = [&link[..40], &(now + from_now).to_be_bytes()].concat();
        let signature = mac(&derive_key(&secret, "attachment uploads"), &[&bytes]);
        bytes.extend(signature);
        format!("/api/v1/uploads/{}/", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    };
    let put = |path: String| Announced { path, ..announced.clone() };
    let anyone = cluster.anyone(0);
    for past in [-3_600, -1, 0] {
        let late = put(ends(past)).put(&anyone, file.bytes.clone());
        late.await.expect_problem(403, "forbidden");
    }
    put(ends(60)).put(&anyone, file.bytes).await.expect(204);
}
