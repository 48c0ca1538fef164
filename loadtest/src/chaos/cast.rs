//! All clients of a run: members of lasting chats and groups, their sockets, and whoever opens, deletes,
//! changes and probes.

use std::sync::{Arc, Mutex};

use beseda::model::ChatId;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::{
    chat_churn,
    context::{Person, SimContext},
    counters,
    follower::Follower,
    group_churn,
    groups::{self, Group, Keeper, Plan},
    list::{Inbox, List},
    many,
    stack::{RECEIPT_MEMBERS, Stack},
    writers::Writer,
};
use crate::error::Error;

/// Users who open and delete chats in pairs, and users who are members of no chat.
const CHURNERS: usize = 6;
const STRANGERS: usize = 2;

/// Number of users who also keep an inbox socket: members, churners, a guest.
const INBOXES: usize = 5;

/// Users of the large group only.
const GUESTS: usize = 32;

/// Of these, who write and read the large group at the same time.
const TWO_DEVICES: usize = 4;

/// Followers of the large group with a socket of their own.
const LARGE_FOLLOWERS: usize = 12;

/// The groups: small ones with receipts, one that outgrows them, and ones that never had any.
const PLANS: [(Plan, usize); 4] = [
    (Plan { title: "small", members: 4, history: "all", join: "open" }, RECEIPT_MEMBERS),
    (Plan { title: "private", members: 5, history: "joined", join: "invite" }, RECEIPT_MEMBERS),
    (Plan { title: "growing", members: 3, history: "all", join: "open" }, RECEIPT_MEMBERS + 1),
    (Plan { title: "silent", members: 7, history: "joined", join: "open" }, RECEIPT_MEMBERS + 1),
];
const LARGE: Plan = Plan { title: "large", members: 36, history: "all", join: "open" };

/// Number of tasks that compare counters during the run.
const WATCHERS: usize = 2;

/// All clients of a run.
pub(super) struct Cast {
    pub people: Vec<Person>,
    pub inboxes: Vec<Arc<Inbox>>,
    tasks: JoinSet<()>,
}

impl Cast {
    /// Opens the permanent chats, and starts all clients.
    pub(super) async fn gather(
        context: &Arc<SimContext>,
        stack: &Arc<Stack>,
        count: usize,
    ) -> Result<Self, Error> {
        let named = |prefix: &str, count: usize| -> Result<Vec<Person>, Error> {
            (0..count).map(|number| context.person(&format!("{prefix}-{number}"))).collect()
        };
        let members = named("member", count)?;
        let (churners, strangers) = (named("churner", CHURNERS)?, named("stranger", STRANGERS)?);
        let guests = named("guest", GUESTS)?;
        let everybody: Vec<&Person> = members.iter().chain(&churners).chain(&guests).collect();
        context.set_everybody(&everybody);
        let mut cast = Self { people: Vec::new(), inboxes: Vec::new(), tasks: JoinSet::new() };
        let mut chats: Vec<Vec<ChatId>> = vec![Vec::new(); count];
        let mut rng = context.dice();
        for step in 1..=3 {
            for first in 0..count {
                let second = (first + step) % count;
                let pair = [&members[first], &members[second]];
                let Some(chat_id) = chat_churn::open(context, &mut rng, pair).await else {
                    continue;
                };
                for number in [first, second] {
                    chats[number].push(chat_id);
                    cast.follow(context, &members[number], chat_id);
                }
            }
        }
        for (number, chat_id) in cast.make_groups(context, &mut rng, &members, &guests).await? {
            if let Some(chats) = chats.get_mut(number) {
                chats.push(chat_id);
            }
        }
        for (number, mut chats) in chats.into_iter().enumerate() {
            // Everybody prefers another one.
            let most = chats.len().max(1);
            chats.rotate_left(number * 2 % most);
            cast.tasks.spawn(Writer::new(context, members[number].clone(), chats).run());
        }
        // Users whose chats are opened and deleted have inbox sockets too.
        let inboxes = members.iter().take(INBOXES / 2).chain(churners.iter().take(INBOXES / 2));
        for person in inboxes.chain(guests.iter().take(INBOXES % 2)) {
            let (person, list) = (person.clone(), Mutex::new(List::default()));
            let inbox = Arc::new(Inbox { person, list });
            cast.inboxes.push(Arc::clone(&inbox));
            cast.tasks.spawn(many::run(Arc::clone(context), inbox));
        }
        for pair in churners.chunks_exact(2) {
            let pair = [pair[0].clone(), pair[1].clone()];
            cast.tasks.spawn(chat_churn::make_chats(Arc::clone(context), pair));
        }
        let brief = [&churners[0], &members[0], &churners[3]].map(Person::clone).to_vec();
        cast.tasks.spawn(group_churn::make_groups(Arc::clone(context), brief));
        for person in strangers.iter().chain(&members[..1]) {
            cast.tasks.spawn(chat_churn::probe(Arc::clone(context), person.clone()));
        }
        let people = members.into_iter().chain(churners).chain(strangers).chain(guests);
        cast.people = people.collect();
        for _ in 0..WATCHERS {
            let (context, stack) = (Arc::clone(context), Arc::clone(stack));
            cast.tasks.spawn(counters::watch(context, stack, cast.people.clone()));
        }
        Ok(cast)
    }

    /// Opens the groups, with followers and whoever changes them. Returns which members write where.
    async fn make_groups(
        &mut self,
        context: &Arc<SimContext>,
        rng: &mut StdRng,
        members: &[Person],
        guests: &[Person],
    ) -> Result<Vec<(usize, ChatId)>, Error> {
        let mut writers = Vec::new();
        for (number, (plan, size)) in PLANS.into_iter().enumerate() {
            // Each group begins with another member.
            let indexes: Vec<usize> = (0..size).map(|n| (n + number) % members.len()).collect();
            let pool: Vec<Person> = indexes.iter().map(|n| members[*n].clone()).collect();
            let Some(group) = groups::create(context, rng, &pool, plan).await else { continue };
            pool.iter().for_each(|person| self.follow(context, person, group.chat_id));
            writers.extend(indexes.iter().map(|n| (*n, group.chat_id)));
            self.keep(context, group)?;
        }
        let pool: Vec<Person> = members.iter().chain(guests).cloned().collect();
        if let Some(group) = groups::create(context, rng, &pool, LARGE).await {
            let followers = pool.iter().take(LARGE_FOLLOWERS);
            followers.for_each(|person| self.follow(context, person, group.chat_id));
            writers.extend((0..members.len()).map(|n| (n, group.chat_id)));
            for person in guests.iter().take(TWO_DEVICES) {
                let (context, person) = (Arc::clone(context), person.clone());
                self.tasks.spawn(groups::two_devices(context, person, group.chat_id));
            }
            self.tasks.spawn(groups::crowd(
                Arc::clone(context),
                guests[TWO_DEVICES..].to_vec(),
                group.chat_id,
            ));
            self.keep(context, group)?;
        }
        Ok(writers)
    }

    fn follow(&mut self, context: &Arc<SimContext>, person: &Person, chat_id: ChatId) {
        if let Some(follower) = Follower::new(context, person, chat_id) {
            self.tasks.spawn(follower.run());
        }
    }

    fn keep(&mut self, context: &Arc<SimContext>, group: Group) -> Result<(), Error> {
        let host = context.host(&format!("host of {}", group.chat_id))?;
        self.tasks.spawn(Keeper { context: Arc::clone(context), host, group }.run());
        Ok(())
    }

    /// Waits for all clients; a panic of one is a fault of this program and ends the run.
    pub(super) async fn end(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}
