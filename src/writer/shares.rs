//! Which of the waiting items a batch takes.

use std::{collections::HashMap, hash::Hash};

use crate::model::ChatId;

/// Maximum waiting items of one key, of which a batch takes only one, and of one chat beyond its share of
/// a batch: otherwise a script that edits thousands of messages of one chat would fill the queue.
pub(super) const QUEUE_OF_ONE: usize = 256;

/// What becomes of a waiting item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    InBatch,
    /// It waits for a later batch.
    Later,
    Refused,
}

/// How many items of each key and of each chat were looked at for a batch.
pub(super) struct Shares<K> {
    of_chat: usize,
    keys: HashMap<K, usize>,
    chats: HashMap<ChatId, usize>,
}

impl<K: Eq + Hash> Shares<K> {
    /// `of_chat`: how many items of one chat a batch takes.
    pub(super) fn new(of_chat: usize) -> Self {
        Self { of_chat, keys: HashMap::new(), chats: HashMap::new() }
    }

    /// Judges the next item. Items of one chat keep their order, unless their keys are the same as those of
    /// items before them.
    pub(super) fn place(&mut self, key: K, chat_id: ChatId) -> Place {
        let of_key = self.keys.entry(key).or_insert(0);
        *of_key += 1;
        let taken = self.chats.entry(chat_id).or_insert(0);
        if *of_key == 1 && *taken < self.of_chat {
            *taken += 1;
            return Place::InBatch;
        }
        if *of_key > 1 {
            return if *of_key <= QUEUE_OF_ONE { Place::Later } else { Place::Refused };
        }
        *taken += 1;
        if *taken <= self.of_chat + QUEUE_OF_ONE { Place::Later } else { Place::Refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_takes_one_of_a_key_and_a_share_of_a_chat() {
        let mut shares = Shares::new(3);
        let (busy, quiet) = (ChatId::nil(), ChatId::max());
        assert_eq!(shares.place(1, busy), Place::InBatch);
        assert_eq!(shares.place(1, busy), Place::Later);
        assert_eq!(shares.place(2, busy), Place::InBatch);
        assert_eq!(shares.place(3, busy), Place::InBatch);
        for key in 0..QUEUE_OF_ONE {
            assert_eq!(shares.place(100 + key, busy), Place::Later, "{key}");
        }
        assert_eq!(shares.place(4, busy), Place::Refused);
        assert_eq!(shares.place(5, quiet), Place::InBatch, "the others go on");
        for _ in 1..QUEUE_OF_ONE {
            assert_eq!(shares.place(5, quiet), Place::Later);
        }
        assert_eq!(shares.place(5, quiet), Place::Refused);
    }
}
