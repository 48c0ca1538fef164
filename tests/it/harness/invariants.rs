//! Invariants that hold whenever all is quiet.

use std::collections::HashMap;

use beseda::store::verify;

use super::{cluster::Cluster, eventually, postgres::Row, redis::Redis};

/// What Redis has to say of each member, if it says anything, as [`beseda`] writes it: the chat's kind, the
/// version of a direct chat's member or the `rev` of a group's, and the rest.
const EXPECTED: &str = "
SELECT m.user_id, m.chat_id, c.kind::text,
       (CASE c.kind WHEN 'direct' THEN s.last_ev ELSE 0 END + s.rev)::text,
       concat_ws('|', s.unread, s.last_seq, s.read_seq, (extract(epoch FROM s.activity) * 1000000)::bigint,
                 s.mentions, coalesce(s.flags, 'a'), s.room_name)
  FROM members m JOIN chats c ON c.chat_id = m.chat_id
 CROSS JOIN LATERAL member_states(ARRAY[m.chat_id], ARRAY[m.user_id]) s
 WHERE m.left_ev IS NULL";

/// A member's state by Postgres.
struct Expected {
    is_group: bool,
    version: String,
    rest: String,
}

pub(super) async fn check(cluster: &Cluster) {
    eventually(async || {
        let left = cluster.psql("SELECT outbox_id, chats, of_users FROM outbox").await;
        if left.is_empty() { Ok(()) } else { Err(format!("left in the outbox: {left:?}")) }
    })
    .await;
    let verified = verify(cluster.database_config()).await.expect("the database can be looked at");
    assert!(verified.findings.is_empty(), "{verified}");
    eventually(async || {
        let followed: usize = cluster.followers();
        if followed == 0 { Ok(()) } else { Err(format!("the hubs still have {followed} sockets")) }
    })
    .await;
    eventually(async || compare_with_redis(cluster).await).await;
}

/// Every counter of the current epoch in Redis equals Postgres's, those of groups with what their heads say;
/// a hash marked complete has all of them.
async fn compare_with_redis(cluster: &Cluster) -> Result<(), String> {
    let mut expected: HashMap<String, HashMap<String, Expected>> = HashMap::new();
    for row in cluster.psql(EXPECTED).await {
        let [user, chat, kind, version, rest] = <[_; 5]>::try_from(row)
            .map_err(|row: Row| format!("five columns, not {row:?}"))?
            .map(Option::unwrap_or_default);
        let is_group = kind == "group";
        let field = if is_group { format!("{}head:{chat}", cluster.redis_prefix()) } else { chat };
        let state = Expected { is_group, version, rest };
        expected.entry(user).or_default().insert(field, state);
    }
    let epoch: String = cluster.psql_value("SELECT epoch()").await;
    let mut redis = cluster.redis().await;
    for key in redis.keys().await {
        let Some(user) = key.strip_prefix("unread:") else { continue };
        let hash = redis.hash(&key).await;
        // A hash of another epoch is ignored, and filled anew when it is read.
        if hash.get("epoch").is_some_and(|of| *of != epoch) {
            continue;
        }
        let chats = expected.remove(user).unwrap_or_default();
        let is_complete = hash.contains_key("complete");
        for (field, value) in &hash {
            // The hash's own fields have shorter names.
            if field.len() < 36 || value.starts_with("gone|") {
                continue;
            }
            let state = chats.get(field);
            let as_expected = match state {
                // Of a group that was deleted, or left by a way that Redis did not hear of, Postgres is
                // asked; but who is out is not in.
                _ if value.contains("|out|") => state.is_none(),
                None => field.len() > 36,
                Some(state) if state.is_group && !is_complete => true,
                Some(state) if state.is_group => {
                    let head = head(&mut redis, &hash, &field[field.len() - 36..], &epoch).await;
                    at_head(value, head.as_deref())
                        .is_none_or(|value| value == (state.version.clone(), state.rest.clone()))
                }
                Some(state) => *value == format!("{}|{}", state.version, state.rest),
            };
            if !as_expected {
                let by_postgres = state.map(|state| (&state.version, &state.rest));
                return Err(format!("{key} {field}: {value}, in Postgres {by_postgres:?}"));
            }
        }
        if is_complete {
            let missing = chats.keys().find(|chat| !hash.contains_key(*chat));
            if let Some(missing) = missing {
                return Err(format!("{key} is complete without {missing}: {hash:?}"));
            }
        }
    }
    Ok(())
}

/// Where a group stands by Redis: `ev|counted|last_seq|activity|recount_ev`, if readers of the hash believe
/// it.
async fn head(
    redis: &mut Redis,
    hash: &HashMap<String, String>,
    chat: &str,
    epoch: &str,
) -> Option<String> {
    let head = redis.get(&format!("head:{chat}")).await?;
    let generation = hash.get("generation")?;
    head.strip_prefix(&format!("{epoch}|{generation}|")).map(str::to_owned)
}

/// A group's value brought up to date: the member's `rev`, and what comes behind. `None`: readers ask
/// Postgres.
fn at_head(value: &str, head: Option<&str>) -> Option<(String, String)> {
    let numbers =
        |text: &str| -> Vec<i64> { text.split('|').map_while(|n| n.parse().ok()).collect() };
    let [rev, ev, counted, unread, last_seq, read_seq, activity, mentions] =
        <[i64; 8]>::try_from(numbers(value)).expect("the value of a group");
    let [head_ev, head_counted, head_seq, head_activity, recount_ev] =
        <[i64; 5]>::try_from(numbers(head?)).ok()?;
    if recount_ev > ev && head_ev > ev {
        return None;
    }
    let (unread, last_seq, activity) = if head_ev > ev {
        (unread + head_counted - counted, head_seq, head_activity)
    } else {
        (unread, last_seq, activity)
    };
    let flags_and_name = value.splitn(9, '|').nth(8).unwrap_or_default();
    let rest = format!("{unread}|{last_seq}|{read_seq}|{activity}|{mentions}|{flags_and_name}");
    Some((rev.to_string(), rest))
}
