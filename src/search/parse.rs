//! The parser of queries.

use super::{MAX_QUERY_CHARS, Query, fold::fold, term::Term};

/// Most terms of a query, wanted and unwanted together; later ones are ignored. A sentence of 256
/// characters has some forty words; this only bounds the work for `a b c d …`.
const MAX_TERMS: usize = 64;

pub(super) fn parse(raw: &str) -> Query {
    let read = raw.char_indices().nth(MAX_QUERY_CHARS).map_or(raw.len(), |(end, _)| end);
    // Folded before it is split, so that white space is a single blank from here on.
    let mut folded = String::new();
    fold(&raw[..read], &mut folded);

    let mut query = Query { wanted: Vec::new(), unwanted: Vec::new() };
    let mut rest = folded.as_str();
    while query.wanted.len() + query.unwanted.len() < MAX_TERMS {
        rest = rest.trim_start_matches(' ');
        if rest.is_empty() {
            break;
        }
        let negated = negated(rest);
        let (term, after) = next_term(negated.unwrap_or(rest));
        rest = after;
        let terms = if negated.is_some() { &mut query.unwanted } else { &mut query.wanted };
        if let Some(term) = term
            && !terms.contains(&term)
        {
            terms.push(term);
        }
    }
    query.wanted.sort_by_key(|term| std::cmp::Reverse(term.len()));
    query
}

/// Returns the text after a negating minus sign at the start of `rest`. Alone it is punctuation, and
/// `--option` and `->` are words that users search for in chats about programs.
fn negated(rest: &str) -> Option<&str> {
    let term = rest.strip_prefix('-')?;
    (!term.is_empty() && !term.starts_with([' ', '-', '>'])).then_some(term)
}

/// The fold of all quotation marks that are no apostrophes.
const QUOTE: char = '"';

/// Returns the term at the start of `rest` (`None` for an empty phrase), and the text after it.
fn next_term(rest: &str) -> (Option<Term>, &str) {
    if let Some(quoted) = rest.strip_prefix(QUOTE) {
        let (phrase, after) = quoted.split_once(QUOTE).unwrap_or((quoted, ""));
        let phrase = phrase.trim_matches(' ');
        return ((!phrase.is_empty()).then(|| Term::phrase(phrase)), after);
    }
    let end = rest.find(' ').unwrap_or(rest.len());
    (Some(Term::word(&rest[..end])), &rest[end..])
}
