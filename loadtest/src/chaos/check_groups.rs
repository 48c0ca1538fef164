//! The final check of groups: what their members' clients hold, and what each of them was given.

use std::collections::BTreeMap;

use beseda_protocol::model::{ChatId, ChatKind, Role};

use super::{
    audit::{Audit, Member},
    context::SimContext,
    findings::{Kind, lock},
    history::{Deletion, Given},
    stored::{Stored, StoredChat},
    subscriber::Subscriber,
};

/// Returns the last revision that is to be told to a user. Later ones are not theirs.
pub(super) fn last_told(chat: &StoredChat, user: &str) -> i64 {
    let Some(member) = chat.members.get(user) else { return 0 };
    if chat.kind == ChatKind::Direct {
        return chat.last_ev;
    }
    let messages = chat.messages.range(member.shown.first_seq..).map(|(_, row)| row.ev);
    let members = chat.member_evs.iter().flat_map(|(other, read_ev, member_ev)| {
        let told = hears_members(chat, user) || other == user;
        [if chat.receipts { *read_ev } else { 0 }, if told { *member_ev } else { 0 }]
    });
    messages.chain(members).chain([chat.info_ev]).max().unwrap_or_default()
}

/// True if a user is told of all members' changes.
fn hears_members(chat: &StoredChat, user: &str) -> bool {
    chat.receipts || chat.members.get(user).is_some_and(|member| member.role >= Role::Admin)
}

/// Describes why a follower does not have all that is to be told; `None` if it has.
pub(super) fn behind(subscriber: &Subscriber, chat: Option<&StoredChat>) -> Option<String> {
    let name = &subscriber.name;
    let Some(chat) = chat.filter(|chat| chat.members.contains_key(&subscriber.user)) else {
        return (!subscriber.is_gone())
            .then(|| format!("{name} follows a chat that is not theirs"));
    };
    if subscriber.is_gone() {
        // A direct chat that is gone for its client is reported where that was said.
        let is_group = subscriber.kind == ChatKind::Group;
        return is_group.then(|| format!("{name} was told to be out, and is in"));
    }
    let model = lock(&subscriber.model);
    let (at, in_step) = (model.position, model.in_step);
    let (told, head) = (last_told(chat, &subscriber.user), chat.last_ev);
    let whole = hears_members(chat, &subscriber.user)
        && model.group.as_ref().is_some_and(|group| !group.whole || group.came_back);
    if !in_step || at < told || at > head || whole {
        return Some(format!(
            "{name} is at ev {at} of {head}, to be told up to {told}, in step: {in_step}, members \
             unknown: {whole}"
        ));
    }
    None
}

/// Compares what a client knows of a group's members and title with the database.
pub(super) fn check_membership(subscriber: &Subscriber, chat: &StoredChat) -> Vec<String> {
    let mut wrong = Vec::new();
    let (name, user) = (&subscriber.name, &subscriber.user);
    let model = lock(&subscriber.model);
    let Some(group) = &model.group else { return wrong };
    let stored: BTreeMap<String, Role> =
        chat.members.iter().map(|(id, member)| (id.clone(), member.role)).collect();
    if hears_members(chat, user) && group.members != stored {
        let differ = |a: &BTreeMap<String, Role>, b: &BTreeMap<String, Role>| {
            let only = a.iter().filter(|(id, role)| b.get(*id) != Some(role));
            only.map(|(id, role)| format!("{id} {role:?}")).collect::<Vec<_>>().join(", ")
        };
        let (known, there) = (differ(&group.members, &stored), differ(&stored, &group.members));
        wrong.push(format!("{name} has the members [{known}] and not [{there}]"));
    }
    let own = (group.members.get(user), stored.get(user));
    if own.0 != own.1 {
        wrong.push(format!("{name} has the own role {:?}, stored is {:?}", own.0, own.1));
    }
    if group.title.is_some() && group.title != chat.title {
        wrong.push(format!("{name} has the title {:?}, stored is {:?}", group.title, chat.title));
    }
    if group.receipts.is_some_and(|receipts| receipts != chat.receipts) {
        wrong.push(format!(
            "{name} has receipts: {:?}, stored is {}",
            group.receipts, chat.receipts
        ));
    }
    wrong
}

/// Checks what every client was given against who was a member at that revision.
pub(super) fn check_given(context: &SimContext, audit: &Audit) {
    let chats = context.history.chats();
    for ((chat_id, user), given) in context.history.take_given() {
        let member = audit.of(chat_id, &user);
        let chat = chats.get(&chat_id);
        let is_silent = chat.is_some_and(|chat| chat.is_silent);
        let may_be_deleted = chat.is_some_and(|chat| chat.deletion != Deletion::Never);
        for one in given {
            if let Some((kind, what)) = wrong_to_give(member, one, is_silent, may_be_deleted) {
                let what = format!("{user} in {chat_id}: {what}: {one:?} of {:?}", member.0);
                context.findings.add(kind, what.chars().take(700).collect::<String>());
            }
        }
    }
}

