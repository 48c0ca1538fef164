//! A usual message, as most are: alone in its batch, from a member whom nothing keeps from writing, and
//! mentioning nobody, without attachments. One plain statement writes it, at two thirds of what `send_messages` costs Postgres.

use tokio_postgres::types::{Json, Type};

use super::{
    Param, SentBatch, Store, StoreError,
    member_state::Told,
    messages::{Draft, created},
    rows::{chat_kind, epoch, epoch_of},
};
use crate::model::{ChatKind, Mentions};

impl Store {
    /// Writes a message and returns what `send_messages` would. `None`: it is no usual one; nothing was
    /// written, and `send_messages` judges it.
    pub(super) async fn send_usual(&self, draft: &Draft) -> Result<Option<SentBatch>, StoreError> {
        // Without its start-up options a connection might plan the statement in another way.
        let may_be = self.prepared
            && self.webhook_delay.is_none()
            && draft.mentions.is_none()
            && draft.attachments.is_empty();
        if !may_be {
            return Ok(None);
        }
        let (sender, text) = (draft.sender_id.as_str(), draft.text.as_str());
        let (key, digest) = (draft.client_msg_id.as_deref(), draft.digest.as_deref());
        let metadata = draft.metadata.as_ref().map(Json);
        let params: [Param<'_>; 8] = [
            (&draft.chat_id, Type::UUID),
            (&sender, Type::TEXT),
            (&draft.message_id, Type::UUID),
            (&key, Type::TEXT),
            (&digest, Type::BYTEA),
            (&text, Type::TEXT),
            (&metadata, Type::JSON),
            (&draft.reply_to, Type::UUID),
        ];
        let rows = match self.run(&self.writes, SEND_USUAL, &params).await {
            Ok(rows) => rows,
            // Somebody else wrote the same message, or the sender left, while this waited for the chat.
            Err(StoreError::Data(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(row) = rows.first() else { return Ok(None) };
        let epoch = epoch_of(row);
        let mut states = Vec::with_capacity(2);
        if Told::is_on(row) {
            states.extend(Told::by_message(row, draft, &epoch).states());
        } else {
            match chat_kind(row.get("kind")) {
                ChatKind::Direct => {
                    self.complete_states(&mut states, [draft.chat_id].into()).await?;
                }
                ChatKind::Group => {
                    let sender = (draft.chat_id, draft.sender_id.clone());
                    self.complete_members(&mut states, [sender].into()).await?;
                }
            }
        }
        let outcome = created(draft, row, &epoch, Mentions::default(), Vec::new());
        Ok(Some(SentBatch { outcomes: vec![outcome], states, epoch }))
    }
}

/// Locks and looks in one statement, whose snapshot may be older than the lock. So nothing that it looks up may
/// have changed while it waited: the numbers and the sender's row are those that it updates, which are the
/// latest; the other member's row is locked, and so read again; a retry of a message that was just written
/// breaks the index of ids; and a sender who has just left leaves a message without a number, which the table
/// refuses. What must be counted in other tables (tombstones and mentions that somebody has not read) is not:
/// without `room_name` no states are told.
const SEND_USUAL: &str = concat!(
    "-- store.send_usual
WITH c AS (
    UPDATE chats c
       SET last_seq = c.last_seq + 1, last_ev = c.last_ev + 1, last_counted = c.last_counted + 1,
           last_message_at = greatest(now(), c.last_message_at),
           active_at = greatest(now(), c.last_message_at)
      FROM members me
     WHERE me.chat_id = $1 AND me.user_id = $2 AND coalesce(me.left_ev, 0) = 0 AND me.silenced_until IS NULL
       AND c.chat_id = $1 AND NOT c.blocked AND NOT c.erased AND NOT c.admins_post AND c.slow_mode_s = 0
       AND ($4 IS NULL OR NOT EXISTS (SELECT FROM message_by_id($1, $3)))
       AND ($8 IS NULL OR EXISTS (SELECT FROM message_by_id($1, $8) q WHERE q.seq >= me.first_seq))
    RETURNING c.chat_id, c.kind, c.room_name, c.last_seq, c.last_ev, c.last_counted, c.last_message_at,
              c.recount_ev, greatest(c.last_dead_seq, c.all_mention_seq) AS exception_seq
), me AS (
    -- Whoever has nothing to read still has nothing after a message of their own. By $1, not by what c returns:
    -- a plan made on a small table might join the other way round, and read all rows of the sender.
    UPDATE members m
       SET floor_seq = CASE WHEN m.floor_counted = c.last_counted - 1 THEN c.last_seq ELSE m.floor_seq END,
           floor_counted =
               CASE WHEN m.floor_counted = c.last_counted - 1 THEN c.last_counted ELSE m.floor_counted END,
           own_after = CASE WHEN m.floor_counted = c.last_counted - 1 THEN 0 ELSE m.own_after + 1 END,
           rev = m.rev + 1, last_sent_at = NULL
      FROM c
     WHERE m.chat_id = $1 AND m.user_id = $2 AND coalesce(m.left_ev, 0) = 0
       AND m.silenced_until IS NULL
    RETURNING m.rev, m.read_seq, m.floor_seq, c.last_counted - m.floor_counted - m.own_after AS unread,
              greatest(m.mention_seq, c.exception_seq) <= m.floor_seq AS is_plain,
              member_flags(m.notify, m.archived, m.pinned) AS flags
), said AS (
    INSERT INTO messages (chat_id, seq, message_id, ev, counted, sender_id, client_msg_id, content_digest,
                          text, metadata, reply_seq, created_at)
    SELECT c.chat_id, CASE WHEN me.rev IS NOT NULL THEN c.last_seq END, $3, c.last_ev, c.last_counted, $2,
           $4, $5, $6, $7, CASE WHEN $8 IS NOT NULL THEN (SELECT q.seq FROM message_by_id($1, $8) q) END,
           c.last_message_at
      FROM c LEFT JOIN me ON true
), noted AS (
    INSERT INTO outbox AS o (chats, of_chats, of_users)
    SELECT ARRAY[c.chat_id], CASE c.kind WHEN 'group' THEN ARRAY[c.chat_id] ELSE '{}' END,
           CASE c.kind WHEN 'group' THEN ARRAY[$2] ELSE '{}' END
      FROM c RETURNING o.outbox_id
)
SELECT CASE c.kind WHEN 'direct' THEN 'direct' WHEN 'group' THEN 'group' END AS kind, c.last_seq AS seq,
       c.last_ev AS ev,
       CASE WHEN $8 IS NOT NULL THEN (SELECT quote_json(ROW(q.*)::messages) FROM message_by_id($1, $8) q) END
           AS reply_to,
       c.last_message_at AS created_at, noted.outbox_id,
       c.last_seq, c.last_ev, c.last_counted AS counted, c.recount_ev,
       CASE WHEN me.is_plain AND (c.kind = 'group' OR peer.is_plain) THEN c.room_name END AS room_name,
       me.rev, me.read_seq, me.unread, 0::bigint AS unread_mentions, me.flags,
       peer.user_id AS peer_id, peer.rev AS peer_rev, peer.read_seq AS peer_read_seq, peer.unread AS peer_unread,
       0::bigint AS peer_mentions, peer.flags AS peer_flags, ",
    epoch!(),
    "
  FROM c CROSS JOIN me CROSS JOIN noted
  LEFT JOIN LATERAL (
      SELECT m.user_id, m.rev, m.read_seq, c.last_counted - m.floor_counted - m.own_after AS unread,
             greatest(m.mention_seq, c.exception_seq) <= m.floor_seq AS is_plain,
             member_flags(m.notify, m.archived, m.pinned) AS flags
        FROM members m
       WHERE m.chat_id = CASE c.kind WHEN 'direct' THEN c.chat_id END AND m.user_id <> $2
         FOR NO KEY UPDATE) peer ON true"
);
