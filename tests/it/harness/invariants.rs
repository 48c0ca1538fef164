//! Invariants that hold whenever all is quiet.

use std::collections::HashMap;

use beseda::store::verify;

use super::{cluster::Cluster, eventually, postgres::Row};

/// What Redis has to say of each member of a direct chat, if it says anything: as [`beseda`] writes it.
const EXPECTED: &str = "
SELECT m.user_id, m.chat_id,
       concat_ws('|', s.last_ev + s.rev, s.unread, s.last_seq, s.read_seq,
                 (extract(epoch FROM s.activity) * 1000000)::bigint, s.mentions,
                 left(s.notify, 1) || CASE WHEN s.archived THEN 'A' ELSE '' END, s.room_name)
  FROM members m JOIN chats c ON c.chat_id = m.chat_id
 CROSS JOIN LATERAL member_states(ARRAY[m.chat_id], ARRAY[m.user_id]) s
 WHERE c.kind = 'direct'";

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

/// Every counter of the current epoch in Redis equals Postgres's; a hash marked complete has all of
/// them.
async fn compare_with_redis(cluster: &Cluster) -> Result<(), String> {
    let mut expected: HashMap<String, HashMap<String, String>> = HashMap::new();
    for row in cluster.psql(EXPECTED).await {
        let [user, chat, value] = <[_; 3]>::try_from(row)
            .map_err(|row: Row| format!("three columns, not {row:?}"))?
            .map(Option::unwrap_or_default);
        expected.entry(user).or_default().insert(chat, value);
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
        for (field, value) in &hash {
            let is_chat = field.len() == 36;
            if is_chat && !value.starts_with("gone|") && chats.get(field) != Some(value) {
                let in_postgres = chats.get(field);
                return Err(format!("{key} {field}: {value}, in Postgres {in_postgres:?}"));
            }
        }
        if hash.contains_key("complete") {
            let missing = chats.keys().find(|chat| !hash.contains_key(*chat));
            if let Some(missing) = missing {
                return Err(format!("{key} is complete without {missing}: {hash:?}"));
            }
        }
    }
    Ok(())
}
