//! Copies of groups' counters, brought up to date by the groups' heads.

use super::*;
use crate::store::GroupHead;

const GROUP: u128 = 2;

/// A member's state at a revision, of a group in which each revision was a message.
fn member(ev: i64, rev: i64, unread: i64) -> MemberState {
    MemberState { rev, unread, ..state(GROUP, ev, ChatKind::Group) }
}

fn head(ev: i64) -> GroupHead {
    member(ev, 0, 0).head().expect("a group's")
}

struct Alice {
    unread: Unread,
    alice: UserId,
}

impl Alice {
    /// Filled with Alice's state of a group.
    async fn of(client: &RedisClient, truth: MemberState) -> Self {
        let copies = Self { unread: Unread::new(client.clone(), history()), alice: user("alice") };
        fill(&copies.unread, &copies.alice, vec![direct(1, 5), truth]).await;
        copies
    }

    async fn write(&self, states: &[MemberState], heads: &[GroupHead]) {
        let mut copies = Copies::default();
        for state in states {
            copies.add(&self.alice, &state.epoch, CounterChange::of(state));
        }
        heads.iter().cloned().for_each(|head| copies.add_head(head));
        self.unread.write(&copies).await.expect("Redis is there");
    }

    async fn read(&self) -> UserCounters {
        self.unread.read(&self.alice).await.expect("Redis is there").expect("complete")
    }

    /// Unread messages, the newest number and the time of the group's last message; `None`: Postgres must
    /// be asked.
    async fn group(&self) -> Option<(i64, i64, i64)> {
        let read = self.read().await;
        let of_group = |counter: &&Counter| counter.kind == ChatKind::Group;
        let found = read.counters.iter().find(of_group);
        assert_eq!(found.is_some(), read.unknown.is_empty(), "{read:?}");
        found.map(|counter| (counter.unread, counter.last_seq, counter.activity.0.as_microsecond()))
    }

    /// Neither known nor to be asked for.
    async fn is_out(&self) -> bool {
        let read = self.read().await;
        read.unknown.is_empty() && read.counters.len() == 1
    }
}

#[tokio::test]
async fn messages_of_others_reach_a_copy_by_the_head_alone() {
    let (_redis, client) = redis().await;
    let copies = Alice::of(&client, member(7, 0, 3)).await;
    assert_eq!(copies.group().await, Some((3, 7, 7)));
    copies.write(&[], &[head(9)]).await;
    assert_eq!(copies.group().await, Some((5, 9, 9)));
    // One that comes late.
    copies.write(&[], &[head(8)]).await;
    assert_eq!(copies.group().await, Some((5, 9, 9)));
    // Alice reads up to the head, and the state is newer than the head that Redis has.
    copies.write(&[member(11, 1, 0)], &[]).await;
    assert_eq!(copies.group().await, Some((0, 11, 11)));
    copies.write(&[], &[head(12)]).await;
    assert_eq!(copies.group().await, Some((1, 12, 12)));
    // A silent mark, which was told without a lock of the chat, is newer than what was read meanwhile.
    copies.write(&[member(15, 1, 4)], &[head(15)]).await;
    copies.write(&[member(13, 2, 0)], &[]).await;
    assert_eq!(copies.group().await, Some((2, 15, 15)));
    copies.write(&[member(14, 1, 3), member(13, 2, 0)], &[]).await;
    assert_eq!(copies.group().await, Some((2, 15, 15)));
}

#[tokio::test]
async fn what_counts_for_members_differently_is_asked_of_postgres_once() {
    let (_redis, client) = redis().await;
    let copies = Alice::of(&client, member(7, 0, 3)).await;
    // The message of revision 8 deletes one.
    copies.write(&[], &[GroupHead { recount_ev: 8, ..head(9) }]).await;
    let read = copies.read().await;
    assert_eq!(read.unknown, [(Uuid::from_u128(GROUP), 0)]);
    let truth = MemberState { recount_ev: 8, ..member(9, 0, 4) };
    copies.unread.correct(&copies.alice, &read.unknown, &[truth]).await;
    assert_eq!(copies.group().await, Some((4, 9, 9)));
    copies.write(&[], &[GroupHead { recount_ev: 8, ..head(10) }]).await;
    assert_eq!(copies.group().await, Some((5, 10, 10)));
}

#[tokio::test]
async fn who_is_out_has_no_counter_until_they_return() {
    let (_redis, client) = redis().await;
    let copies = Alice::of(&client, member(7, 0, 3)).await;
    let out = |ev, rev| MemberState { gone: true, ..member(ev, rev, 0) };
    copies.write(&[out(8, 1)], &[]).await;
    // An older state that comes late.
    copies.write(&[member(8, 0, 4)], &[head(8)]).await;
    assert!(copies.is_out().await);
    copies.write(&[member(9, 40, 0)], &[head(9)]).await;
    assert_eq!(copies.group().await, Some((0, 9, 9)));
    // Redis did not learn that she left again, but Postgres knows, as it is asked after a deletion.
    copies.write(&[], &[GroupHead { recount_ev: 10, ..head(10) }]).await;
    let read = copies.read().await;
    copies.unread.correct(&copies.alice, &read.unknown, &[]).await;
    assert!(copies.is_out().await);
}

#[tokio::test]
async fn no_copy_is_believed_without_the_head_of_its_history() {
    let (_redis, client) = redis().await;
    let copies = Alice::of(&client, member(7, 0, 3)).await;
    let group = format!("test:head:{}", Uuid::from_u128(GROUP));
    let numbers = "9|9|9|9|0";
    let generation = client.generation().expect("known");
    for (epoch, generation, believed) in [
        ("one-00000001", &*generation, true),
        ("one-00000002", &*generation, false),
        ("one-00000001", "another", false),
    ] {
        command(&client, &format!("SET {group} {epoch}|{generation}|{numbers}")).await;
        assert_eq!(copies.group().await.is_some(), believed, "{epoch} {generation}");
    }
    // A commit's head is as good in this generation; Postgres's answer brings it here, too.
    copies.write(&[], &[head(9)]).await;
    assert_eq!(copies.group().await, Some((5, 9, 9)));
    command(&client, &format!("DEL {group}")).await;
    assert_eq!(copies.group().await, None);
    let unknown = copies.read().await.unknown;
    copies.unread.correct(&copies.alice, &unknown, &[member(9, 0, 5)]).await;
    assert_eq!(copies.group().await, Some((5, 9, 9)));
}

#[tokio::test]
async fn a_head_belongs_to_one_history_and_ends_with_its_chat() {
    let (_redis, client) = redis().await;
    let copies = Alice::of(&client, member(7, 0, 3)).await;
    let group = format!("GET test:head:{}", Uuid::from_u128(GROUP));
    let value = async || command(&client, &group).await.as_string().unwrap_or_default();
    let of = |epoch: &str, ev| GroupHead { epoch: epoch.into(), ..head(ev) };
    // The next timeline of this installation begins anew, and what the lost one says late is not heard.
    copies.write(&[], &[of("one-00000002", 4)]).await;
    assert!(value().await.contains("|4|4|4|4|0"), "{}", value().await);
    // Which of two installations is over is unknown.
    copies.write(&[], &[of("one-00000001", 9)]).await;
    assert_eq!(value().await, "");
    copies.write(&[], &[head(9)]).await;
    let mut ended = Copies::default();
    ended.end(Uuid::from_u128(GROUP), &history().current());
    copies.unread.write(&ended).await.expect("Redis is there");
    copies.write(&[], &[head(10)]).await;
    assert!(value().await.ends_with("|gone"), "{}", value().await);
    assert_eq!(copies.group().await, None);
}
