//! Silent marks, which move their reader's row without the chat's lock: whoever depends on that row waits for them, and
//! they for whoever changes it.

use beseda::{
    model::{ChatId, MessageId, Notify},
    store::{MemberState, Mutation},
};
use beseda_protocol::rest::OwnSettings;

use super::{
    delete, draft, edit, mark,
    race::{Race, Work, delete_sql, mark_sql, send_sql},
    user, whom,
};

/// A group without receipts, where ann has read nothing of what ben and she have written.
struct Unread<'a> {
    race: &'a Race,
    chat_id: ChatId,
    /// The latest message but one, ann's.
    own: MessageId,
    /// The one before, ben's.
    others: MessageId,
}

impl<'a> Unread<'a> {
    /// Ann's mark, alone in its batch or with somebody else's: each has a path of its own.
    fn marks(&self, up_to: Option<i64>, alone: bool) -> Vec<Mutation> {
        let mut batch = vec![mark(self.chat_id, "ann", up_to)];
        batch.extend((!alone).then(|| mark(self.chat_id, "cat", up_to)));
        batch
    }

    async fn new(race: &'a Race) -> Self {
        let chat_id = race.silent(&["ann", "ben", "cat"]).await;
        let mut ids = Vec::new();
        // One by one: a batch has a sender's messages follow each other.
        for sender in ["ben", "ann", "ann", "ben", "ann", "ben"] {
            ids.extend(race.sent(&[draft(chat_id, sender, None)]).await);
        }
        Self { race, chat_id, own: ids[4], others: ids[3] }
    }
}

