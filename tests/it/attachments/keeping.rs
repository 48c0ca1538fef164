//! What is kept for a report, given in an export, and found by `beseda verify --attachments`.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use beseda::attachments;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Announced, File, pair, read, send, stored, upload};
use crate::harness::{Chat, Client, Cluster, eventually_within};

/// A sweeper looks every few seconds.
const SWEPT: Duration = Duration::from_secs(30);

fn id(object: &Value, name: &str) -> String {
    object[name].as_str().expect("an id").to_owned()
}

async fn report(user: &Client, chat: &Chat, message: &Value) -> Value {
    let path = chat.path(&format!("messages/{}/report/", id(message, "message_id")));
    user.post(&path, json!({})).await.expect(201)
}

async fn delete(user: &Client, chat: &Chat, message: &Value) {
    let path = chat.path(&format!("messages/{}/", id(message, "message_id")));
    user.delete(&path).await.expect(204);
}

async fn until_stored(cluster: &Cluster, expected: &[&Announced]) {
    let mut expected: Vec<&str> = expected.iter().map(|one| one.id.as_str()).collect();
    expected.sort_unstable();
    eventually_within(SWEPT, async || {
        let left = stored(cluster);
        if left == expected { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reports_attachments_are_kept_until_it_is_decided() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let host = cluster.host().on(0);
    let (reported, message) = send(&cluster, &alice, &chat, &File::text()).await;
    let (other, unreported) = send(&cluster, &alice, &chat, &File::text()).await;
    let report = report(&bob.on(0), &chat, &message).await;
    assert_eq!(report["attachments"], message["attachments"]);
    delete(&alice.on(0), &chat, &message).await;
    delete(&alice.on(0), &chat, &unreported).await;
    until_stored(&cluster, &[&reported]).await;
    read(&bob.on(0), &chat, &reported).await.expect_problem(404, "attachment_not_found");
    let report = format!("/reports/{}/", id(&report, "report_id"));
    let path = format!("{report}attachments/{}/", reported.id);
    assert_eq!(host.get(&path).await.text, "Some notes.");
    let link = host.get(&format!("{path}?link=true")).await.expect(200);
    let url = reqwest::Url::parse(&id(&link, "url")).expect("a URL");
    assert_eq!(cluster.anyone(0).request(Method::GET, url.path()).await.text, "Some notes.");
    bob.on(0).get(&path).await.expect_problem(403, "forbidden");
    let of_none = format!("{report}attachments/{}/", other.id);
    host.get(&of_none).await.expect_problem(404, "attachment_not_found");
    bob.on(0).delete(&report).await.expect_problem(403, "forbidden");
    for _ in 0..2 {
        host.delete(&report).await.expect(204);
    }
    host.get(&path).await.expect_problem(404, "attachment_not_found");
    assert_eq!(host.get("/reports/").await.expect(200)["results"], json!([]));
    until_stored(&cluster, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_takes_attachments_from_reports_too() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let (_, message) = send(&cluster, &alice, &chat, &File::text()).await;
    report(&bob.on(0), &chat, &message).await;
    cluster.host().on(0).delete("/users/alice/").await.expect(204);
    until_stored(&cluster, &[]).await;
    let reports = cluster.host().on(0).get("/reports/").await.expect(200);
    assert_eq!(reports["results"][0]["attachments"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_links_to_ones_own_attachments() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let (sent, message) = send(&cluster, &alice, &chat, &File::text()).await;
    let unsent = upload(&cluster, &alice, &chat, &File::text()).await;
    super::announce(&alice.on(0), &chat, &File::text()).await;
    upload(&cluster, &bob, &chat, &File::text()).await;
    let export = cluster.host().on(0).get("/users/alice/export/").await;
    let lines: Vec<Value> =
        export.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let own: Vec<&Value> = lines.iter().filter(|line| line["type"] == "attachment").collect();
    assert_eq!(own.len(), 3, "{}", export.text);
    assert_eq!(lines.last().expect("an end")["attachments"], 3);
    assert_eq!((&own[0]["seq"], &own[0]["attachment"]), (&json!(1), &message["attachments"][0]));
    assert_eq!(own[0]["attachment"]["attachment_id"], *sent.id);
    assert_eq!(own[1]["attachment"]["attachment_id"], *unsent.id);
    assert_eq!((&own[1]["seq"], &own[2]["url"]), (&Value::Null, &Value::Null));
    let url = reqwest::Url::parse(&id(own[0], "url")).expect("a URL");
    assert_eq!(cluster.anyone(0).request(Method::GET, url.path()).await.text, "Some notes.");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_without_a_row_and_rows_without_bytes_are_found() {
    let cluster = Cluster::start(1).await;
    let (alice, _, chat) = pair(&cluster).await;
    let verify = async || {
        attachments::verify(cluster.attachment_config(), cluster.database_config())
            .await
            .expect("the store can be looked at")
    };
    let (kept, _) = send(&cluster, &alice, &chat, &File::text()).await;
    let (lost, _) = send(&cluster, &alice, &chat, &File::text()).await;
    assert!(verify().await.is_well());
    let folder = cluster.files().join(&chat.id);
    let stray = folder.join(uuid::Uuid::now_v7().to_string());
    fs::write(&stray, "nobody's").expect("it can be written");
    fs::remove_file(folder.join(&lost.id)).expect("it is there");
    assert!(verify().await.is_well(), "what is young may be in the making");
    for path in [&stray, &folder.join(&kept.id)] {
        let file = fs::File::options().write(true).open(path).expect("it is there");
        file.set_modified(SystemTime::now() - Duration::from_secs(7_200)).expect("a time");
    }
    cluster.psql("UPDATE attachments SET created_at = created_at - interval '2 hours'").await;
    let verified = verify().await;
    assert!(!verified.is_well());
    let text = verified.to_string();
    assert!(
        text.contains("bytes without a row: 1") && text.contains("rows without bytes: 1"),
        "{text}"
    );
    assert!(text.contains(&lost.id) && !text.contains(&kept.id), "{text}");
}
