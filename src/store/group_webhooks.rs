//! Messages of groups in the queue of events: one row for all members, which says how far they were told.

use std::time::Duration;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{
    Store, StoreError,
    rows::{epoch, user},
    webhooks::{Lane, Notice, Waiting, notice, notice_columns, wanted},
};
use crate::model::{ChatId, UserId};

/// How far a message of a group was told. Its members have their turn in the order of their ids.
#[derive(Debug)]
pub struct Fanout {
    pub(super) seq: i64,
    /// Everybody up to this member is done; at first nobody.
    pub after: Option<UserId>,
    /// Whose attempts have failed, and who is next unless they need no event any more.
    pub tried: Option<UserId>,
}

/// The next members of a group in order, who may have to be told of a message.
#[derive(Debug)]
pub struct Recipients {
    /// Those who are neither its sender nor have read it, and want to be notified.
    pub users: Vec<UserId>,
    /// The last member that was looked at.
    pub up_to: Option<UserId>,
    /// More members follow.
    pub more: bool,
}

/// How to move on with a message of a group.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// Everybody up to this member is done.
    Done(&'a UserId),
    /// This member is tried again after a pause; everybody up to the other is done.
    Retry(&'a UserId, Option<&'a UserId>, Duration, &'a str),
    /// Given up for this member, who gets a dead letter with this id.
    Dead(&'a UserId, Uuid, &'a str),
}

impl Store {
    /// Reads the next members of a group, up to `limit`, in the order of their ids.
    pub async fn list_webhook_recipients(
        &self,
        chat_id: ChatId,
        fanout: &Fanout,
        limit: i64,
    ) -> Result<Recipients, StoreError> {
        let after = fanout.after.as_ref().map_or("", UserId::as_str);
        let rows = self
            .query(
                LIST_WEBHOOK_RECIPIENTS,
                &[
                    (&chat_id, Type::UUID),
                    (&fanout.seq, Type::INT8),
                    (&after, Type::TEXT),
                    (&limit, Type::INT8),
                ],
            )
            .await?;
        let wanted = rows.iter().filter(|row| row.get("wanted"));
        Ok(Recipients {
            users: wanted.map(|row| user(row.get("user_id"))).collect(),
            up_to: rows.last().map(|row| user(row.get("user_id"))),
            more: i64::try_from(rows.len()).is_ok_and(|count| count >= limit),
        })
    }

    /// Reads what a member of a group is told of a message, as things are now; `None`: nothing.
    pub async fn get_webhook_notice(
        &self,
        chat_id: ChatId,
        fanout: &Fanout,
        recipient: &UserId,
    ) -> Result<Option<Notice>, StoreError> {
        let rows = self
            .query(
                GET_WEBHOOK_NOTICE,
                &[
                    (&chat_id, Type::UUID),
                    (&fanout.seq, Type::INT8),
                    (&recipient.as_str(), Type::TEXT),
                ],
            )
            .await?;
        Ok(rows.first().map(|row| notice(chat_id, row)))
    }

    /// Moves on with a message of a group, and keeps the lane for `lease`, but after a retry. False: somebody
    /// else has the lane by now, or the event is gone.
    pub async fn advance_webhook(
        &self,
        lane: &Lane,
        event: &Waiting,
        step: Step<'_>,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        let (outcome, after, recipient, event_id, pause, error) = match step {
            Step::Done(user) => ("next", Some(user), None, None, Duration::ZERO, None),
            Step::Retry(user, after, pause, error) => {
                ("retry", after, Some(user), None, pause, Some(error))
            }
            Step::Dead(user, event_id, error) => {
                ("dead", Some(user), Some(user), Some(event_id), Duration::ZERO, Some(error))
            }
        };
        let rows = self
            .query(
                ADVANCE_WEBHOOK,
                &[
                    (&lane.chat_id, Type::UUID),
                    (&lane.turn, Type::INT8),
                    (&event.webhook_id, Type::INT8),
                    (&outcome, Type::TEXT),
                    (&after.map_or("", UserId::as_str), Type::TEXT),
                    (&recipient.map(UserId::as_str), Type::TEXT),
                    (&event_id, Type::UUID),
                    (&pause.as_secs_f64(), Type::FLOAT8),
                    (&error, Type::TEXT),
                    (&lease.as_secs_f64(), Type::FLOAT8),
                    (&&*lane.epoch, Type::TEXT),
                ],
            )
            .await?;
        Ok(rows.first().is_some_and(|row| row.get("ours")))
    }
}

/// A page of members, those who need no event included, so that its cost has a bound. Who joined later was
/// not sent the message.
const LIST_WEBHOOK_RECIPIENTS: &str = concat!(
    "-- store.list_webhook_recipients
SELECT me.user_id, coalesce(me.left_ev IS NULL AND me.joined_seq < m.seq AND ",
    wanted!(),
    ", false) AS wanted
  FROM (SELECT c.chat_id, c.blocked, c.erased FROM chats c WHERE c.chat_id = $1 OFFSET 0) c
 CROSS JOIN LATERAL (SELECT m.seq, m.sender_id, m.mentions, m.deleted_at FROM messages m
                      WHERE m.chat_id = c.chat_id AND m.seq = $2 OFFSET 0) m
 CROSS JOIN LATERAL (SELECT * FROM members m WHERE m.chat_id = c.chat_id AND m.user_id > $3
                      ORDER BY m.chat_id, m.user_id LIMIT $4) me"
);

const GET_WEBHOOK_NOTICE: &str = concat!(
    "-- store.get_webhook_notice
SELECT me.user_id AS recipient_id, ",
    notice_columns!(),
    "
  FROM (SELECT * FROM chats c WHERE c.chat_id = $1 OFFSET 0) c
 CROSS JOIN LATERAL (SELECT g.title FROM groups g WHERE g.chat_id = c.chat_id OFFSET 0) g
 CROSS JOIN LATERAL (SELECT * FROM members m
                      WHERE m.chat_id = c.chat_id AND m.user_id = $3
                        AND coalesce(m.left_ev, 0) = 0 OFFSET 0) me
 CROSS JOIN LATERAL (SELECT * FROM messages m
                      WHERE m.chat_id = c.chat_id AND m.seq = $2 OFFSET 0) m
 WHERE me.joined_seq < m.seq AND ",
    wanted!()
);

const ADVANCE_WEBHOOK: &str = concat!(
    "-- store.advance_webhook
SELECT advance_webhook($1, $2, $3, $4, $5, $6, $7, $8 * interval '1 second', $9,
                       $10 * interval '1 second') AS ours
 WHERE $11 = ",
    epoch!()
);