/// Has a change of ann's row come while a mark of hers is under way, to the head and to before it. Afterwards the row
/// has both, and a recount agrees.
async fn comes_amid_a_silent_mark(change: impl AsyncFn(&Unread<'_>)) {
    let race = Race::start().await;
    for (up_to, read_seq) in [(None, 6), (Some(3), 3)] {
        let unread = Unread::new(&race).await;
        let before = race.state(unread.chat_id, "ann").await;
        race.run(&mark_sql(unread.chat_id, "ann", up_to), change(&unread)).await;
        race.exact(unread.chat_id).await;
        let after = race.state(unread.chat_id, "ann").await;
        assert!(after.read_seq >= read_seq, "the marker went back: {after:?}");
        assert_eq!(after.rev, before.rev + 2, "each of the two raises rev");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_counts_from_where_its_senders_own_silent_mark_left_off() {
    comes_amid_a_silent_mark(async |unread| {
        unread.race.sent(&[draft(unread.chat_id, "ann", None)]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_sends_counts_from_where_a_silent_mark_left_off() {
    comes_amid_a_silent_mark(async |unread| {
        let batch = ["ann", "ben", "ann"].map(|id| draft(unread.chat_id, id, None));
        unread.race.sent(&batch).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_mentioned_keeps_their_silent_mark() {
    comes_amid_a_silent_mark(async |unread| {
        unread.race.sent(&[draft(unread.chat_id, "ben", Some(whom(&["ann"])))]).await;
    })
    .await;
    comes_amid_a_silent_mark(async |unread| {
        let mentions = || Some(whom(&["ann", "cat"]));
        unread.race.sent(&[(); 3].map(|()| draft(unread.chat_id, "ben", mentions()))).await;
    })
    .await;
    comes_amid_a_silent_mark(async |unread| {
        let edit = edit(unread.chat_id, "ben", unread.others, whom(&["ann"]));
        unread.race.changed(&[edit]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_of_less_moves_nothing_back() {
    let race = Race::start().await;
    for alone in [true, false] {
        let unread = Unread::new(&race).await;
        let mut batch = vec![mark(unread.chat_id, "ann", Some(2))];
        batch.extend((!alone).then(|| mark(unread.chat_id, "cat", Some(2))));
        let change = unread.race.changed(&batch);
        let states = race.run(&mark_sql(unread.chat_id, "ann", Some(4)), change).await;
        assert_eq!((states[0].read_seq, states[0].unread), (4, 1), "{states:?}");
        race.exact(unread.chat_id).await;
    }
}

/// A deletion takes from `own_after` what it has counted, so it must not count while a mark counts anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_counts_from_where_its_authors_silent_mark_left_off() {
    let race = Race::start().await;
    for erase in [false, true] {
        for up_to in [None, Some(3)] {
            let unread = Unread::new(&race).await;
            let mark = mark_sql(unread.chat_id, "ann", up_to);
            let deletion = async {
                if erase {
                    let erased = race.store.erase_in_chat(unread.chat_id, &user("ann")).await;
                    assert!(erased.expect("an answer").is_some(), "there were messages");
                } else {
                    race.changed(&[delete(unread.chat_id, "ann", unread.own)]).await;
                }
            };
            race.run(&mark, deletion).await;
            race.exact(unread.chat_id).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_mark_counts_what_a_deletion_has_left() {
    let race = Race::start().await;
    for alone in [true, false] {
        for up_to in [None, Some(3)] {
            let unread = Unread::new(&race).await;
            let batch = unread.marks(up_to, alone);
            let deletion = delete_sql(unread.chat_id, "ann", unread.own);
            let states = race.run(&deletion, race.changed(&batch)).await;
            assert_eq!(states[0].unread, if up_to.is_none() { 0 } else { 2 }, "{states:?}");
            race.exact(unread.chat_id).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_mark_counts_what_its_reader_sends_meanwhile() {
    let race = Race::start().await;
    for alone in [true, false] {
        for up_to in [None, Some(3)] {
            let unread = Unread::new(&race).await;
            let batch = unread.marks(up_to, alone);
            let send = send_sql(&draft(unread.chat_id, "ann", None));
            let states = race.run(&send, race.changed(&batch)).await;
            let row = race.state(unread.chat_id, "ann").await;
            assert_eq!(states[0], row, "what is told is the row");
            race.exact(unread.chat_id).await;
        }
    }
}

/// Between the statement that looks and those that count, others send and delete.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_silent_mark_answers_is_of_one_moment() {
    let race = Race::start().await;
    for alone in [true, false] {
        let unread = Unread::new(&race).await;
        let chat_id = unread.chat_id;
        race.changed(&[delete(chat_id, "ben", unread.others)]).await;
        let mut batch = vec![mark(chat_id, "ann", Some(3))];
        batch.extend((!alone).then(|| mark(chat_id, "cat", Some(3))));
        // A mark notes in the outbox that it has moved, and there it waits.
        race.hold("LOCK TABLE outbox IN SHARE ROW EXCLUSIVE MODE").await;
        let mut marking: Work<'_, Vec<MemberState>> = Box::pin(race.changed(&batch));
        assert!(race.until_it_waits(&mut marking, &race.first).await.is_none(), "it waits");
        let brief = draft(chat_id, "ben", None);
        race.first.run(&send_sql(&brief)).await;
        race.first.run(&delete_sql(chat_id, "ben", brief.message_id)).await;
        race.release().await;
        // Ben's last message, and not the one that came and went.
        assert_eq!(marking.await[0].unread, 1);
        race.exact(chat_id).await;
    }
}

/// A member's own settings are a change without a revision, too: in a direct chat all are told under the chat's lock.
#[tokio::test(flavor = "multi_thread")]
async fn own_settings_are_in_every_state_that_is_told_after_them() {
    let race = Race::start().await;
    let (ann, ben) = (user("ann"), user("ben"));
    let opened = race.store.open_direct([&ann, &ben], &ann, false).await;
    let chat_id = opened.expect("a chat").chat_id;
    let settings =
        |notify: &str| format!("SELECT FROM set_own('{chat_id}', 'ann', '{notify}', NULL, NULL)");
    for count in [1, 3] {
        race.sent(&[draft(chat_id, "ben", None)]).await;
        let batch = vec![(); count].into_iter().map(|()| draft(chat_id, "ann", None));
        let batch: Vec<_> = batch.collect();
        let sent = race.run(&settings("none"), race.store.send_messages(&batch)).await;
        let states = sent.expect("an answer").states;
        let own = states.iter().find(|state| state.user_id == ann).expect("the sender's");
        assert_eq!((own, own.flags.notify), (&race.state(chat_id, "ann").await, Notify::None));
        let mark = [mark(chat_id, "ann", None)];
        let marked = race.run(&settings("all"), race.changed(&mark)).await;
        assert_eq!(
            (&marked[0], marked[0].flags.notify),
            (&race.state(chat_id, "ann").await, Notify::All)
        );
        race.exact(chat_id).await;
    }
    // And in a group without receipts, where they wait for no mark's lock but for its row.
    let unread = Unread::new(&race).await;
    let own = OwnSettings { notify: Some(Notify::None), ..OwnSettings::default() };
    let set = race.store.set_own(unread.chat_id, &ann, &own);
    race.run(&mark_sql(unread.chat_id, "ann", None), set).await.expect("set");
    let after = race.exact(unread.chat_id).await;
    let row = after.members.iter().find(|member| member.user == "ann").expect("a row");
    assert_eq!((row.read_seq, row.unread), (6, 0));
}
