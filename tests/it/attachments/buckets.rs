//! Attachments in an object store: a real server that speaks S3.

use std::time::{Duration, Instant};

use bytes::Bytes;
use image::ImageFormat;
use reqwest::{Client as Http, Method, redirect::Policy};
use serde_json::{Value, json};

use super::{File, announce, pair};
use crate::harness::{Chat, Cluster, DelayProxy, Program, S3, User, eventually, eventually_within};

/// A sweeper looks every few seconds.
const SWEPT: Duration = Duration::from_secs(60);

/// Bytes of a part that a replica passes on.
const PART: usize = 8 * 1024 * 1024;

async fn cluster_on(s3: &S3, replicas: usize) -> Cluster {
    let port = s3.port();
    Cluster::with(replicas, |config| s3.configure(&mut config.attachments, port)).await
}

fn http() -> Http {
    Http::builder().redirect(Policy::none()).no_proxy().build().expect("a client")
}

/// Uploads to the address that an announcement names.
async fn put(ticket: &Value, bytes: Bytes) -> u16 {
    let upload = &ticket["upload"];
    let content_type = upload["headers"]["Content-Type"].as_str().expect("a type");
    let request = http().put(upload["url"].as_str().expect("a URL")).body(bytes);
    let answer = request.header("Content-Type", content_type).send().await.expect("an answer");
    answer.status().as_u16()
}

async fn ticket(user: &User, chat: &Chat, file: &File) -> Value {
    user.on(0).post(&chat.path("attachments/"), file.announcement()).await.expect(201)
}

async fn send(user: &User, chat: &Chat, ticket: &Value) -> crate::harness::Answer {
    let body = json!({ "text": "", "attachments": [ticket["attachment_id"]] });
    user.on(0).post(&chat.path("messages/"), body).await
}

