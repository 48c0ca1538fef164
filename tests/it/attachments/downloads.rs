//! Downloads: by members only, in ranges, and never as a page.

use image::ImageFormat;
use reqwest::Method;
use serde_json::json;

use super::{File, pair, path_of, read, send, upload};
use crate::harness::{Chat, Cluster};

#[tokio::test(flavor = "multi_thread")]
async fn members_read_what_was_sent_and_nobody_else() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let eve = cluster.user("eve");
    let other = eve.on(0).open_chat(&alice).await;
    let unsent = upload(&cluster, &alice, &chat, &File::text()).await;
    assert_eq!(read(&alice.on(0), &chat, &unsent).await.text, "Some notes.");
    read(&bob.on(0), &chat, &unsent).await.expect_problem(404, "attachment_not_found");
    let (sent, _) = send(&cluster, &alice, &chat, &File::text()).await;
    assert_eq!(read(&bob.on(0), &chat, &sent).await.text, "Some notes.");
    read(&eve.on(0), &chat, &sent).await.expect_problem(404, "chat_not_found");
    read(&eve.on(0), &other, &sent).await.expect_problem(404, "attachment_not_found");
    read(&cluster.host().on(0), &chat, &sent).await.expect_problem(404, "chat_not_found");
    read(&cluster.anyone(0), &chat, &sent).await.expect_problem(401, "unauthenticated");
    bob.on(0).get(&chat.path("attachments/x/")).await.expect_problem(404, "attachment_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_came_later_reads_from_their_first_message_on() {
    let cluster = Cluster::start(1).await;
    let alice = cluster.user("alice");
    let bob = cluster.user("bob");
    bob.on(0).get("/chats/").await.expect(200);
    let body = json!({ "kind": "group", "title": "Team", "settings": { "history": "joined" } });
    let group = Chat::from_json(&alice.on(0).post("/chats/", body).await.expect(201));
    let (before, _) = send(&cluster, &alice, &group, &File::text()).await;
    let add = json!({ "user_ids": ["bob"] });
    alice.on(0).post(&group.path("members/"), add).await.expect(200);
    let (after, _) = send(&cluster, &alice, &group, &File::text()).await;
    read(&bob.on(0), &group, &before).await.expect_problem(404, "attachment_not_found");
    assert_eq!(read(&bob.on(0), &group, &after).await.status, 200);
    bob.on(0).delete(&group.path("members/bob/")).await.expect(204);
    read(&bob.on(0), &group, &after).await.expect_problem(404, "chat_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_tags_are_those_of_http() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let file = File::of_size(700_000);
    let (sent, _) = send(&cluster, &alice, &chat, &file).await;
    let path = path_of(&chat, &sent);
    let whole = bob.on(0).get(&path).await;
    assert_eq!((whole.status, &whole.bytes), (200, &file.bytes));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let etag = whole.header("etag").expect("a tag").to_owned();
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=300000-599999", 300_000, 600_000),
        ("bytes=699999-", 699_999, 700_000),
        ("bytes=-10", 699_990, 700_000),
        ("bytes=5-9999999", 5, 700_000),
    ] {
        let part = bob.on(0).get(&path).header("Range", range).await;
        assert_eq!(part.status, 206, "{range}");
        assert_eq!(part.bytes, file.bytes.slice(from..to), "{range}");
        let told = format!("bytes {from}-{}/700000", to - 1);
        assert_eq!(part.header("content-range"), Some(told.as_str()));
    }
    let beyond = bob.on(0).get(&path).header("Range", "bytes=700000-").await;
    assert_eq!(beyond.header("content-range"), Some("bytes */700000"));
    beyond.expect_problem(416, "range_not_satisfiable");
    let same = bob.on(0).get(&path).header("Range", "bytes=0-0").header("If-Range", &etag).await;
    assert_eq!(same.status, 206);
    let other = bob.on(0).get(&path).header("Range", "bytes=0-0").header("If-Range", "\"x\"").await;
    assert_eq!((other.status, other.bytes.len()), (200, 700_000));
    let known = bob.on(0).get(&path).header("If-None-Match", format!("\"x\", W/{etag}")).await;
    assert_eq!((known.status, known.bytes.len()), (304, 0));
    let head = bob.on(0).request(Method::HEAD, &format!("/api/v1{path}")).await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("700000")));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_becomes_a_page_of_this_origin() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let page = File::new("a\"b;ж.html", "text/html", "<html><script>1</script></html>");
    let drawing = File::new("a.svg", "image/svg+xml", "<svg onload='alert(1)'/>");
    let photo = File::photo(10, 10, ImageFormat::Png);
    for (file, disposition) in [
        (&page, "attachment; filename=\"a_b;_.html\"; filename*=UTF-8''a%22b%3B%D0%B6.html"),
        (&drawing, "attachment; filename=\"a.svg\"; filename*=UTF-8''a.svg"),
        (&photo, "inline; filename=\"photo.png\"; filename*=UTF-8''photo.png"),
    ] {
        let (sent, _) = send(&cluster, &alice, &chat, file).await;
        let answer = read(&bob.on(0), &chat, &sent).await;
        assert_eq!(answer.header("content-type"), Some(file.content_type));
        assert_eq!(answer.header("content-disposition"), Some(disposition));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("content-security-policy"), Some("sandbox; default-src 'none'"));
        assert_eq!(answer.header("cache-control"), Some("private, max-age=86400"));
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_needs_no_token_and_ends() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let (sent, _) = send(&cluster, &alice, &chat, &File::text()).await;
    let path = format!("{}?link=true", path_of(&chat, &sent));
    let link = bob.on(0).get(&path).await.expect(200);
    let url = reqwest::Url::parse(link["url"].as_str().expect("a URL")).expect("a URL");
    let answer = cluster.anyone(0).request(Method::GET, url.path()).await;
    assert_eq!(answer.text, "Some notes.");
    assert_eq!(answer.header("cross-origin-resource-policy"), Some("cross-origin"));
    // It does not outlive what it leads to.
    let id = cluster.psql_value::<String>("SELECT message_id::text FROM messages").await;
    alice.on(0).delete(&chat.path(&format!("messages/{id}/"))).await.expect(204);
    let gone = cluster.anyone(0).request(Method::GET, url.path()).await;
    gone.expect_problem(404, "attachment_not_found");
}
