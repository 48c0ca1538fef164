//! A subscription to one chat, on a socket of its own or of many: the client's state, and the record of what
//! it was given.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use beseda_protocol::{
    model::{ChatId, ChatKind},
    rest::MemberPage,
};
use rand::rngs::StdRng;
use reqwest::Method;

use super::{
    context::{Person, SimContext},
    findings::{Kind, lock, now_micros, tick},
    frame::Frame,
    history::{Deletion, Given, KnownChat},
    model::Model,
    timeline::Arrival,
};

/// A follower's state, which the final check reads.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub name: String,
    /// The id of the user.
    pub user: String,
    pub chat_id: ChatId,
    pub kind: ChatKind,
    pub model: Mutex<Model>,
    /// True once the service has reported the chat's deletion, or that the user is out; until they are in again.
    pub gone: AtomicBool,
    /// True once another one has taken its place.
    pub retired: AtomicBool,
}

impl Subscriber {
    pub(super) fn new(
        context: &SimContext,
        name: &str,
        user: &str,
        chat_id: ChatId,
        chat: &KnownChat,
    ) -> Arc<Self> {
        let subscriber = Arc::new(Self {
            name: format!("{name} in {chat_id}"),
            user: user.to_owned(),
            chat_id,
            kind: chat.kind,
            model: Mutex::new(Model::new(chat_id, chat.party(user))),
            gone: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        });
        context.add_subscriber(&subscriber);
        subscriber
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Records that the service reported no such chat: it is deleted, or the user is out.
    pub(super) fn told_gone(&self, context: &SimContext, replica: usize) {
        let deletion = context.history.chat(self.chat_id).map(|chat| chat.deletion);
        if self.kind == ChatKind::Group {
            let position = lock(&self.model).position;
            context.history.given(self.chat_id, &self.user, Given::Gone { position });
        } else if deletion == Some(Deletion::Never) {
            let (name, at) = (&self.name, context.timeline.now());
            let what = format!("{name} on replica {replica}: gone, and nobody deleted it ({at})");
            context.findings.add(Kind::Lost, what);
            return;
        }
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Applies a frame of this chat, and reports violations. Messages since `counts_from` count as live
    /// deliveries.
    pub(super) fn take(
        &self,
        context: &SimContext,
        frame: &Frame,
        replica: usize,
        counts_from: i64,
    ) {
        let mut broken = Vec::new();
        let (told, live) = {
            let mut model = lock(&self.model);
            let live = model.in_step;
            (model.apply(frame, &mut broken), live)
        };
        if self.kind == ChatKind::Group {
            note_given(context, self.chat_id, &self.user, frame, live);
        }
        if frame.kind == "catchup" {
            tick(&context.figures.catchups);
        }
        if let Some((ev, change)) = told
            && let Some(other) = context.history.told(self.chat_id, ev, &change)
        {
            broken.push((Kind::Order, format!("ev {ev} is {change:?}, and to others {other:?}")));
        }
        for (kind, what) in broken {
            let (name, at) = (&self.name, context.timeline.now());
            context.findings.add(kind, format!("{name} on replica {replica}: {what} ({at})"));
        }
        if let ("message.created", Some(message)) = (frame.kind.as_str(), &frame.message) {
            if live {
                context.history.created(self.chat_id, message.ev, message.seq);
            }
            let committed = message.created_at.0.as_microsecond();
            if committed >= counts_from {
                let (message_id, arrived) = (message.message_id, now_micros());
                context.timeline.arrived(Arrival { message_id, committed, arrived });
            }
        }
    }

    /// Reads the list of members where a client of a group wants it; a failure is repeated with the next call.
    pub(super) async fn read_members(
        &self,
        context: &SimContext,
        person: &Person,
        rng: &mut StdRng,
    ) {
        let wanted = {
            let model = lock(&self.model);
            model.in_step && model.wants_members()
        };
        if !wanted {
            return;
        }
        let path = format!("/api/v1/chats/{}/members/?limit=100", self.chat_id);
        let replica = context.any_replica(rng);
        let answer = context.once(replica, &Method::GET, &path, person, None).await;
        match answer.as_ref().map(|answer| (answer.status, answer.read::<MemberPage>())) {
            Some((200, Ok(page))) => lock(&self.model).on_list(&page.results),
            // Out meanwhile, which the socket is told.
            Some((404, _)) | None => {}
            Some(_) => answer.iter().for_each(|a| context.unexpected("GET members/", a)),
        }
    }
}

/// Records what the user was given of a group.
pub(super) fn note_given(
    context: &SimContext,
    chat_id: ChatId,
    user: &str,
    frame: &Frame,
    live: bool,
) {
    let ev = frame.ev;
    let seq = match frame.kind.as_str() {
        "message.deleted" => Some(frame.seq),
        _ => frame.message.as_ref().map(|message| message.seq),
    };
    let given = match frame.kind.as_str() {
        "synced" => Given::State { ev, seq: None },
        "message.created" | "message.updated" | "message.deleted" | "chat.changed"
        | "chat.read" | "member.joined" | "member.updated" | "member.left"
            if ev > 0 =>
        {
            let about_members = frame.kind.starts_with("member.");
            match live {
                true => Given::Live { ev, seq, about_members },
                false => Given::Replayed { ev, seq },
            }
        }
        _ => return,
    };
    context.history.given(chat_id, user, given);
}
