//! Groups that are created, used and ended: their owner deletes them, or everybody leaves.

use std::sync::Arc;

use rand::{Rng, rngs::StdRng};
use reqwest::Method;

use super::{
    context::{Person, SimContext},
    findings::{Kind, tick},
    groups::{Group, Plan, create},
    history::Deletion,
    writers::Writer,
};

/// Creates groups, uses them, and ends them: the owner deletes them, or everybody leaves.
pub(super) async fn make_groups(context: Arc<SimContext>, pool: Vec<Person>) {
    const PLAN: Plan = Plan { title: "brief", members: 3, history: "all", join: "invite" };
    let mut rng = context.dice();
    while context.is_busy() {
        let Some(group) = create(&context, &mut rng, &pool[..PLAN.members], PLAN).await else {
            context.pause(&mut rng, 100..500).await;
            continue;
        };
        for person in &group.pool {
            let mut writer = Writer::new(&context, person.clone(), Vec::new());
            writer.send(group.chat_id).await;
            writer.mark(group.chat_id).await;
        }
        context.pause(&mut rng, 500..3_000).await;
        if !context.is_busy() {
            break;
        }
        end(&context, &mut rng, &group).await;
        context.pause(&mut rng, 100..1_500).await;
    }
}

async fn end(context: &SimContext, rng: &mut StdRng, group: &Group) {
    let chat_id = group.chat_id;
    context.history.chat_deletion(chat_id, Deletion::Tried);
    let path = format!("/api/v1/chats/{chat_id}/");
    let calls: Vec<(&Person, String)> = if rng.random_bool(0.5) {
        vec![(&group.pool[0], path.clone())]
    } else {
        // The owner first, so that the group is handed over.
        let leave = |person: &Person| format!("{path}members/{}/", person.id);
        group.pool.iter().map(|person| (person, leave(person))).collect()
    };
    for (person, call) in calls {
        let Some(answer) = context.call(rng, Method::DELETE, &call, person, None).await else {
            return;
        };
        match answer.status {
            204 => {}
            404 if answer.loose => {}
            _ => return context.unexpected("the end of a group", &answer),
        }
    }
    context.history.chat_deletion(chat_id, Deletion::Acknowledged);
    tick(&context.figures.chats_deleted);
    for replica in 0..context.replicas.len() {
        for person in &group.pool {
            let seen = context.once(replica, &Method::GET, &path, person, None).await;
            if let Some(answer) = seen.filter(|answer| answer.status != 404) {
                let what = format!("{chat_id} is deleted, and replica {replica} shows it: ");
                context.findings.add(Kind::State, what + &answer.text());
            }
        }
    }
}
