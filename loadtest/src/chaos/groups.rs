//! Groups: whoever changes their members, roles and titles while others write there.

use std::sync::Arc;

use beseda_protocol::model::{ChatId, ChatKind};
use jiff::Timestamp;
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    context::{Answer, Person, SimContext},
    findings::{Kind, tick},
    history::{Deletion, KnownChat},
    stack::RECEIPT_MEMBERS,
    writers::Writer,
};

/// Pause between two changes of a group, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 150..1_200;

/// Pause between two operations of a crowd, in milliseconds.
const CROWD_MS: std::ops::Range<u64> = 30..200;

/// How far apart the operations of two devices are, in milliseconds.
const APART_MS: std::ops::Range<u64> = 0..12;

/// How long somebody is out who is added again at once, in milliseconds.
const BLINK_MS: std::ops::Range<u64> = 0..150;

/// Longest silence, in milliseconds.
const SILENCE_MS: i64 = 3_000;

/// A group and those who may belong to it.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub chat_id: ChatId,
    /// The first one never leaves, so that the group is not deleted.
    pub pool: Vec<Person>,
    pub is_open: bool,
}

/// What is asked for at the creation of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub title: &'static str,
    /// How many of the pool are members from the beginning.
    pub members: usize,
    pub history: &'static str,
    pub join: &'static str,
}

#[derive(Deserialize)]
struct Opened {
    chat_id: ChatId,
    room_name: String,
    created: bool,
}

/// Creates a group of the first of a pool, and asks once more with the same key.
pub(super) async fn create(
    context: &SimContext,
    rng: &mut StdRng,
    pool: &[Person],
    plan: Plan,
) -> Option<Group> {
    let owner = pool.first()?;
    let user_ids: Vec<&String> = pool[1..plan.members].iter().map(|person| &person.id).collect();
    let body = json!({
        "kind": "group", "title": plan.title, "user_ids": user_ids,
        "settings": { "history": plan.history, "join": plan.join },
        "client_chat_id": format!("{}-{:x}", plan.title, rng.random::<u64>()),
    });
    let path = "/api/v1/chats/";
    let mut known: Option<Opened> = None;
    for repeat in [false, true] {
        let answer = context.call(rng, Method::POST, path, owner, Some(&body)).await?;
        match (answer.status, answer.read::<Opened>()) {
            // An attempt without an answer may have created it.
            (201, Ok(chat)) if chat.created && !repeat => known = Some(chat),
            (200, Ok(chat)) if !chat.created && (repeat || answer.loose) => {
                if let Some(first) = known.replace(chat)
                    && known.as_ref().is_some_and(|again| again.chat_id != first.chat_id)
                {
                    let what = format!("one key created two groups, one of them {}", first.chat_id);
                    context.findings.add(Kind::Doubled, what);
                }
            }
            _ => context.unexpected("the creation of a group", &answer),
        }
    }
    let Opened { chat_id, room_name, .. } = known?;
    let chat = KnownChat {
        kind: ChatKind::Group,
        members: context.everybody(),
        room_name,
        deletion: Deletion::Never,
        is_silent: plan.members > RECEIPT_MEMBERS,
    };
    context.history.opened(chat_id, chat);
    tick(&context.figures.groups_made);
    Some(Group { chat_id, pool: pool.to_vec(), is_open: plan.join == "open" })
}

/// Changes a group until the end of the busy phase.
pub(super) struct Keeper {
    pub context: Arc<SimContext>,
    pub host: Person,
    pub group: Group,
}

impl Keeper {
    pub(super) async fn run(self) {
        let mut rng = self.context.dice();
        while self.context.is_busy() {
            self.context.pause(&mut rng, PAUSE_MS).await;
            match rng.random_range(0..100) {
                0..12 => self.blink(&mut rng).await,
                12..18 => self.remove(&mut rng).await,
                18..38 => self.add(&mut rng).await,
                38..52 => self.join(&mut rng).await,
                52..66 => self.leave(&mut rng).await,
                66..80 => self.set_role(&mut rng).await,
                80..84 => self.hand_over(&mut rng).await,
                84..90 => self.ban(&mut rng).await,
                90..95 => self.silence(&mut rng).await,
                _ => self.change(&mut rng).await,
            }
        }
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/v1/chats/{}/{rest}", self.group.chat_id)
    }

