//! The list of chats: pinned ones first, then latest activity first.

use std::{cmp::Reverse, collections::BTreeMap};

use beseda_protocol::{
    ReceivedFrame,
    model::{Chat, ChatId, Message, MessageKind, Time, UserId},
    rest::{ChatPage, ReadResult},
};

use super::carried;

/// A point in the order of what the socket said. A call is made at one, and its answer changes nothing
/// that a frame said after it: the answer may be the older of the two.
pub type Moment = u64;

/// The chats that are known. Between two versions of a [`Chat`] the higher `last_ev` counts; the other
/// member in it (name, presence) has no such number, so the latest one counts. Numbers of an earlier epoch
/// mean nothing: the database went back in time.
#[derive(Debug, Clone, Default)]
pub struct ChatList {
    known: BTreeMap<ChatId, Known>,
    /// When a frame said that a chat is gone.
    gone: BTreeMap<ChatId, Moment>,
    now: Moment,
    epoch: Option<String>,
    epoch_began: Moment,
    total_told: Moment,
    /// Unread messages in all chats, those that are not loaded included.
    pub total_unread: i64,
    /// The cursor of what is not loaded yet.
    pub next: Option<String>,
}

/// When the last message was sent that lifts a chat, which a system message does not. Of chats whose own
/// time is not known: how far below the one with this time they stand.
type Activity = (Time, Reverse<usize>);

#[derive(Debug, Clone)]
struct Known {
    chat: Chat,
    activity: Activity,
    /// When a frame gave the whole chat; 0: never.
    told: Moment,
    /// When a frame gave the member's presence; 0: never.
    seen: Moment,
    /// Of an earlier epoch: any other version replaces it.
    is_past: bool,
}

impl ChatList {
    pub fn get(&self, chat_id: ChatId) -> Option<&Chat> {
        self.known.get(&chat_id).map(|known| &known.chat)
    }

    /// Pinned ones first, then latest activity first; without archived ones, which [`ChatList::get`] has.
    pub fn list(&self) -> Vec<&Chat> {
        let mut listed: Vec<&Known> = self.listed().collect();
        listed.sort_by_key(|known| Reverse((known.rank(), known.chat.chat_id)));
        listed.into_iter().map(|known| &known.chat).collect()
    }

    pub fn len(&self) -> usize {
        self.listed().count()
    }

    pub fn is_empty(&self) -> bool {
        self.listed().next().is_none()
    }

    fn listed(&self) -> impl Iterator<Item = &Known> {
        self.known.values().filter(|known| !known.chat.archived)
    }

    /// The moment to remember with a call that is made now.
    pub(super) fn now(&self) -> Moment {
        self.now
    }

    /// Whether a call of that moment was answered by a history that is over.
    pub(super) fn is_past(&self, asked: Moment) -> bool {
        asked < self.epoch_began
    }

    /// Takes the epoch that a frame names. Returns true if it is another one: all must be read anew.
    pub(super) fn enter(&mut self, epoch: &str) -> bool {
        let is_other = self.epoch.as_ref().is_some_and(|known| known != epoch);
        self.epoch = Some(epoch.to_owned());
        if is_other {
            self.epoch_began = self.tick();
            self.gone.clear();
            // Shown until they are read anew.
            self.known.values_mut().for_each(|known| known.is_past = true);
        }
        is_other
    }

    // ---- answers ----

    /// Takes the top of the list as the server has it. A chat that belongs in it and is missing is gone.
    pub(super) fn set_top(&mut self, page: ChatPage, total_unread: i64, asked: Moment) {
        if self.is_past(asked) {
            return;
        }
        let activities = self.activities(&page.results);
        let last = page.next.as_ref().and(page.results.last().zip(activities.last()));
        let oldest = last.map(|(chat, activity)| (chat.pinned, *activity));
        let is_listed = |chat: &Chat| page.results.iter().any(|one| one.chat_id == chat.chat_id);
        self.known.retain(|_, known| {
            let is_below = || oldest.is_some_and(|oldest| known.rank() < oldest);
            let is_elsewhere = known.chat.archived || is_below();
            is_listed(&known.chat) || known.told > asked || (!known.is_past && is_elsewhere)
        });
        for (chat, activity) in page.results.into_iter().zip(activities) {
            self.put(chat, activity, asked);
        }
        self.next = page.next;
        self.set_total(total_unread, asked);
    }