/// Follows a redirect of a replica to the store.
async fn read(user: &User, chat: &Chat, id: &str, query: &str) -> (u16, Option<String>, Bytes) {
    let client = user.on(0);
    let url = format!(
        "http://{}/api/v1{}{query}",
        client.host(),
        chat.path(&format!("attachments/{id}/"))
    );
    let redirect = http().get(url).bearer_auth(&user.token).send().await.expect("an answer");
    assert_eq!(redirect.status(), 307);
    let location = redirect.headers()["location"].to_str().expect("a URL").to_owned();
    let answer = http().get(location).send().await.expect("an answer");
    let named = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
    let (status, disposition) = (answer.status().as_u16(), named("content-disposition"));
    (status, disposition, answer.bytes().await.expect("bytes"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_exchanges_bytes_with_the_store_itself() {
    let Some(s3) = S3::start().await else { return };
    let cluster = cluster_on(&s3, 1).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let file = File::photo(1_000, 500, ImageFormat::Png);
    let ticket = ticket(&alice, &chat, &file).await;
    let url = ticket["upload"]["url"].as_str().expect("a URL");
    assert!(url.starts_with(&format!("http://127.0.0.1:{}/files/chat/", s3.port())), "{url}");
    send(&alice, &chat, &ticket).await.expect_faults(&["attachments"]);
    // Other bytes than announced are not sent, and may be replaced.
    let more = [&file.bytes[..], b"more"].concat();
    assert_eq!(put(&ticket, more.into()).await, 200);
    send(&alice, &chat, &ticket).await.expect_faults(&["attachments"]);
    assert_eq!(s3.objects(), <[&str; 0]>::default());
    assert_eq!(put(&ticket, file.bytes.clone()).await, 200);
    let message = send(&alice, &chat, &ticket).await.expect(201);
    let given = &message["attachments"][0];
    assert_eq!((given["width"].as_i64(), given["thumbnail"].as_bool()), (Some(1_000), Some(true)));
    let id = ticket["attachment_id"].as_str().expect("an id");
    let (status, disposition, bytes) = read(&bob, &chat, id, "").await;
    assert_eq!((status, bytes), (200, file.bytes.clone()));
    let expected = "inline; filename=\"photo.png\"; filename*=UTF-8''photo.png";
    assert_eq!(disposition.as_deref(), Some(expected));
    let (status, _, thumbnail) = read(&bob, &chat, id, "?variant=thumbnail").await;
    assert_eq!(status, 200);
    assert_eq!(image::load_from_memory(&thumbnail).expect("an image").width(), 480);
    // What was sent is out of its sender's reach.
    let mut other = file.bytes.to_vec();
    other.reverse();
    assert_eq!(put(&ticket, other.into()).await, 200);
    assert_eq!(read(&bob, &chat, id, "").await.2, file.bytes);
    let message_id = message["message_id"].as_str().expect("an id");
    alice.on(0).delete(&chat.path(&format!("messages/{message_id}/"))).await.expect(204);
    eventually_within(SWEPT, async || {
        let left = s3.objects();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_passes_through_any_replica_in_parts() {
    let Some(s3) = S3::start().await else { return };
    let cluster = cluster_on(&s3, 2).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let total = 8 * PART + 1_000_000;
    let file = File::of_size(total);
    let announced = announce(&alice.on(0), &chat, &file).await;
    assert!(announced.path.starts_with("/api/v1/uploads/"), "{}", announced.path);
    let (one, two) = (cluster.anyone(0), cluster.anyone(1));
    // What is less than a part is not kept.
    let first = announced.put_part(&one, 0, file.bytes.slice(..3 * PART + 7), total).await;
    assert_eq!((first.status, first.header("range")), (308, Some("bytes=0-25165823")));
    let progress = two.request(Method::HEAD, &announced.path).await;
    assert_eq!(progress.header("range"), Some("bytes=0-25165823"));
    let rest = announced.put_part(&two, 3 * PART, file.bytes.slice(3 * PART..), total);
    rest.within(Duration::from_secs(60)).await.expect(204);
    let body = json!({ "text": "", "attachments": [announced.id] });
    alice.on(0).post(&chat.path("messages/"), body).await.expect(201);
    let (status, _, bytes) = read(&bob, &chat, &announced.id, "").await;
    assert_eq!(status, 200);
    assert!(bytes == file.bytes, "other bytes");
    assert_eq!(s3.objects(), [announced.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_callers_are_told_and_nothing_is_lost() {
    let Some(mut s3) = S3::start().await else { return };
    let cluster = cluster_on(&s3, 1).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let first = ticket(&alice, &chat, &File::text()).await;
    assert_eq!(put(&first, File::text().bytes).await, 200);
    let message = send(&alice, &chat, &first).await.expect(201);
    let second = ticket(&alice, &chat, &File::text()).await;
    assert_eq!(put(&second, File::text().bytes).await, 200);
    let large = File::of_size(8 * PART + 1);
    let large = (announce(&alice.on(0), &chat, &large).await, large);
    s3.kill();
    let patient = Duration::from_secs(60);
    let body = json!({ "text": "", "attachments": [second["attachment_id"]] });
    let refused = alice.on(0).post(&chat.path("messages/"), body).within(patient).await;
    assert!(matches!(refused.status, 503 | 504), "{refused:?}");
    let put =
        large.0.put_part(&cluster.anyone(0), 0, large.1.bytes.slice(..100), large.1.bytes.len());
    put.within(patient).await.expect_problem(503, "unavailable");
    // Texts do not need it.
    bob.on(0).send(&chat, "still here").await;
    let message_id = message["message_id"].as_str().expect("an id");
    alice.on(0).delete(&chat.path(&format!("messages/{message_id}/"))).await.expect(204);
    s3.restart().await;
    eventually_within(SWEPT, async || {
        let answer = send(&alice, &chat, &second).await;
        if answer.status == 201 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    cluster.psql("UPDATE attachment_removals SET due_at = now()").await;
    let id = second["attachment_id"].as_str().expect("an id");
    eventually_within(SWEPT, async || {
        let left = s3.objects();
        if left == [id] { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    assert_eq!(read(&bob, &chat, id, "").await.2, File::text().bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_delays_only_who_waits_for_it() {
    let Some(s3) = S3::start().await else { return };
    let slow = Duration::from_secs(1);
    let delay_proxy = DelayProxy::start(s3.port(), slow).await;
    let port = delay_proxy.port();
    let cluster = Cluster::with(1, |config| s3.configure(&mut config.attachments, port)).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let file = File::photo(1_200, 600, ImageFormat::Jpeg);
    let ticket = ticket(&alice, &chat, &file).await;
    assert_eq!(put(&ticket, file.bytes.clone()).await, 200);
    let started = Instant::now();
    // A caller whose time is up asks again; the check goes on meanwhile.
    let sending = eventually_within(SWEPT, async || {
        let answer = send(&alice, &chat, &ticket).await;
        if answer.status == 201 { Ok(answer) } else { Err(answer.text) }
    });
    let talking = async {
        let mut slowest = Duration::ZERO;
        for number in 0..20 {
            let began = Instant::now();
            bob.on(0).send(&chat, &format!("word {number}")).await;
            slowest = slowest.max(began.elapsed());
        }
        (slowest, started.elapsed())
    };
    let (sent, (slowest, talked)) = tokio::join!(sending, talking);
    let took = started.elapsed();
    assert!(took > slow && took > talked, "the store was not slow: {took:?}, {talked:?}");
    assert!(slowest < slow, "a message waited {slowest:?} for a file of another one");
    let message = sent.expect(201);
    assert_eq!(message["attachments"][0]["thumbnail"], true);
    let id = ticket["attachment_id"].as_str().expect("an id");
    assert_eq!(read(&bob, &chat, id, "").await.2, file.bytes);
}

/// A cluster whose store is slow, and an upload that is there and not yet checked.
async fn unchecked(s3: &S3, port: u16) -> (Cluster, User, User, Chat, Value, File) {
    let cluster = Cluster::with(1, |config| s3.configure(&mut config.attachments, port)).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let file = File::text();
    let ticket = ticket(&alice, &chat, &file).await;
    assert_eq!(put(&ticket, file.bytes.clone()).await, 200);
    (cluster, alice, bob, chat, ticket, file)
}

/// Waits until a replica checks the upload.
async fn until_checked(cluster: &Cluster) {
    eventually(async || {
        let checking = "SELECT count(*) FROM attachments WHERE busy_until > now()";
        match cluster.psql_value::<i64>(checking).await {
            1 => Ok(()),
            count => Err(format!("{count} are checked")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_ends_with_its_replica_is_made_by_another() {
    let Some(s3) = S3::start().await else { return };
    let delay_proxy = DelayProxy::start(s3.port(), Duration::from_secs(1)).await;
    let (mut cluster, alice, _, chat, ticket, _) = unchecked(&s3, delay_proxy.port()).await;
    let settings = S3::environment(delay_proxy.port());
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let (program, killed) = Program::join(&mut cluster, &settings).await;
    let body = json!({ "text": "", "attachments": [ticket["attachment_id"]] });
    let (client, path) = (alice.on(killed), chat.path("messages/"));
    let lost = tokio::spawn(async move { client.post(&path, body).attempt().await.is_ok() });
    until_checked(&cluster).await;
    drop(program);
    assert!(!lost.await.expect("no panic"), "the replica has answered before it was killed");
    let body = json!({ "text": "", "attachments": [ticket["attachment_id"]] });
    eventually_within(SWEPT, async || {
        let answer = alice.on(0).post(&chat.path("messages/"), body.clone()).await;
        if answer.status == 201 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    let id = ticket["attachment_id"].as_str().expect("an id");
    assert_eq!(s3.objects(), [id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_another_replica_has_ended_deletes_nothing() {
    let Some(s3) = S3::start().await else { return };
    let delay_proxy = DelayProxy::start(s3.port(), Duration::from_secs(1)).await;
    let (cluster, alice, bob, chat, ticket, file) = unchecked(&s3, delay_proxy.port()).await;
    let sending = send(&alice, &chat, &ticket);
    let overtaking = async {
        until_checked(&cluster).await;
        // As another replica does, once the lease of one that stands still is over.
        let done = "UPDATE attachments SET state = 'ready', checked_at = now(), busy_until = NULL";
        cluster.psql(done).await;
    };
    let (answer, ()) = tokio::join!(sending, overtaking);
    answer.expect(201);
    let id = ticket["attachment_id"].as_str().expect("an id");
    assert_eq!(read(&bob, &chat, id, "").await.2, file.bytes);
}