    /// The host application, or somebody who may have the right, or not.
    fn any_actor(&self, rng: &mut StdRng) -> Person {
        match rng.random_range(0..10) {
            0..6 => self.host.clone(),
            // Always in, and often with rights.
            6..8 => self.group.pool[0].clone(),
            _ => self.any_person(rng),
        }
    }

    fn any_person(&self, rng: &mut StdRng) -> Person {
        self.group.pool[rng.random_range(0..self.group.pool.len())].clone()
    }

    /// Somebody who may go.
    fn any_guest(&self, rng: &mut StdRng) -> Person {
        self.group.pool[rng.random_range(1..self.group.pool.len())].clone()
    }

    /// Makes a call that may be refused: others change the group at the same time. `None` where it was.
    async fn ask(
        &self,
        rng: &mut StdRng,
        actor: &Person,
        call: (Method, String),
        body: Option<Value>,
    ) -> Option<Answer> {
        let (method, path) = call;
        let what = format!("{method} {path}");
        let answer = self.context.call(rng, method, &path, actor, body.as_ref()).await?;
        match (answer.status, answer.code().as_str()) {
            (200..=204, _) => Some(answer),
            // The moment until which somebody was to be silenced passed on the way, or during the attempts.
            (422, "validation_failed") if answer.text().contains("in the future") => None,
            (403, "forbidden" | "banned")
            | (404, "chat_not_found" | "member_not_found")
            | (409, "chat_full") => {
                tick(&self.context.figures.refusals);
                None
            }
            _ => {
                self.context.unexpected(&what, &answer);
                None
            }
        }
    }

    async fn add(&self, rng: &mut StdRng) {
        let count = rng.random_range(1..4);
        let users: Vec<String> =
            self.group.pool.choose_multiple(rng, count).map(|person| person.id.clone()).collect();
        let (actor, body) = (self.any_actor(rng), json!({ "user_ids": users }));
        let call = (Method::POST, self.path("members/"));
        if let Some(answer) = self.ask(rng, &actor, call, Some(body)).await {
            let listed = |name: &str| {
                let json: Value = answer.read().unwrap_or_default();
                json[name].as_array().map_or(0, Vec::len)
            };
            if listed("added") + listed("present") + listed("refused") != users.len() {
                self.context.unexpected("POST members/ (not everybody is in it)", &answer);
            }
            tick(&self.context.figures.joins);
        }
    }

    async fn join(&self, rng: &mut StdRng) {
        if !self.group.is_open {
            return self.add(rng).await;
        }
        let person = self.any_guest(rng);
        let call = (Method::POST, self.path("join/"));
        if self.ask(rng, &person, call, None).await.is_some() {
            tick(&self.context.figures.joins);
        }
    }

    async fn remove(&self, rng: &mut StdRng) {
        let (actor, guest) = (self.any_actor(rng), self.any_guest(rng));
        let call = (Method::DELETE, self.path(&format!("members/{}/", guest.id)));
        if self.ask(rng, &actor, call, None).await.is_some() {
            tick(&self.context.figures.exits);
        }
    }

    async fn leave(&self, rng: &mut StdRng) {
        let guest = self.any_guest(rng);
        let call = (Method::DELETE, self.path(&format!("members/{}/", guest.id)));
        if self.ask(rng, &guest, call, None).await.is_some() {
            tick(&self.context.figures.exits);
        }
    }

    /// Removes somebody and adds them again at once: nobody's copy may take the old membership for the new one.
    async fn blink(&self, rng: &mut StdRng) {
        let guest = self.any_guest(rng);
        // The inbox tells of this, and then waits before it tells of the next change.
        self.change(rng).await;
        let out = (Method::DELETE, self.path(&format!("members/{}/", guest.id)));
        if self.ask(rng, &self.host, out, None).await.is_none() {
            return;
        }
        tick(&self.context.figures.exits);
        self.context.pause(rng, BLINK_MS).await;
        let back = (Method::POST, self.path("members/"));
        let body = json!({ "user_ids": [guest.id] });
        if self.ask(rng, &self.host, back, Some(body)).await.is_some() {
            tick(&self.context.figures.joins);
        }
    }

