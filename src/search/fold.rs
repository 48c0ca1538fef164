//! Folding: the form in which texts and queries are compared, and the mapping of its positions back.
//!
//! The fold begins with Unicode's NFKC_Casefold: compatibility forms (full width, ligatures) become
//! plain letters, case disappears, and invisible characters (soft hyphens, joiners, bidi marks) are
//! dropped. Beyond it, characters that users type alike become equal: accents are dropped, except in
//! Cyrillic letters that are written with one (`й` is not `и`, but `ё` is `е`); typographic quotation
//! marks, apostrophes and hyphens become those of the keyboard; a few letters become those typed
//! instead ([`push_letter`]); a run of white space becomes one blank.
//!
//! A text is folded piece by piece. A piece is a run of white space, a run of invisible characters, or
//! a character with all that may compose with it (its accents, the rest of a Hangul syllable). A piece
//! folds alike in any context, so a text folds to the sum of its pieces. Any part of a text can
//! therefore be found in it, and positions can be mapped back without a table.

use std::{collections::HashMap, iter::once, ops::Range, sync::LazyLock};

use icu_casemap::{CaseMapper, CaseMapperBorrowed};
use icu_properties::{
    CodePointSetData, CodePointSetDataBorrowed,
    props::{DefaultIgnorableCodePoint, QuotationMark, VariationSelector},
};
use unicode_normalization::{
    IsNormalized, UnicodeNormalization as _,
    char::{canonical_combining_class, compose, decompose_compatible},
    is_nfc_quick,
};

const CASES: CaseMapperBorrowed<'static> = CaseMapper::new();
const IGNORABLE: CodePointSetDataBorrowed<'static> =
    CodePointSetData::new::<DefaultIgnorableCodePoint>();
const QUOTATION_MARKS: CodePointSetDataBorrowed<'static> = CodePointSetData::new::<QuotationMark>();
const VARIATION_SELECTORS: CodePointSetDataBorrowed<'static> =
    CodePointSetData::new::<VariationSelector>();

/// Replaces `out` with the folded `text`.
pub(super) fn fold(text: &str, out: &mut String) {
    out.clear();
    out.reserve(text.len());
    let mut rest = text;
    loop {
        // The bulk of most texts needs no decision for each character.
        let (plain, others) = rest.split_at(plain(rest.as_bytes()));
        if plain.is_ascii() {
            let start = out.len();
            out.push_str(plain);
            out[start..].make_ascii_lowercase();
        } else {
            plain.chars().for_each(|c| push_lower(c, out));
        }
        let piece = fold_piece(others, out);
        if piece == 0 {
            return;
        }
        rest = &others[piece..];
    }
}

/// Translates spans of the folded text, ascending by start, into `[start, length]` of `text` in
/// UTF-16 code units. Spans that overlap become one, and a piece that is touched is covered.
pub(super) fn to_utf16(text: &str, spans: &[Range<usize>]) -> Vec<[u32; 2]> {
    let mut highlights: Vec<[u32; 2]> = Vec::new();
    let mut spans = spans.iter().cloned().peekable();
    let mut open: Option<(u32, usize)> = None; // start in `text`, end in the folded text
    let mut piece_folded = String::new();
    let (mut rest, mut folded_at, mut utf16_at) = (text, 0, 0_u32);
    while open.is_some() || spans.peek().is_some() {
        piece_folded.clear();
        let piece = fold_piece(rest, &mut piece_folded);
        if piece == 0 {
            break;
        }
        let folded_end = folded_at + piece_folded.len();
        // A span that starts at the end of the open one does not overlap it.
        if let Some((start, end)) = open
            && end <= folded_at
        {
            highlights.push([start, utf16_at - start]);
            open = None;
        }
        while let Some(span) = spans.next_if(|span| span.start < folded_end) {
            let (start, end) = open.unwrap_or((utf16_at, 0));
            open = Some((start, end.max(span.end)));
        }
        utf16_at += rest[..piece].chars().map(|c| c.len_utf16() as u32).sum::<u32>();
        folded_at = folded_end;
        rest = &rest[piece..];
    }
    if let Some((start, _)) = open {
        highlights.push([start, utf16_at - start]);
    }
    highlights
}

/// Returns the length, in bytes, of the leading ASCII and Russian text that folds character by
/// character: no control characters, no white space but single blanks, nothing that a mark may follow.
fn plain(bytes: &[u8]) -> usize {
    let (mut end, mut last) = (0, 0);
    while let Some(&byte) = bytes.get(end) {
        let length = match byte {
            b'!'..=b'~' => 1,
            b' ' if matches!(bytes.get(end + 1), Some(b'!'..=b'~' | 0xd0 | 0xd1)) => 1,
            0xd0 | 0xd1 => 2,
            _ if may_continue(byte) => return last,
            _ => break,
        };
        last = end;
        end += length;
    }
    end
}