    /// The activity of the chats of a page. A system message hides when the message before it came; the
    /// chat's place in the page bounds it.
    fn activities(&self, page: &[Chat]) -> Vec<Activity> {
        let mut above: Option<(bool, Activity)> = None;
        let activity = |chat: &Chat| {
            let known = self.known.get(&chat.chat_id).map(|known| known.activity);
            let bound = above.filter(|(pinned, _)| *pinned == chat.pinned).map(|(_, above)| above);
            let activity = activity_of(chat, known, bound);
            above = Some((chat.pinned, activity));
            activity
        };
        page.iter().map(activity).collect()
    }

    fn put(&mut self, mut chat: Chat, activity: Activity, asked: Moment) {
        if self.gone.get(&chat.chat_id).is_some_and(|gone| *gone > asked) {
            return;
        }
        let Some(known) = self.known.get_mut(&chat.chat_id) else {
            let known = Known { told: 0, seen: 0, is_past: false, activity, chat };
            self.known.insert(known.chat.chat_id, known);
            return;
        };
        if known.seen > asked {
            copy_presence(&mut chat, &known.chat);
        }
        let is_told_later = known.told > asked && known.chat.last_ev == chat.last_ev;
        if !known.is_past && (known.chat.last_ev > chat.last_ev || is_told_later) {
            known.chat.other_user = chat.other_user;
        } else {
            (known.chat, known.activity, known.is_past) = (chat, activity, false);
        }
    }

    fn set_total(&mut self, total: i64, asked: Moment) {
        if self.total_told <= asked {
            self.total_unread = total;
        }
    }

    /// Takes what is left unread after a mark.
    pub(super) fn set_read(&mut self, result: &ReadResult, asked: Moment) {
        if self.is_past(asked) {
            return;
        }
        if let Some(known) = self.known.get_mut(&result.chat_id).filter(|one| one.told <= asked) {
            known.chat.unread_count = result.unread_count;
            known.chat.read_seq = known.chat.read_seq.max(result.read_seq);
        }
        self.set_total(result.total_unread, asked);
    }

    // ---- frames ----

    /// Takes a whole chat from a frame. With `keep_presence` the member's presence stays as it is known.
    pub(super) fn tell(&mut self, mut chat: Chat, total_unread: i64, keep_presence: bool) {
        let told = self.tick();
        (self.total_unread, self.total_told) = (total_unread, told);
        self.gone.remove(&chat.chat_id);
        let known = self.known.get(&chat.chat_id).map(|known| known.activity);
        let activity = activity_of(&chat, known, None);
        let Some(known) = self.known.get_mut(&chat.chat_id) else {
            let known = Known { chat, activity, told, seen: 0, is_past: false };
            self.known.insert(known.chat.chat_id, known);
            return;
        };
        if keep_presence {
            copy_presence(&mut chat, &known.chat);
        }
        if !known.is_past && known.chat.last_ev > chat.last_ev {
            known.chat.other_user = chat.other_user;
        } else {
            (known.chat, known.activity) = (chat, activity);
        }
        (known.told, known.is_past) = (told, false);
    }

    /// `total_unread`: in the chats that are left, where the server said it. Returns whether it was known.
    pub(super) fn remove(&mut self, chat_id: ChatId, total_unread: Option<i64>) -> bool {
        let told = self.tick();
        let was_known = self.known.remove(&chat_id).is_some();
        self.gone.insert(chat_id, told);
        if let Some(total) = total_unread {
            (self.total_unread, self.total_told) = (total, told);
        }
        was_known
    }

    /// Follows a frame, ahead of the server's word on the whole chat. Returns whether something changed.
    pub(super) fn apply(&mut self, frame: &ReceivedFrame, me: Option<&UserId>) -> bool {
        match frame {
            ReceivedFrame::Presence { user_id, online, last_seen_at } => {
                return self.set_presence(user_id, *online, *last_seen_at);
            }
            ReceivedFrame::ChatRead { chat_id, user_id, read_seq, .. } => {
                return self.set_marker(*chat_id, user_id, *read_seq, me);
            }
            _ => {}
        }
        let Some((chat_id, ev)) = frame.change() else { return false };
        let Some(known) = self.known.get_mut(&chat_id) else { return false };
        let changed = match frame {
            ReceivedFrame::MessageCreated { message, .. }
            | ReceivedFrame::MessageUpdated { message, .. } => known.take_last(message),
            ReceivedFrame::MessageDeleted { message_id, deleted_at, .. } => {
                let last = known.chat.last_message.as_mut();
                last.filter(|last| last.message_id == *message_id).is_some_and(|last| {
                    carried::bury(last, ev, *deleted_at);
                    true
                })
            }
            // Counted already where the whole chat is as new as this.
            _ => ev > known.chat.last_ev && known.take_members(frame, me),
        };
        if changed {
            known.chat.last_ev = known.chat.last_ev.max(ev);
        }
        changed
    }