    async fn set_role(&self, rng: &mut StdRng) {
        let role = if rng.random_bool(0.6) { "admin" } else { "member" };
        let (actor, person) = (self.any_actor(rng), self.any_person(rng));
        self.set(rng, &actor, &person, json!({ "role": role })).await;
    }

    async fn hand_over(&self, rng: &mut StdRng) {
        let (actor, person) = (self.any_actor(rng), self.any_person(rng));
        self.set(rng, &actor, &person, json!({ "role": "owner" })).await;
    }

    async fn silence(&self, rng: &mut StdRng) {
        let until = Timestamp::now().as_millisecond() + rng.random_range(500..SILENCE_MS);
        let until = Timestamp::from_millisecond(until).unwrap_or_default().to_string();
        let (actor, person) = (self.any_actor(rng), self.any_person(rng));
        self.set(rng, &actor, &person, json!({ "silenced_until": until })).await;
    }

    async fn set(&self, rng: &mut StdRng, actor: &Person, person: &Person, body: Value) {
        let call = (Method::PATCH, self.path(&format!("members/{}/", person.id)));
        if self.ask(rng, actor, call, Some(body)).await.is_some() {
            tick(&self.context.figures.rights);
        }
    }

    async fn change(&self, rng: &mut StdRng) {
        let actor = self.any_actor(rng);
        let body = if rng.random_bool(0.3) {
            let history = if rng.random_bool(0.5) { "all" } else { "joined" };
            json!({ "settings": { "history": history } })
        } else {
            json!({ "title": format!("title {:x}", rng.random::<u32>()) })
        };
        let call = (Method::PATCH, self.path(""));
        if self.ask(rng, &actor, call, Some(body)).await.is_some() {
            tick(&self.context.figures.rights);
        }
    }

    /// Bans somebody, expects them to be out at once on every replica, and lifts the ban.
    async fn ban(&self, rng: &mut StdRng) {
        let (actor, guest) = (self.any_actor(rng), self.any_guest(rng));
        let path = self.path(&format!("bans/{}/", guest.id));
        let body = json!({ "reason": "for a while" });
        if self.ask(rng, &actor, (Method::PUT, path.clone()), Some(body)).await.is_none() {
            return;
        }
        tick(&self.context.figures.exits);
        let doors = [
            (Method::GET, self.path(""), "chat_not_found"),
            (Method::GET, self.path("messages/"), "chat_not_found"),
            (Method::GET, self.path("members/"), "chat_not_found"),
            (
                Method::POST,
                self.path("join/"),
                if self.group.is_open { "banned" } else { "chat_not_found" },
            ),
        ];
        for replica in 0..self.context.replicas.len() {
            for (method, path, code) in &doors {
                let seen = self.context.once(replica, method, path, &guest, None).await;
                if let Some(answer) = seen.filter(|answer| answer.code() != *code) {
                    let (id, at) = (&guest.id, self.context.timeline.now());
                    let what = format!(
                        "{id} is banned, and replica {replica} answers {method} {path} ({at}): "
                    );
                    self.context.findings.add(Kind::Leak, what + &answer.text());
                }
            }
        }
        let lift = (Method::DELETE, path);
        self.ask(rng, &self.host, lift, None).await;
    }
}

/// Many users of one group, of whom one writes or reads at a time.
pub(super) async fn crowd(context: Arc<SimContext>, people: Vec<Person>, chat_id: ChatId) {
    let mut rng = context.dice();
    let writers = people.into_iter().map(|person| Writer::new(&context, person, vec![chat_id]));
    let mut writers: Vec<Writer> = writers.collect();
    while context.is_busy() && !writers.is_empty() {
        let writer = rng.random_range(0..writers.len());
        writers[writer].act(chat_id).await;
        context.pause(&mut rng, CROWD_MS).await;
    }
}

/// One user with two devices, who writes and reads at the same moment.
pub(super) async fn two_devices(context: Arc<SimContext>, person: Person, chat_id: ChatId) {
    let mut rng = context.dice();
    let mut devices = [(); 2].map(|()| Writer::new(&context, person.clone(), Vec::new()));
    while context.is_busy() {
        let [first, second] = &mut devices;
        tokio::join!(first.send(chat_id), async {
            context.pause(&mut rng, APART_MS).await;
            second.mark(chat_id).await;
        });
        context.pause(&mut rng, CROWD_MS).await;
    }
}
