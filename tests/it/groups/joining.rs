//! Users join by themselves: where a group is open, or with an invitation.

use futures_util::future::join_all;
use serde_json::json;

use super::{create, create_with, member_ids};
use crate::harness::{Cluster, assert_members, assert_time};

#[tokio::test(flavor = "multi_thread")]
async fn anybody_joins_an_open_group_and_nobody_a_closed_one() {
    let cluster = Cluster::start(2).await;
    let (owner, bob) = (cluster.user("owner").on(0), cluster.user("bob").on(1));
    let open = create_with(&owner, "Open", &[], json!({ "join": "open" })).await;
    let closed = create(&owner, "Closed", &[]).await;
    let joined = bob.post(&open.path("join/"), json!({})).await.expect(200);
    assert_eq!((&joined["role"], &joined["member_count"]), (&json!("member"), &json!(2)));
    let before = joined["last_ev"].clone();
    let again = bob.post(&open.path("join/"), json!({})).await.expect(200);
    assert_eq!(again["last_ev"], before);
    bob.post(&closed.path("join/"), json!({})).await.expect_problem(404, "chat_not_found");
    // The owner is a member already.
    owner.post(&closed.path("join/"), json!({})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_good_for_as_many_as_it_says() {
    const RACERS: usize = 12;
    const USES: usize = 5;
    let cluster = Cluster::start(2).await;
    let owner = cluster.user("owner").on(0);
    let chat = create(&owner, "Invited", &[]).await;
    let made = owner.post(&chat.path("invites/"), json!({ "max_uses": USES })).await.expect(201);
    assert_members(&made, &["invite_id", "code", "expires_at", "uses", "max_uses"]);
    assert_time(&made["expires_at"]);
    let accept = format!("/invites/{}/", made["code"].as_str().expect("a code"));
    let racers: Vec<_> = (0..RACERS).map(|n| cluster.user(&format!("racer {n}"))).collect();
    let answers = join_all(
        racers
            .iter()
            .enumerate()
            .map(|(n, user)| user.on(n % 2).post(&accept, json!({})).into_future()),
    )
    .await;
    let joined = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(joined, USES, "{answers:?}");
    for answer in answers.into_iter().filter(|answer| answer.status != 200) {
        answer.expect_problem(404, "invite_not_found");
    }
    assert_eq!(member_ids(&owner, &chat).await.len(), USES + 1);
    // A member's repetition uses none up.
    let listed = owner.get(&chat.path("invites/")).await.expect(200);
    assert_eq!(listed["results"], json!([]), "spent ones are not listed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_expired_or_unknown_invitation_is_none() {
    let cluster = Cluster::start(1).await;
    let (owner, bob) = (cluster.user("owner").on(0), cluster.user("bob").on(0));
    let chat = create(&owner, "Withdrawn", &[]).await;
    let made = owner.post(&chat.path("invites/"), json!({ "expires_in_s": 60 })).await.expect(201);
    let accept = format!("/invites/{}/", made["code"].as_str().expect("a code"));
    cluster.psql("UPDATE invites SET expires_at = clock_timestamp()").await;
    bob.post(&accept, json!({})).await.expect_problem(404, "invite_not_found");
    let made = owner.post(&chat.path("invites/"), json!({})).await.expect(201);
    let accept = format!("/invites/{}/", made["code"].as_str().expect("a code"));
    let withdraw = chat.path(&format!("invites/{}/", made["invite_id"].as_str().expect("an id")));
    owner.delete(&withdraw).await.expect(204);
    bob.post(&accept, json!({})).await.expect_problem(404, "invite_not_found");
    bob.post("/invites/AAAAAAAAAAAAAAAAAAAAAA/", json!({}))
        .await
        .expect_problem(404, "invite_not_found");
    let faults = json!({ "expires_in_s": 59, "max_uses": 0 });
    owner.post(&chat.path("invites/"), faults).await.expect_faults(&["expires_in_s", "max_uses"]);
}