/// Whether a character whose UTF-8 begins with `byte` may continue the piece before it: as a mark, or
/// as an invisible character, which a mark may follow. Below U+0300 only the soft hyphen (0xc2 0xad)
/// does, and from U+0400 to U+047F, which is Russian, none.
fn may_continue(byte: u8) -> bool {
    byte == 0xc2 || (byte >= 0xcc && byte != 0xd0 && byte != 0xd1)
}

/// Appends the folded first piece of `text` to `out`, and returns the piece's length in bytes.
fn fold_piece(text: &str, out: &mut String) -> usize {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return 0 };
    let mut end = first.len_utf8();
    // The usual case: the character is a piece, and the next one begins another.
    if let Some(folded) = ALONE.get(first)
        && chars.next().is_none_or(|next| next.is_ascii() || ALONE.get(next).is_some())
    {
        match folded {
            Folded::One(c) => out.push(c),
            Folded::Many(parts) => out.push_str(parts),
        }
        return end;
    }
    let invisible = is_ignorable(first);
    if invisible {
        end = text.find(|c| !is_ignorable(c)).unwrap_or(text.len());
    }
    let mut more = continuation(first, &text[end..]);
    if more == 0 {
        if invisible {
            return end;
        }
        if first.is_whitespace() {
            out.push(' ');
            return end + white_space(&text[end..]);
        }
    }
    while more > 0 {
        end += more;
        more = continuation(first, &text[end..]);
    }
    fold_slowly(&text[..end], out);
    end
}

fn fold_slowly(piece: &str, out: &mut String) {
    let mut base = None;
    let parts = piece.chars().map(as_apostrophe).nfkd().map(|c| CASES.simple_fold(c));
    parts.filter(|&c| is_kept(c, &mut base)).nfc().for_each(|c| push_letter(c, out));
}

/// The folds of characters that are pieces of their own, for the scripts in use and emoji: a lookup takes
/// a tenth of the time of a fold. 0.5 MB, made by the first search in about 10 ms.
static ALONE: LazyLock<Alone> = LazyLock::new(Alone::new);

struct Alone {
    /// By code point. 0: the fold is not one character, or the character is no piece of its own.
    one: Vec<u32>,
    many: HashMap<char, Box<str>>,
}

#[derive(Clone, Copy)]
enum Folded<'a> {
    One(char),
    Many(&'a str),
}

impl Alone {
    fn new() -> Self {
        let (mut one, mut many) = (vec![0; 0x2_0000], HashMap::new());
        let mut out = String::new();
        // The first plane; of the second one from the letters of mathematics to emoji.
        for c in ('\u{1}'..='\u{ffff}').chain('\u{1d400}'..='\u{1fbff}') {
            if is_ideograph_or_syllable(c) {
                one[c as usize] = c.into();
                continue;
            }
            if is_ignorable(c) || joins(c) || c.is_whitespace() {
                continue;
            }
            out.clear();
            fold_slowly(c.encode_utf8(&mut [0; 4]), &mut out);
            let mut parts = out.chars();
            match (parts.next(), parts.next()) {
                (Some(part), None) => one[c as usize] = part.into(),
                _ => drop(many.insert(c, out.as_str().into())),
            }
        }
        Self { one, many }
    }

    /// `None` for a character that may share a piece with others, and for a rare one.
    fn get(&self, c: char) -> Option<Folded<'_>> {
        match self.one.get(c as usize)? {
            0 => self.many.get(&c).map(|parts| Folded::Many(parts)),
            &code => char::from_u32(code).map(Folded::One),
        }
    }
}

/// Returns the length, in bytes, of the white space at the start, including invisible characters, up to
/// a blank that carries a combining mark.
fn white_space(text: &str) -> usize {
    let mut end = 0;
    for (at, c) in text.char_indices() {
        if c.is_whitespace() {
            let after = at + c.len_utf8();
            if continuation(c, &text[after..]) > 0 {
                break;
            }
            end = after;
        } else if !is_ignorable(c) {
            break;
        }
    }
    end
}