/// Describes why a client was not to be given something.
fn wrong_to_give(
    member: Member<'_>,
    given: Given,
    is_silent: bool,
    may_be_deleted: bool,
) -> Option<(Kind, &'static str)> {
    match given {
        Given::Live { ev, .. } if member.was_out_before(ev) => {
            Some((Kind::Leak, "a change after the membership"))
        }
        Given::Live { ev, seq: Some(seq), .. }
            if member.at(ev).is_some_and(|entry| entry.is_in && seq < entry.first_seq) =>
        {
            Some((Kind::Leak, "a message before the membership"))
        }
        Given::Live { ev, about_members: true, .. }
            if is_silent && member.at(ev).is_some_and(|entry| entry.role < Role::Admin) =>
        {
            Some((Kind::Leak, "another member's change, which is for admins"))
        }
        Given::Replayed { ev, .. } if member.was_out_before(ev) && !member.comes_in_after(ev) => {
            Some((Kind::Leak, "a change after the last membership"))
        }
        Given::Replayed { seq: Some(seq), .. } if seq < member.lowest_seq() => {
            Some((Kind::Leak, "a message before every membership"))
        }
        Given::State { ev, .. } if !member.is_in(ev) => {
            Some((Kind::Leak, "the chat as of a revision without a membership"))
        }
        Given::State { ev, seq: Some(seq) }
            if member.at(ev).is_some_and(|entry| seq < entry.first_seq) =>
        {
            Some((Kind::Leak, "a page of history before the membership"))
        }
        Given::Gone { position }
            if !may_be_deleted && member.is_in(position) && !member.goes_out_after(position) =>
        {
            Some((Kind::Lost, "told to be out, and never was"))
        }
        Given::Refused { from, to } if !may_be_deleted && !member.may_be_out(from, to) => {
            Some((Kind::Answer, "refused as a stranger, and a member all that time"))
        }
        _ => None,
    }
}

/// Checks that whoever wrote a message was a member at its revision.
pub(super) fn check_senders(context: &SimContext, audit: &Audit, stored: &Stored) {
    let groups = stored.iter().filter(|(_, chat)| chat.kind == ChatKind::Group);
    for (chat_id, chat) in groups {
        for (ev, seq) in context.history.creations(*chat_id) {
            let Some(row) = chat.messages.get(&seq).filter(|row| !row.is_system) else { continue };
            if !audit.of(*chat_id, &row.sender).is_in(ev) {
                let what =
                    format!("{} wrote {seq} of {chat_id} at ev {ev}, and was out", row.sender);
                context.findings.add(Kind::Leak, what);
            }
        }
    }
}

/// Compares the record with the present members, which shows that the record is whole.
pub(super) fn check_audit(audit: &Audit, stored: &Stored, users: &[String]) -> Vec<String> {
    let is_member = |chat: &StoredChat, user: &String| chat.members.contains_key(user);
    let wrong = |chat_id: &ChatId, chat: &StoredChat, user: &String| {
        audit.of(*chat_id, user).is_in(i64::MAX) != is_member(chat, user)
    };
    let groups = stored.iter().filter(|(_, chat)| chat.kind == ChatKind::Group);
    let pairs =
        groups.flat_map(|(chat_id, chat)| users.iter().map(move |user| (chat_id, chat, user)));
    pairs
        .filter(|(chat_id, chat, user)| wrong(chat_id, chat, user))
        .map(|(chat_id, _, user)| format!("the record of {user} in {chat_id} is not whole"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::audit::Entry;

    #[test]
    fn what_is_given_must_be_of_the_time_of_a_membership() {
        let entry = |ev, is_in, role, first_seq| Entry { ev, is_in, role, first_seq, at: ev };
        let entries = [
            entry(3, true, Role::Member, 2),
            entry(6, true, Role::Admin, 2),
            entry(8, false, Role::Member, 2),
        ];
        let judge =
            |given| wrong_to_give(Member(&entries), given, true, false).map(|(kind, _)| kind);
        let live = |ev, seq, about_members| Given::Live { ev, seq, about_members };
        assert_eq!(judge(live(5, Some(2), false)), None);
        assert_eq!(judge(live(5, Some(1), false)), Some(Kind::Leak));
        assert_eq!(judge(live(5, None, true)), Some(Kind::Leak));
        assert_eq!(judge(live(7, None, true)), None);
        assert_eq!(judge(live(8, None, false)), None);
        assert_eq!(judge(live(9, Some(4), false)), Some(Kind::Leak));
        assert_eq!(judge(Given::Replayed { ev: 9, seq: None }), Some(Kind::Leak));
        assert_eq!(judge(Given::Replayed { ev: 7, seq: Some(1) }), Some(Kind::Leak));
        assert_eq!(judge(Given::State { ev: 8, seq: None }), Some(Kind::Leak));
        assert_eq!(judge(Given::State { ev: 7, seq: Some(2) }), None);
        assert_eq!(judge(Given::Gone { position: 7 }), None);
        assert_eq!(
            wrong_to_give(Member(&entries[..1]), Given::Gone { position: 7 }, true, false)
                .map(|(kind, _)| kind),
            Some(Kind::Lost)
        );
    }
}
