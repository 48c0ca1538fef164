//! Who may do what in a group.

use serde_json::{Value, json};

use super::{add, create, create_with};
use crate::harness::{Answer, Chat, Client, Cluster};

/// A call, and the statuses that a stranger, a plain member, an admin and the owner get.
struct Rule {
    what: &'static str,
    call: fn(&Client, &Chat) -> crate::harness::Request,
    answers: [u16; 4],
}

const RULES: &[Rule] = &[
    Rule {
        what: "change the group",
        call: |user, chat| user.patch(&chat.path(""), json!({ "title": "New" })),
        answers: [404, 403, 200, 200],
    },
    Rule {
        what: "add somebody",
        call: |user, chat| user.post(&chat.path("members/"), json!({ "user_ids": ["new"] })),
        answers: [404, 403, 200, 200],
    },
    Rule {
        what: "add an admin",
        call: |user, chat| {
            user.post(&chat.path("members/"), json!({ "user_ids": ["newer"], "role": "admin" }))
        },
        answers: [404, 403, 403, 200],
    },
    Rule {
        what: "make an admin",
        call: |user, chat| user.patch(&chat.path("members/target/"), json!({ "role": "admin" })),
        answers: [404, 403, 403, 200],
    },
    Rule {
        what: "silence a member",
        call: |user, chat| {
            let until = json!({ "silenced_until": "2100-01-01T00:00:00Z" });
            user.patch(&chat.path("members/plain/"), until)
        },
        answers: [404, 403, 200, 200],
    },
    Rule {
        what: "silence an admin",
        call: |user, chat| {
            let until = json!({ "silenced_until": "2100-01-01T00:00:00Z" });
            user.patch(&chat.path("members/other admin/"), until)
        },
        answers: [404, 403, 403, 200],
    },
    Rule {
        what: "remove an admin",
        call: |user, chat| user.delete(&chat.path("members/third admin/")),
        answers: [404, 403, 403, 204],
    },
    Rule {
        what: "ban somebody",
        call: |user, chat| user.put(&chat.path("bans/nobody/"), json!({})),
        answers: [404, 403, 200, 200],
    },
    Rule {
        what: "list bans",
        call: |user, chat| user.get(&chat.path("bans/")),
        answers: [404, 403, 200, 200],
    },
    Rule {
        what: "lift a ban",
        call: |user, chat| user.delete(&chat.path("bans/nobody/")),
        answers: [404, 403, 204, 204],
    },
    Rule {
        what: "invite",
        call: |user, chat| user.post(&chat.path("invites/"), json!({})),
        answers: [404, 403, 201, 201],
    },
    Rule {
        what: "list invites",
        call: |user, chat| user.get(&chat.path("invites/")),
        answers: [404, 403, 200, 200],
    },
    Rule {
        what: "list members",
        call: |user, chat| user.get(&chat.path("members/")),
        answers: [404, 200, 200, 200],
    },
    Rule {
        what: "delete the group",
        call: |user, chat| user.delete(&chat.path("")),
        answers: [404, 403, 403, 204],
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_what_its_row_says() {
    let cluster = Cluster::start(1).await;
    let user = |id: &str| cluster.user(id).on(0);
    let people = ["plain", "admin", "other admin", "third admin", "target"];
    let chat = create(&user("owner"), "Rights", &people).await;
    for admin in ["admin", "other admin", "third admin"] {
        let path = chat.path(&format!("members/{}/", admin.replace(' ', "%20")));
        user("owner").patch(&path, json!({ "role": "admin" })).await.expect(200);
    }
    for Rule { what, call, answers } in RULES {
        for (who, expected) in ["stranger", "plain", "admin", "owner"].into_iter().zip(answers) {
            let answer: Answer = call(&user(who), &chat).await;
            assert_eq!(answer.status, *expected, "{who}: {what}: {}", answer.text);
            match expected {
                403 => drop(answer.expect_problem(403, "forbidden")),
                404 => drop(answer.expect_problem(404, "chat_not_found")),
                _ => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_may_let_its_members_add_and_invite() {
    let cluster = Cluster::start(1).await;
    let user = |id: &str| cluster.user(id).on(0);
    let chat =
        create_with(&user("owner"), "Open", &["plain"], json!({ "invite": "members" })).await;
    assert_eq!(add(&user("plain"), &chat, &["new"]).await["added"], json!(["new"]));
    user("plain").post(&chat.path("invites/"), json!({})).await.expect(201);
    let admin = json!({ "user_ids": ["newer"], "role": "admin" });
    user("plain").post(&chat.path("members/"), admin).await.expect_problem(403, "forbidden");
    user("plain").delete(&chat.path("members/new/")).await.expect_problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_application_may_what_an_owner_may() {
    let cluster = Cluster::start(1).await;
    let (owner, host) = (cluster.user("owner").on(0), cluster.host().on(0));
    let chat = create(&owner, "Hosted", &["plain"]).await;
    add(&host, &chat, &["new"]).await;
    host.patch(&chat.path("members/new/"), json!({ "role": "admin" })).await.expect(200);
    host.patch(&chat.path("members/plain/"), json!({ "role": "owner" })).await.expect(200);
    assert_eq!(owner.chat(&chat).await["role"], "admin");
    host.put(&chat.path("bans/new/"), json!({})).await.expect(200);
    let bans = host.get(&chat.path("bans/")).await.expect(200);
    assert_eq!(bans["results"][0]["user"]["user_id"], "new");
    host.delete(&chat.path("")).await.expect(204);
    owner.get(&chat.path("")).await.expect_problem(404, "chat_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_and_admins_delete_any_message_and_edit_none() {
    let cluster = Cluster::start(1).await;
    let user = |id: &str| cluster.user(id).on(0);
    let chat = create(&user("owner"), "Moderated", &["plain", "other"]).await;
    let said: Value = user("plain").send(&chat, "something").await;
    let path = chat.path(&format!("messages/{}/", said["message_id"].as_str().expect("an id")));
    user("other").delete(&path).await.expect_problem(403, "not_author");
    user("owner").patch(&path, json!({ "text": "else" })).await.expect_problem(403, "not_author");
    user("owner").delete(&path).await.expect(204);
    assert_eq!(user("other").unread_in(&chat).await, 0);
}
