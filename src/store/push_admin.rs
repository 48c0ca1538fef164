//! What operators see and do of pushes: those that were given up, and a test of one device.

use tokio_postgres::types::Type;

use super::{
    StoreError,
    connect::connect,
    devices::{PushAddress, address, platform},
    push::badge,
    row::{Row, rows_of},
    rows::{time, user},
};
use crate::{
    config::DatabaseConfig,
    model::{ChatId, PushPlatform, Time, UserId},
};

/// A push that was given up.
#[derive(Debug, Clone)]
pub struct DeadPush {
    pub push_id: i64,
    pub user_id: UserId,
    pub device_id: String,
    pub platform: PushPlatform,
    pub chat_id: ChatId,
    pub dead_at: Time,
    pub last_error: String,
}

/// What becomes of pushes that were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadPushFate {
    Replayed,
    Discarded,
}

/// A device that a test is sent to.
#[derive(Debug)]
pub struct FoundDevice {
    pub platform: PushPlatform,
    pub address: PushAddress,
    pub badge: i64,
}

/// Lists up to `limit` pushes that were given up, latest first, and returns the number of all.
pub async fn dead_pushes(
    config: &DatabaseConfig,
    limit: i64,
) -> Result<(Vec<DeadPush>, i64), StoreError> {
    let client = connect(config).await?;
    let rows = rows_of(client.query_typed(DEAD_PUSHES, &[(&limit, Type::INT8)]).await?);
    let push = |row: &Row| DeadPush {
        push_id: row.get("push_id"),
        user_id: user(row.get("user_id")),
        device_id: row.get("device_id"),
        platform: platform(row.get("platform")),
        chat_id: row.get("chat_id"),
        dead_at: time(row, "dead_at"),
        last_error: row.get("last_error"),
    };
    Ok((rows.iter().map(push).collect(), rows.first().map_or(0, |row| row.get("total"))))
}

/// Pushes per statement.
const STEP: i64 = 1_000;

/// Has one push that was given up, or all (`None`), sent again as if new, or discards them; returns how many.
pub async fn end_dead_pushes(
    config: &DatabaseConfig,
    push_id: Option<i64>,
    fate: DeadPushFate,
) -> Result<i64, StoreError> {
    let client = connect(config).await?;
    let (mut ended, mut after) = (0, 0_i64);
    loop {
        let row = client
            .query_typed_one(
                END_DEAD,
                &[
                    (&push_id, Type::INT8),
                    (&after, Type::INT8),
                    (&STEP, Type::INT8),
                    (&(fate == DeadPushFate::Replayed), Type::BOOL),
                ],
            )
            .await?;
        ended += row.get::<_, i64>("ended");
        let Some(up_to) = row.get("up_to") else { return Ok(ended) };
        after = up_to;
    }
}

/// Finds the devices with an id, of one user or of all.
pub async fn find_devices(
    config: &DatabaseConfig,
    device_id: &str,
    user: Option<&UserId>,
) -> Result<Vec<FoundDevice>, StoreError> {
    let client = connect(config).await?;
    let user = user.map(UserId::as_str);
    let params = [(&device_id as _, Type::TEXT), (&user as _, Type::TEXT)];
    let rows = rows_of(client.query_typed(FIND_DEVICES, &params).await?);
    let found = |row: &Row| FoundDevice {
        platform: platform(row.get("platform")),
        address: address(row),
        badge: row.get("badge"),
    };
    Ok(rows.iter().map(found).collect())
}

const DEAD_PUSHES: &str = "\
-- store.dead_pushes
SELECT k.push_id, k.user_id, k.device_id, d.platform::text, k.chat_id, k.dead_at,
       coalesce(k.last_error, '') AS last_error, count(*) OVER () AS total
  FROM push_marks k JOIN devices d ON d.user_id = k.user_id AND d.device_id = k.device_id
 WHERE k.dead_at IS NOT NULL ORDER BY k.dead_at DESC, k.push_id DESC LIMIT $1";

const END_DEAD: &str = "\
-- store.end_dead_pushes
SELECT ended, up_to FROM end_dead_pushes($1, $2, $3, $4)";

const FIND_DEVICES: &str = concat!(
    "-- store.find_devices
SELECT d.platform::text, d.token, d.p256dh, d.auth, d.token_key, b.badge
  FROM devices d CROSS JOIN LATERAL ",
    badge!("d.user_id"),
    " b
 WHERE d.device_id = $1 AND ($2 IS NULL OR d.user_id = $2)"
);
