//! Members who go, come back, or become too many, while they or others write and read.

use beseda::store::{Actor, MutationOutcome, Removed};

use super::{
    delete, draft, limits, mark,
    race::{Race, add_sql, mark_sql, remove_sql},
    user, whom,
};
use beseda::{config::SystemMessages, error::Error, model::Role};

/// Nothing of an earlier membership is counted, and every copy of it is older.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_counts_anew_and_with_a_higher_version() {
    let race = Race::start().await;
    for receipt_members in [0, 1_000] {
        let chat_id = race.group(&["ben", "ann", "cat"], receipt_members).await;
        // Silent marks, mentions and settings raise `rev` without an `ev`.
        for _ in 0..10 {
            race.sent(&[draft(chat_id, "ben", Some(whom(&["ann"])))]).await;
            race.changed(&[mark(chat_id, "ann", None)]).await;
        }
        let mut senders = vec!["ben", "ann", "ann", "ben", "ann"];
        senders.extend(["ben"; 3]);
        let batch: Vec<_> = senders.iter().map(|id| draft(chat_id, id, None)).collect();
        let ids = race.sent(&batch).await;
        let chat = race.exact(chat_id).await;
        let row = chat.members.iter().find(|member| member.user == "ann").expect("a row");
        assert_eq!(row.own_after, 3, "what is not to come back");
        let before = race.state(chat_id, "ann").await;
        let limits = limits(receipt_members, SystemMessages::Off);
        let ann = user("ann");
        let left = race.store.remove_member(chat_id, Actor::User(&ann), &ann, limits).await;
        assert!(matches!(left, Ok(Removed::Changed(_))), "{left:?}");
        let between = race.state(chat_id, "ann").await;
        let added = [ann];
        let added =
            race.store.add_members(chat_id, Actor::Host, &added, Role::Member, false, limits).await;
        let ev = added.expect("added").1.expect("a change").ev;
        let after = race.state(chat_id, "ann").await;
        assert!(before.version() < between.version() && between.version() < after.version());
        assert!(
            before.rev < between.rev && between.rev < after.rev,
            "{before:?}, {between:?}, {after:?}"
        );
        assert!(after.rev >= 4 * ev, "above what any row of before could have: {after:?}");
        assert_eq!((after.unread, after.mentions, after.read_seq), (0, 0, chat.last_seq));
        race.exact(chat_id).await;
        // What they wrote before is below their floor.
        race.changed(&[delete(chat_id, "ann", ids[1]), delete(chat_id, "ann", ids[4])]).await;
        race.sent(&[draft(chat_id, "ben", None), draft(chat_id, "ann", None)]).await;
        assert_eq!(race.state(chat_id, "ann").await.unread, 1);
        race.exact(chat_id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_mark_that_waited_out_a_membership_moves_nothing() {
    let race = Race::start().await;
    for (alone, returns) in [(true, true), (false, true), (true, false), (false, false)] {
        let chat_id = race.silent(&["ben", "ann", "cat"]).await;
        race.sent(&["ben", "ann", "ben", "ann", "ben"].map(|id| draft(chat_id, id, None))).await;
        let mut batch = vec![mark(chat_id, "ann", Some(3))];
        batch.extend((!alone).then(|| mark(chat_id, "cat", Some(3))));
        let back = if returns { add_sql(chat_id, "ann", 0) } else { "SELECT".to_owned() };
        let first = format!("{}; {back}", remove_sql(chat_id, "ann"));
        let marked = race.run(&first, race.store.mutate_chats(&batch)).await;
        let outcomes = marked.expect("an answer").outcomes;
        match &outcomes[0] {
            MutationOutcome::Done(done) => assert!(returns && !done.moved, "{outcomes:?}"),
            MutationOutcome::Refused(error) => {
                assert!(!returns && matches!(error, Error::ChatNotFound), "{outcomes:?}");
            }
        }
        let state = race.state(chat_id, "ann").await;
        assert_eq!((state.read_seq, state.gone), (if returns { 5 } else { 0 }, !returns));
        race.exact(chat_id).await;
    }
}

/// A mark waits for the chat to take a revision, and the chat has no receipts any more when it gets there.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_whose_chat_outgrows_its_receipts_meanwhile_is_silent() {
    let race = Race::start().await;
    for alone in [true, false] {
        let chat_id = race.group(&["ben", "ann", "cat"], 3).await;
        race.sent(&["ben", "ann", "ben"].map(|id| draft(chat_id, id, None))).await;
        let before = race.exact(chat_id).await;
        assert!(before.receipts);
        let mut batch = vec![mark(chat_id, "ann", Some(2))];
        batch.extend((!alone).then(|| mark(chat_id, "cat", None)));
        let marked = race.run(&add_sql(chat_id, "dan", 3), race.store.mutate_chats(&batch)).await;
        for outcome in marked.expect("an answer").outcomes {
            let MutationOutcome::Done(done) = outcome else { panic!("{outcome:?}") };
            assert_eq!((done.moved, done.changed_ev, done.receipts), (true, None, false));
        }
        let after = race.exact(chat_id).await;
        // The new member, and that there are no receipts.
        assert_eq!((after.last_ev, after.receipts), (before.last_ev + 2, false));
        let ann = after.members.iter().find(|member| member.user == "ann").expect("a row");
        assert_eq!((ann.read_seq, ann.unread), (2, 1));
        // From now on marks wait for their row alone.
        let later = race.changed(&[mark(chat_id, "ben", None)]).await;
        assert_eq!(later[0].last_ev, after.last_ev);
        race.hold(&mark_sql(chat_id, "dan", None)).await;
        race.changed(&[mark(chat_id, "ann", None)]).await;
        race.release().await;
    }
}
