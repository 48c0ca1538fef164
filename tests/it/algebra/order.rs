//! Locks are taken in one order: chats by their ids, then members by chat and user. So whoever waits for a row holds
//! none that comes after it, and no two wait for each other.

use beseda::model::ChatId;

use super::{
    delete, draft, edit, mark,
    race::{Race, locked, row_of_chat, row_of_member},
    whom,
};

/// A group without receipts, in which bob has mentioned ann in the first message.
async fn group(race: &Race) -> (ChatId, beseda::model::MessageId) {
    let chat_id = race.silent(&["ann", "bob", "cat"]).await;
    let ids = race.sent(&[draft(chat_id, "bob", Some(whom(&["ann"])))]).await;
    (chat_id, ids[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_lock_senders_and_mentioned_members_in_their_order() {
    let race = Race::start().await;
    let (chat_id, _) = group(&race).await;
    let ann = locked(&row_of_member(chat_id, "ann"));
    let later = [row_of_member(chat_id, "bob"), row_of_member(chat_id, "cat")];
    let said = |sender: &str, mentions: &[&str]| draft(chat_id, sender, Some(whom(mentions)));
    race.run_in_order(&ann, race.sent(&[said("bob", &["cat", "ann"])]), &later).await;
    let batch = [said("cat", &["bob"]), said("bob", &["ann"]), said("cat", &["ann"])];
    race.run_in_order(&ann, race.sent(&batch), &later).await;
    let senders = ["cat", "bob", "ann"].map(|id| draft(chat_id, id, None));
    race.run_in_order(&ann, race.sent(&senders), &later).await;
    race.exact(chat_id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_marks_lock_their_readers_in_their_order() {
    let race = Race::start().await;
    let (chat_id, _) = group(&race).await;
    race.sent(&["ann", "bob", "cat"].map(|id| draft(chat_id, id, None))).await;
    let ann = locked(&row_of_member(chat_id, "ann"));
    let later =
        [row_of_member(chat_id, "bob"), row_of_member(chat_id, "cat"), row_of_chat(chat_id)];
    let marks = ["cat", "bob", "ann"].map(|id| mark(chat_id, id, None));
    race.run_in_order(&ann, race.changed(&marks), &later).await;
    race.exact(chat_id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_and_deletions_lock_whom_they_touch_in_their_order() {
    let race = Race::start().await;
    for deletes in [false, true] {
        let (chat_id, message_id) = group(&race).await;
        let ann = locked(&row_of_member(chat_id, "ann"));
        let later = [row_of_member(chat_id, "bob"), row_of_member(chat_id, "cat")];
        let change = if deletes {
            delete(chat_id, "bob", message_id)
        } else {
            edit(chat_id, "bob", message_id, whom(&["cat"]))
        };
        let batch = [mark(chat_id, "cat", None), change];
        race.run_in_order(&ann, race.changed(&batch), &later).await;
        race.exact(chat_id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_locks_whom_it_touches_in_their_order() {
    let race = Race::start().await;
    let (chat_id, _) = group(&race).await;
    let ann = locked(&row_of_member(chat_id, "ann"));
    let bob = super::user("bob");
    let erasure = race.store.erase_in_chat(chat_id, &bob);
    race.run_in_order(&ann, erasure, &[row_of_member(chat_id, "bob")]).await.expect("erased");
    race.exact(chat_id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_are_locked_by_their_ids_and_before_any_member() {
    let race = Race::start().await;
    // Ids ascend with time.
    let (older, first) = group(&race).await;
    let (newer, second) = group(&race).await;
    let members =
        [row_of_member(older, "ann"), row_of_member(older, "bob"), row_of_member(newer, "bob")];
    let sends = [newer, older].map(|chat_id| draft(chat_id, "bob", None));
    race.run_in_order(&locked(&row_of_chat(older)), race.sent(&sends), &[row_of_chat(newer)]).await;
    let sends = [newer, older].map(|chat_id| draft(chat_id, "bob", None));
    race.run_in_order(&locked(&row_of_chat(newer)), race.sent(&sends), &members).await;
    let edits = || {
        [(newer, second), (older, first)]
            .map(|(chat_id, id)| edit(chat_id, "bob", id, whom(&["cat"])))
    };
    race.run_in_order(&locked(&row_of_chat(older)), race.changed(&edits()), &[row_of_chat(newer)])
        .await;
    race.run_in_order(&locked(&row_of_chat(newer)), race.changed(&edits()), &members).await;
    race.exact(older).await;
    race.exact(newer).await;
}

/// A silent mark and a deletion in one batch: the chat of the one before the reader of the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_both_kinds_locks_chats_before_readers() {
    let race = Race::start().await;
    let (older, _) = group(&race).await;
    let (newer, message_id) = group(&race).await;
    let batch = [mark(older, "ann", None), delete(newer, "bob", message_id)];
    let readers = [row_of_member(older, "ann"), row_of_member(newer, "bob")];
    race.run_in_order(&locked(&row_of_chat(newer)), race.changed(&batch), &readers).await;
    race.exact(older).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_and_who_inherits_are_locked_in_their_order() {
    let race = Race::start().await;
    let chat_id = race.silent(&["bob", "ann"]).await;
    let ann = locked(&row_of_member(chat_id, "ann"));
    let bob = super::user("bob");
    let limits = super::limits(0, beseda::config::SystemMessages::Off);
    let removal = race.store.remove_member(chat_id, beseda::store::Actor::User(&bob), &bob, limits);
    race.run_in_order(&ann, removal, &[row_of_member(chat_id, "bob")]).await.expect("removed");
    race.exact(chat_id).await;
}
