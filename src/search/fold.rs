//! The form in which texts and queries are compared, and the way back from it.
//!
//! NFC, lower case, `ё` as `е`, each run of white space as one blank; and where lower case alone
//! leaves two spellings of one letter apart: `ς` as `σ`, `ß` as `ss`, `İ` as `i`.
//!
//! A text is folded piece by piece. A piece is a run of white space, or a character with all that
//! may compose with it (its accents, the rest of a Hangul syllable), so that a piece folds the
//! same wherever it stands, and a text to the sum of its pieces. That makes a part of a text
//! findable in it, and lets positions be counted back without a map being kept.

use std::ops::Range;

use unicode_normalization::{
    IsNormalized, UnicodeNormalization as _, char::canonical_combining_class,
    char::decompose_canonical, is_nfc_quick,
};

/// Replaces `out` with the folded `text`.
pub(super) fn fold(text: &str, out: &mut String) {
    out.clear();
    out.reserve(text.len());
    let mut rest = text;
    loop {
        // Most of most texts: no need to look at these one by one.
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
    let mut open: Option<(u32, usize)> = None; // since where in `text`, up to where folded
    let mut piece_folded = String::new();
    let (mut rest, mut folded_at, mut utf16_at) = (text, 0, 0_u32);
    while open.is_some() || spans.peek().is_some() {
        piece_folded.clear();
        let piece = fold_piece(rest, &mut piece_folded);
        if piece == 0 {
            break;
        }
        let folded_end = folded_at + piece_folded.len();
        // A span that starts where the open one ends touches it, and does not overlap.
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

/// How many bytes from the start hold ASCII and Russian that fold character by character: no
/// control characters, no white space but single blanks, nothing that a mark may follow.
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

/// Whether a character whose UTF-8 begins with `byte` may belong to the piece before it. None
/// below U+0300 does, nor one from U+0400 to U+047F, which is Russian.
fn may_continue(byte: u8) -> bool {
    byte >= 0xcc && byte != 0xd0 && byte != 0xd1
}

/// Appends the folded first piece of `text` to `out`, and returns the piece's length in bytes.
fn fold_piece(text: &str, out: &mut String) -> usize {
    let Some(first) = text.chars().next() else { return 0 };
    let mut end = first.len_utf8();
    if !continues(&text[end..]) {
        if first.is_whitespace() {
            end += white_space(&text[end..]);
            out.push(' ');
            return end;
        }
        if is_stable(first) {
            push_lower(first, out);
            return end;
        }
    }
    while continues(&text[end..]) {
        end += text[end..].chars().next().map_or(0, char::len_utf8);
    }
    // Twice: some letters have a composed form only in one of their cases.
    let lower = text[..end].nfc().flat_map(lower_case).nfc();
    let mut previous = None;
    for c in lower {
        // What Unicode's lower case leaves of `İ`.
        if !(previous == Some('i') && c == '\u{307}') {
            push_folded(c, out);
        }
        previous = Some(c);
    }
    end
}

/// How many bytes of white space follow, up to a blank that carries a combining mark.
fn white_space(text: &str) -> usize {
    let mut end = 0;
    for c in text.chars().take_while(|c| c.is_whitespace()) {
        if continues(&text[end + c.len_utf8()..]) {
            break;
        }
        end += c.len_utf8();
    }
    end
}

/// Whether the first character of `rest` belongs to the piece before it: its decomposition begins
/// with a mark, or with what may compose with a character before.
fn continues(rest: &str) -> bool {
    let Some(&byte) = rest.as_bytes().first() else { return false };
    if !may_continue(byte) {
        return false;
    }
    let Some(c) = rest.chars().next() else { return false };
    if is_ideograph_or_syllable(c) || c.is_whitespace() {
        return false;
    }
    let mut first = None;
    decompose_canonical(c, |part| {
        first.get_or_insert(part);
    });
    first.is_some_and(|c| canonical_combining_class(c) != 0 || !is_nfc(c))
}

/// Whether NFC leaves a character that stands alone as it is.
fn is_stable(c: char) -> bool {
    c < '\u{300}' || ('\u{400}'..'\u{480}').contains(&c) || is_ideograph_or_syllable(c) || is_nfc(c)
}

fn is_nfc(c: char) -> bool {
    is_nfc_quick(std::iter::once(c)) == IsNormalized::Yes
}

/// Characters that make whole texts, and that need no look into the tables.
fn is_ideograph_or_syllable(c: char) -> bool {
    matches!(c, '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}')
}

fn push_lower(c: char, out: &mut String) {
    match c {
        '\0'..='\u{7f}' => out.push(c.to_ascii_lowercase()),
        'а'..='я' => out.push(c),
        _ if is_ideograph_or_syllable(c) => out.push(c),
        // The capitals lie 32 before their small letters.
        'А'..='Я' => out.push(char::from_u32(u32::from(c) + 32).unwrap_or(c)),
        _ => lower_case(c).for_each(|c| push_folded(c, out)),
    }
}

fn lower_case(c: char) -> impl Iterator<Item = char> {
    // `İ` becomes `i` with a dot above, which whoever types `istanbul` does not type.
    let c = if c == 'İ' { 'i' } else { c };
    c.to_lowercase()
}

fn push_folded(c: char, out: &mut String) {
    match c {
        'ё' => out.push('е'),
        'ς' => out.push('σ'),
        'ß' => out.push_str("ss"),
        _ => out.push(c),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folded(text: &str) -> String {
        let mut out = String::new();
        fold(text, &mut out);
        out
    }

    fn pieces(mut text: &str) -> Vec<(&str, String)> {
        let mut pieces = Vec::new();
        while !text.is_empty() {
            let mut out = String::new();
            let end = fold_piece(text, &mut out);
            pieces.push((&text[..end], out));
            text = &text[end..];
        }
        pieces
    }

    #[test]
    fn spellings_of_one_text_fold_alike() {
        for (one, other) in [
            ("ЁЛКА", "елка"),
            ("е\u{308}лка", "елка"),
            ("Й", "и\u{306}"),
            ("CAFE\u{301}", "café"),
            ("J\u{30c}", "ǰ"),
            ("ΟΔΟΣ", "οδος"),
            ("STRASSE", "Straße"),
            ("STRAẞE", "straße"),
            ("İstanbul", "ISTANBUL"),
            ("i\u{307}", "İ"),
            ("\u{212b}", "å"),
            ("\u{1112}\u{1161}\u{11ab}", "한"),
            ("か\u{3099}", "が"),
            ("a \t\r\n\u{a0}\u{2000}\u{3000}b", "a b"),
            // Marks in another order are the same letter.
            ("q\u{323}\u{307}", "q\u{307}\u{323}"),
        ] {
            assert_eq!(folded(one), folded(other), "{one:?} and {other:?}");
        }
    }

    #[test]
    fn letters_that_differ_stay_apart() {
        for (one, other) in [("й", "и"), ("é", "e"), ("ı", "i"), ("東", "京"), ("a b", "ab")]
        {
            assert_ne!(folded(one), folded(other), "{one:?} and {other:?}");
        }
    }

    #[test]
    fn a_compatibility_ideograph_is_a_piece_of_its_own() {
        assert_eq!(pieces("東\u{f900}").len(), 2);
    }

    /// What real texts seldom hold and what breaks such code: marks, jamo, odd blanks and cases.
    pub(in crate::search) fn awkward_text() -> impl Strategy<Value = String> {
        let awkward = prop::sample::select(vec![
            'a',
            'E',
            'i',
            ' ',
            '\n',
            '\u{2000}',
            '\u{301}',
            '\u{308}',
            '\u{323}',
            '\u{307}',
            'İ',
            'ß',
            'ς',
            'Σ',
            'ё',
            'Ё',
            'е',
            'и',
            '\u{306}',
            '東',
            '\u{f900}',
            '한',
            '\u{1112}',
            '\u{1161}',
            '\u{11ab}',
            '😀',
            '\u{200d}',
            '\u{3099}',
            'か',
            '\u{344}',
            '\u{f73}',
            '"',
            '-',
            '\u{e33}',
            'ก',
            '\0',
            'Ⱥ',
            '\u{1d165}',
        ]);
        prop::collection::vec(prop_oneof![awkward, any::<char>()], 0..40)
            .prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        #[test]
        fn a_text_folds_to_the_sum_of_its_pieces(text in awkward_text()) {
            let sum: String = pieces(&text).into_iter().map(|(_, out)| out).collect();
            prop_assert_eq!(folded(&text), sum);
        }

        #[test]
        fn composition_makes_no_difference(text in awkward_text()) {
            let composed: String = text.nfc().collect();
            let decomposed: String = text.nfd().collect();
            prop_assert_eq!(folded(&composed), folded(&text));
            prop_assert_eq!(folded(&decomposed), folded(&text));
        }

        #[test]
        fn no_piece_folds_to_nothing(text in awkward_text()) {
            for (piece, out) in pieces(&text) {
                prop_assert!(!out.is_empty(), "{:?}", piece);
            }
        }
    }
}
