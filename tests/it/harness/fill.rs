//! SQL that writes rows as the program would have: more of them than a test could send.

/// `count` messages of `sender` after a chat's head. `text` is an SQL expression over `n`, from 1 to `count`.
pub(crate) fn messages(chat: &str, sender: &str, count: i64, text: &str) -> String {
    format!(
        "INSERT INTO messages (chat_id, seq, message_id, ev, counted, sender_id, text, created_at)
         SELECT c.chat_id, c.last_seq + n, gen_random_uuid(), c.last_ev + n, c.last_counted + n,
                '{sender}', {text}, now()
           FROM chats c, generate_series(1, {count}) n WHERE c.chat_id = '{chat}';
         UPDATE members SET own_after = own_after + {count}
          WHERE chat_id = '{chat}' AND user_id = '{sender}';
         UPDATE chats SET last_seq = last_seq + {count}, last_ev = last_ev + {count},
                          last_counted = last_counted + {count}, last_message_at = now(), active_at = now()
          WHERE chat_id = '{chat}'"
    )
}

/// `count` direct chats opened by `created_by`, each with `sent` messages of its first member. `first` and
/// `second` are SQL expressions over `n`, from 1 to `count`, that give the members.
pub(crate) fn direct_chats(
    created_by: &str,
    count: i64,
    first: &str,
    second: &str,
    sent: i64,
) -> String {
    format!(
        "WITH these AS MATERIALIZED (
             SELECT n, gen_random_uuid() AS chat_id, left(replace(gen_random_uuid()::text, '-', ''), 22) AS name,
                    ({first})::text COLLATE \"C\" AS a, ({second})::text COLLATE \"C\" AS b
               FROM generate_series(1, {count}) n
         ), made AS (
             INSERT INTO chats (chat_id, kind, room_name, created_by, last_seq, last_ev, last_counted,
                                last_message_at, member_count)
             SELECT chat_id, 'direct', name, '{created_by}', {sent}, {sent}, {sent},
                    CASE WHEN {sent} > 0 THEN now() END, 2 FROM these
         ), paired AS (
             INSERT INTO pairs (user_lo, user_hi, chat_id)
             SELECT least(a, b), greatest(a, b), chat_id FROM these
         ), named AS (
             INSERT INTO chat_names (room_name, chat_id) SELECT name, chat_id FROM these
         ), joined AS (
             INSERT INTO members (chat_id, user_id, own_after)
             SELECT chat_id, a, {sent} FROM these UNION ALL SELECT chat_id, b, 0 FROM these
         )
         INSERT INTO messages (chat_id, seq, message_id, ev, counted, sender_id, text, created_at)
         SELECT chat_id, s, gen_random_uuid(), s, s, a, repeat('x', 50), now()
           FROM these, generate_series(1, {sent}) s"
    )
}

/// Takes away what [`direct_chats`] has written.
pub(crate) fn without_chats_of(created_by: &str) -> String {
    let theirs = format!("(SELECT chat_id FROM chats WHERE created_by = '{created_by}')");
    let tables = ["messages", "members", "pairs", "chat_names", "chats"];
    tables.map(|table| format!("DELETE FROM {table} WHERE chat_id IN {theirs}")).join(";\n")
}