/// Returns how many bytes of `rest` continue the piece of `last`: a character whose decomposition begins
/// with a mark, or with a character that may compose with the one before, and invisible characters
/// ahead of it. To be called again for the rest.
fn continuation(last: char, rest: &str) -> usize {
    if !rest.as_bytes().first().is_some_and(|&byte| may_continue(byte)) {
        return 0;
    }
    // A variation selector chooses the form of a sign, and a blank has no forms.
    let selects = |c| VARIATION_SELECTORS.contains(c) && !last.is_whitespace();
    match rest.char_indices().find(|&(_, c)| !is_ignorable(c) || selects(c)) {
        Some((at, c)) if joins(c) => at + c.len_utf8(),
        _ => 0,
    }
}

fn joins(c: char) -> bool {
    if c < '\u{300}' || is_ideograph_or_syllable(c) {
        return false;
    }
    // A text heart and an emoji heart differ by a selector, which must stay with its sign.
    if VARIATION_SELECTORS.contains(c) {
        return true;
    }
    let mut first = None;
    decompose_compatible(c, |part| {
        first.get_or_insert(part);
    });
    first.is_some_and(|c| {
        canonical_combining_class(c) != 0 || is_nfc_quick(once(c)) != IsNormalized::Yes
    })
}

/// Whether a character belongs to the large scripts that need no lookup in Unicode's tables.
fn is_ideograph_or_syllable(c: char) -> bool {
    matches!(c, '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}')
}

fn is_ignorable(c: char) -> bool {
    c >= '\u{ad}' && !is_ideograph_or_syllable(c) && IGNORABLE.contains(c)
}

/// Replaces a stand-alone acute accent, which users type for an apostrophe; its decomposition would
/// contain a blank.
fn as_apostrophe(c: char) -> char {
    if matches!(c, '´' | '΄' | '\u{1ffd}') { '\'' } else { c }
}

/// Whether a decomposed character is kept. `base` is the letter or sign before it.
fn is_kept(c: char, base: &mut Option<char>) -> bool {
    if is_ignorable(c) {
        return false;
    }
    if !is_accent(c) || !base.is_some_and(char::is_alphanumeric) {
        if canonical_combining_class(c) == 0 {
            *base = Some(c);
        }
        return true;
    }
    let letter = base.and_then(|base| compose(base, c)).filter(|&c| is_cyrillic_letter(c));
    *base = letter.or(*base);
    letter.is_some()
}

/// Whether a mark is an accent that users omit: one over, under or through a letter, and the points of
/// Hebrew and Arabic. The classes in between are Indic, Thai and Japanese signs that nobody omits.
fn is_accent(c: char) -> bool {
    matches!(canonical_combining_class(c), 1 | 10..=36 | 200..)
}

/// Whether an accented letter is a letter of its own. All Cyrillic ones are (`й`, `ў`, `ї`), except `ё`,
/// which is often written `е`, and the two that only mark a stress.
fn is_cyrillic_letter(c: char) -> bool {
    matches!(c, '\u{400}'..='\u{52f}' if !matches!(c, 'ё' | 'ѐ' | 'ѝ'))
}

/// Appends a character of a plain run: ASCII or Russian.
fn push_lower(c: char, out: &mut String) {
    match c {
        '\0'..='\u{7f}' => out.push(c.to_ascii_lowercase()),
        'а'..='я' => out.push(c),
        // Capital letters are 32 code points before the small ones.
        'А'..='Я' => out.push(char::from_u32(u32::from(c) + 32).unwrap_or(c)),
        _ => push_letter(CASES.simple_fold(c), out),
    }
}

/// Appends a folded character, as the keyboard's equivalent.
fn push_letter(c: char, out: &mut String) {
    match c {
        'a'..='z' | 'а'..='я' => out.push(c),
        _ if c.is_whitespace() => out.push(' '),
        'ё' | 'ѐ' => out.push('е'),
        'ѝ' => out.push('и'),
        'ß' => out.push_str("ss"),
        'ı' => out.push('i'),
        'æ' => out.push_str("ae"),
        'œ' => out.push_str("oe"),
        'ø' => out.push('o'),
        'ł' => out.push('l'),
        'đ' => out.push('d'),
        'ħ' => out.push('h'),
        'ŧ' => out.push('t'),
        // Apostrophes, including those that are Ukrainian or Polynesian letters.
        '\'' | '‘' | '’' | '‚' | '‛' | '′' | 'ʼ' | 'ʻ' => out.push('\''),
        // Hyphens and the minus sign, but no dashes.
        '\u{2010}' | '\u{2011}' | '−' => out.push('-'),
        _ if !c.is_alphanumeric() && QUOTATION_MARKS.contains(c) => out.push('"'),
        _ => out.push(c),
    }
}

#[cfg(test)]
pub(super) mod tests;