    /// The count of unread messages comes with the whole chat, under the same number.
    fn set_marker(
        &mut self,
        chat_id: ChatId,
        user_id: &UserId,
        read_seq: i64,
        me: Option<&UserId>,
    ) -> bool {
        let Some(Known { chat, .. }) = self.known.get_mut(&chat_id) else { return false };
        if Some(user_id) == me {
            chat.read_seq = chat.read_seq.max(read_seq);
            return true;
        }
        let Some(peer_read_seq) = &mut chat.peer_read_seq else { return false };
        *peer_read_seq = (*peer_read_seq).max(read_seq);
        true
    }

    /// Takes who is online in a chat. Returns whether another member's presence changed in the list.
    pub(super) fn set_online(&mut self, chat_id: ChatId, online: &[UserId]) -> bool {
        let Some(chat) = self.get(chat_id) else { return false };
        match chat.other_user.as_ref().map(|other| other.user_id.clone()) {
            Some(other) => self.set_presence(&other, online.contains(&other), None),
            // Who is missing may be no member of the group any more.
            None => {
                let mut changed = false;
                for user_id in online {
                    changed |= self.set_presence(user_id, true, None);
                }
                changed
            }
        }
    }

    fn set_presence(&mut self, user_id: &UserId, online: bool, last_seen_at: Option<Time>) -> bool {
        let (seen, mut changed) = (self.tick(), false);
        for known in self.known.values_mut() {
            let other = known.chat.other_user.as_mut();
            let Some(user) = other.filter(|user| user.user_id == *user_id) else { continue };
            known.seen = seen;
            if user.online != online {
                (user.online, user.last_seen_at) = (online, last_seen_at);
                changed = true;
            }
        }
        changed
    }

    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }
}

impl Known {
    /// What the list is ordered by, highest first.
    fn rank(&self) -> (bool, Activity) {
        (self.chat.pinned, self.activity)
    }

    fn take_last(&mut self, message: &Message) -> bool {
        let chat = &mut self.chat;
        let last = chat.last_message.as_ref();
        let is_newer = last.is_none_or(|last| (message.seq, message.ev) > (last.seq, last.ev));
        if is_newer {
            if message.kind != MessageKind::System {
                self.activity = self.activity.max((message.created_at, Reverse(0)));
            }
            chat.last_seq = chat.last_seq.max(message.seq);
            chat.last_message = Some(message.clone());
        }
        is_newer
    }

    /// Takes what a frame says of a group and its members.
    fn take_members(&mut self, frame: &ReceivedFrame, me: Option<&UserId>) -> bool {
        let chat = &mut self.chat;
        match frame {
            ReceivedFrame::MemberJoined { members, .. } => {
                chat.member_count += i32::try_from(members.len()).unwrap_or(0);
            }
            ReceivedFrame::MemberLeft { .. } => chat.member_count -= 1,
            ReceivedFrame::MemberUpdated { member, .. } if Some(&member.user.user_id) == me => {
                chat.role = member.role;
            }
            ReceivedFrame::ChatChanged(change) => {
                chat.title = Some(change.title.clone());
                chat.avatar_url.clone_from(&change.avatar_url);
                chat.metadata.clone_from(&change.metadata);
                chat.settings = Some(change.settings);
                chat.member_count = change.member_count;
                chat.receipts = change.receipts;
            }
            _ => return false,
        }
        true
    }
}

fn copy_presence(chat: &mut Chat, known: &Chat) {
    if let (Some(user), Some(known)) = (&mut chat.other_user, &known.other_user) {
        (user.online, user.last_seen_at) = (known.online, known.last_seen_at);
    }
}

/// When the last message came that lifts the chat. Behind a system message: as it was `known`, else at
/// the message's own time, but below `bound`.
fn activity_of(chat: &Chat, known: Option<Activity>, bound: Option<Activity>) -> Activity {
    match &chat.last_message {
        None => (chat.created_at, Reverse(0)),
        Some(last) if last.kind != MessageKind::System => (last.created_at, Reverse(0)),
        Some(last) => known.unwrap_or_else(|| match bound {
            Some((at, Reverse(below))) if at <= last.created_at => (at, Reverse(below + 1)),
            _ => (last.created_at, Reverse(0)),
        }),
    }
}
