//! Sends that wait for a chat: what is judged is what the lock waited for.

use beseda::{
    error::Error,
    model::{ChatId, Mentions},
    store::{Draft, SendOutcome, SentBatch, StoreError},
};

use super::{
    draft, keyed, mark,
    race::{Race, Work, locked, remove_sql, row_of_chat, send_sql},
    user, whom,
};

fn is_created(outcome: &SendOutcome) -> bool {
    matches!(outcome, SendOutcome::Created { .. })
}

fn is_of_a_stranger(outcome: &SendOutcome) -> bool {
    matches!(outcome, SendOutcome::Refused(Error::ChatNotFound))
}

/// Cat is no member of `there` when a batch of hers takes its locks, waits for `here`, and is one when it looks. If
/// somebody holds `there` by then, it is not locked, and nothing may be numbered in it.
async fn joins_between_the_lock_and_the_look(receipt_members: i32, slow_mode_s: i32) {
    let race = Race::start().await;
    let here = race.group(&["ann", "cat"], receipt_members).await;
    let there = race.group(&["ann", "ben"], receipt_members).await;
    let slow = format!("UPDATE chats SET slow_mode_s = {slow_mode_s} WHERE chat_id = '{here}'");
    race.cluster.psql(&slow).await;
    let batch = [there, here].map(|chat_id| draft(chat_id, "cat", Some(whom(&["ann"]))));
    race.hold(&locked(&row_of_chat(here))).await;
    let mut sending: Work<'_, Result<SentBatch, StoreError>> =
        Box::pin(race.store.send_messages(&batch));
    assert!(race.until_it_waits(&mut sending, &race.first).await.is_none(), "it waits for a chat");
    race.cluster.psql(&super::race::add_sql(there, "cat", receipt_members)).await;
    // Its numbers are taken, and not to be seen yet.
    let other = crate::harness::Psql::connect(&race.cluster.database_url()).await;
    other.run(&format!("BEGIN; {}", send_sql(&draft(there, "ben", None)))).await;
    race.release().await;
    let early = race.until_it_waits(&mut sending, &other).await;
    other.run("COMMIT").await;
    let sent = match early {
        Some(sent) => sent,
        None => sending.await,
    };
    let outcomes = sent.expect("no number was taken twice").outcomes;
    assert!(is_of_a_stranger(&outcomes[0]), "{outcomes:?}");
    assert!(is_created(&outcomes[1]), "{outcomes:?}");
    let after = race.exact(there).await;
    assert_eq!((after.last_seq, after.messages.len()), (1, 1), "ben's message alone");
    race.sent(&batch[..1]).await;
    race.exact(there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_between_the_lock_and_the_look_is_not_there_for_this_batch() {
    joins_between_the_lock_and_the_look(1_000, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_between_the_lock_and_the_look_is_not_there_in_silent_groups() {
    joins_between_the_lock_and_the_look(0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_between_the_lock_and_the_look_is_not_there_beside_slow_mode() {
    joins_between_the_lock_and_the_look(1_000, 1).await;
}

/// The chat that nobody holds is locked late, and then it counts.
#[tokio::test(flavor = "multi_thread")]
async fn who_joins_a_free_chat_meanwhile_is_heard() {
    let race = Race::start().await;
    let (here, there) = (race.silent(&["ann", "cat"]).await, race.silent(&["ann", "ben"]).await);
    let batch = [there, here].map(|chat_id| draft(chat_id, "cat", None));
    race.hold(&locked(&row_of_chat(here))).await;
    let mut sending: Work<'_, Result<SentBatch, StoreError>> =
        Box::pin(race.store.send_messages(&batch));
    assert!(race.until_it_waits(&mut sending, &race.first).await.is_none(), "it waits for a chat");
    race.cluster.psql(&super::race::add_sql(there, "cat", 0)).await;
    race.release().await;
    let outcomes = sending.await.expect("an answer").outcomes;
    assert!(outcomes.iter().all(is_created), "{outcomes:?}");
    race.exact(there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_put_out_while_their_send_waits_sends_nothing() {
    let race = Race::start().await;
    for receipt_members in [0, 1_000] {
        for alone in [true, false] {
            let chat_id = race.group(&["ann", "ben", "cat"], receipt_members).await;
            let senders: &[&str] = if alone { &["cat"] } else { &["ben", "cat", "ann"] };
            let batch: Vec<Draft> = senders.iter().map(|id| draft(chat_id, id, None)).collect();
            let sent =
                race.run(&remove_sql(chat_id, "cat"), race.store.send_messages(&batch)).await;
            for (draft, outcome) in batch.iter().zip(sent.expect("an answer").outcomes) {
                let out = draft.sender_id == user("cat");
                assert!(
                    if out { is_of_a_stranger(&outcome) } else { is_created(&outcome) },
                    "{outcome:?}"
                );
            }
            race.exact(chat_id).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_waits_for_the_first_finds_it() {
    let race = Race::start().await;
    for alone in [true, false] {
        let chat_id = race.silent(&["ann", "ben"]).await;
        let first = keyed(draft(chat_id, "ann", None), "once");
        let mut batch = vec![first.clone()];
        batch.extend((!alone).then(|| draft(chat_id, "ben", None)));
        let sent = race.run(&send_sql(&first), race.store.send_messages(&batch)).await;
        let outcomes = sent.expect("an answer").outcomes;
        assert!(
            matches!(&outcomes[0], SendOutcome::Replayed { message } if message.seq == 1),
            "{outcomes:?}"
        );
        race.exact(chat_id).await;
    }
}

/// A statement changes a row once, so what a sender's row gets for being mentioned is a statement of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_sender_who_is_mentioned_in_the_same_batch_is_counted_twice() {
    let race = Race::start().await;
    let (ann, ben) = (user("ann"), user("ben"));
    let direct = race.store.open_direct([&ann, &ben], &ann, false).await.expect("a chat").chat_id;
    let groups = [race.silent(&["ann", "ben", "cat"]).await, race.group(&["ann", "ben"], 9).await];
    for chat_id in [direct, groups[0], groups[1]] {
        let counters = async |id: &str| {
            let state = race.state(chat_id, id).await;
            (state.unread, state.mentions)
        };
        let said = |sender: &str, mentions: Mentions| draft(chat_id, sender, Some(mentions));
        let batch = [
            said("ann", whom(&["ben"])),
            said("ben", whom(&["ann", "ben"])),
            said("ann", Mentions::All),
            said("ben", whom(&["ann"])),
            draft(chat_id, "ben", None),
        ];
        race.sent(&batch).await;
        assert_eq!((counters("ann").await, counters("ben").await), ((3, 2), (2, 2)));
        race.exact(chat_id).await;
        race.changed(&[mark(chat_id, "ann", Some(4)), mark(chat_id, "ben", None)]).await;
        assert_eq!(counters("ben").await, (0, 0));
        race.exact(chat_id).await;
    }
}

/// What a batch that is alone and what one of several write is the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_chat_that_waits_for_nobody_delays_no_numbers() {
    let race = Race::start().await;
    let chats: Vec<ChatId> =
        vec![race.silent(&["ann", "ben"]).await, race.group(&["ann", "ben"], 9).await];
    for chat_id in chats {
        let first = draft(chat_id, "ann", None);
        let batch = [draft(chat_id, "ben", None), draft(chat_id, "ann", None)];
        race.run(&send_sql(&first), race.sent(&batch)).await;
        race.run(
            &send_sql(&draft(chat_id, "ann", None)),
            race.sent(&[draft(chat_id, "ben", None)]),
        )
        .await;
        assert_eq!(race.exact(chat_id).await.last_seq, 5);
    }
}
