//! Search inside one chat: what a query means, and where it stands in a text.
//!
//! A query is words and `"phrases"`, each of which must occur, and `-words` and `-"phrases"`, none
//! of which may. Every string is a query; none can fail, and what none of it is usable for finds
//! nothing ([`Query::is_empty`]).
//!
//! - A *word* is found as a literal part of the text, in any script and with any punctuation. A
//!   word of Cyrillic or of Latin letters alone is also found by its form: where a word of the
//!   text has the same Russian or English stem.
//! - A *phrase* is found literally, with any white space where it has some, and without forms.
//! - What `-` stands before takes away exactly the messages that it would find by itself.
//! - Both sides are folded alike (see [`mod@fold`]): case, accents, composition, compatibility
//!   forms, what is invisible, typographic signs, `ё` and white space make no difference.
//!   Highlights are given in the text as it was written.
//!
//! There is no index behind this: the store walks the chat, newest first, and asks
//! [`Query::find`] about each text. So the query is prepared once, and a text without a match
//! costs a fold into a buffer that is used again and one search for a part that every match has.

mod fold;
mod parse;
mod term;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use beseda_protocol::bounds::MAX_QUERY_CHARS;

use self::{fold::fold, term::Term};

/// A query, prepared to be asked about many texts.
pub struct Query {
    /// Each must occur. The longest first: it is the likeliest to be absent.
    wanted: Vec<Term>,
    /// None may occur.
    unwanted: Vec<Term>,
}

/// Buffers that [`Query::find`] fills anew for each text, kept so that a walk through a chat does
/// not allocate for each message.
#[derive(Default)]
pub struct Scratch {
    folded: String,
    spans: Vec<Range<usize>>,
}

impl Query {
    /// Reads a query as a person typed it.
    ///
    /// A quotation mark (`"`, or any other that is no apostrophe: `“…”`, `«…»`, `「…」`) opens a
    /// phrase at the start of a word and belongs to the word elsewhere (`{"id":7}`, `5"`); a phrase
    /// that is not closed goes to the end. `-` alone, `--option` and `->` are words.
    pub fn parse(raw: &str) -> Self {
        parse::parse(raw)
    }

    /// Whether nothing can be found: there is no word or phrase that must occur.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Where the query stands in `text`: `None` if it does not match, else what to highlight, as
    /// `[start, length]` in UTF-16 code units of `text`, ascending and not overlapping.
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
