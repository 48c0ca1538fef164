//! Search inside one chat: the meaning of a query, and its matches in a text.
//!
//! A query consists of words and `"phrases"`, all of which must occur, and of `-words` and
//! `-"phrases"`, none of which may. Every string is a valid query; one without a usable term finds
//! nothing ([`Query::is_empty`]).
//!
//! - A *word* matches a literal part of the text, in any script and with any punctuation. A word of
//!   only Cyrillic or only Latin letters also matches by its form: a word of the text with the same
//!   Russian or English stem.
//! - A *phrase* matches literally, with any white space for its own, and without forms.
//! - A term after `-` excludes exactly the messages that it would find by itself.
//! - Query and text are folded alike (see [`mod@fold`]): case, accents, composition, compatibility
//!   forms, invisible characters, typographic signs, `ё` and white space make no difference.
//!   Highlights refer to the original text.
//!
//! There is no index: the store reads the chat, newest first, and calls [`Query::find`] for each text.
//! So the query is prepared once, and a text without a match costs a fold into a reused buffer and one
//! search for a part that every match contains.

mod fold;
mod parse;
mod term;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use beseda_protocol::bounds::MAX_QUERY_CHARS;

use self::{fold::fold, term::Term};

/// A query, prepared for a search in many texts.
pub struct Query {
    /// All of them must occur. The longest is first, because it is the likeliest to be absent.
    wanted: Vec<Term>,
    /// None of them may occur.
    unwanted: Vec<Term>,
}

/// Buffers of [`Query::find`], reused so that a search does not allocate for each message.
#[derive(Default)]
pub struct Scratch {
    folded: String,
    spans: Vec<Range<usize>>,
}

impl Query {
    /// Parses a query as a user typed it.
    ///
    /// A quotation mark (`"`, or any other that is no apostrophe: `“…”`, `«…»`, `「…」`) opens a
    /// phrase at the start of a word and belongs to the word elsewhere (`{"id":7}`, `5"`). An unclosed
    /// phrase extends to the end. `-` alone, `--option` and `->` are words.
    pub fn parse(raw: &str) -> Self {
        parse::parse(raw)
    }

    /// Whether the query finds nothing, because no word or phrase must occur.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Searches `text`. Returns `None` if it does not match, else the highlights, as `[start, length]` in
    /// UTF-16 code units of `text`, ascending and not overlapping.
    pub fn find(&self, text: &str, scratch: &mut Scratch) -> Option<Vec<[u32; 2]>> {
        if self.is_empty() {
            return None;
        }
        let Scratch { folded, spans } = scratch;
        fold(text, folded);
        if !self.wanted.iter().all(|term| term.occurs_in(folded))
            || self.unwanted.iter().any(|term| term.occurs_in(folded))
        {
            return None;
        }
        spans.clear();
        for term in &self.wanted {
            term.for_each_span(folded, |span| spans.push(span));
        }
        spans.sort_unstable_by_key(|span| span.start);
        Some(fold::to_utf16(text, spans))
    }
}
