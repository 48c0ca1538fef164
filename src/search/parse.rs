//! From what a person typed to the terms of a query.

use super::{MAX_QUERY_CHARS, Query, fold::fold, term::Term};

/// Most terms a query keeps, wanted and unwanted together; what comes after them is ignored. A
/// sentence of 256 characters has some forty words; this only bounds the work for `a b c d …`.
const MAX_TERMS: usize = 64;

pub(super) fn parse(raw: &str) -> Query {
    let read = raw.char_indices().nth(MAX_QUERY_CHARS).map_or(raw.len(), |(end, _)| end);
    // Folded before it is taken apart, so that white space is a single blank from here on.
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

/// What follows the minus sign where `rest` begins with one that negates. Alone it is punctuation
/// between words, and `--option` and `->` are what people search for in talk about programs.
fn negated(rest: &str) -> Option<&str> {
    let term = rest.strip_prefix('-')?;
    (!term.is_empty() && !term.starts_with([' ', '-', '>'])).then_some(term)
}

/// What all quotation marks fold to, those that are no apostrophes.
const QUOTE: char = '"';

/// The term at the start of `rest`, if there is anything in its quotation marks, and what follows.
fn next_term(rest: &str) -> (Option<Term>, &str) {
    if let Some(quoted) = rest.strip_prefix(QUOTE) {
        let (phrase, after) = quoted.split_once(QUOTE).unwrap_or((quoted, ""));
        let phrase = phrase.trim_matches(' ');
        return ((!phrase.is_empty()).then(|| Term::phrase(phrase)), after);
    }
    let end = rest.find(' ').unwrap_or(rest.len());
    (Some(Term::word(&rest[..end])), &rest[end..])
}
