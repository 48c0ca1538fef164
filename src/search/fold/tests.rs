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
        // Accents, and letters that keyboards do not have.
        ("café", "cafe"),
        ("Łódź", "lodz"),
        ("ISTANBUL", "ıstanbul"),
        ("Ἀθῆναι", "αθηναι"),
        ("за\u{301}мок", "замок"),
        ("שָׁלוֹם", "שלום"),
        ("s\u{336}t\u{336}rike", "strike"),
        // Compatibility forms.
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("ﾊﾟﾝ", "パン"),
        ("ﬁne ﬂow", "fine flow"),
        ("𝓱𝓮𝓵𝓵𝓸 ① ²", "hello 1 2"),
        // Invisible characters.
        ("so\u{ad}ft hy\u{ad}phen", "soft hyphen"),
        ("zero\u{200b}\u{2060}\u{feff}width", "zerowidth"),
        ("a \u{200b} b", "a b"),
        ("a \u{fe0f} b", "a b"),
        ("\u{202b}bidi\u{202c}", "bidi"),
        ("e\u{ad}\u{301}", "e"),
        ("❤\u{fe0f}", "❤"),
        ("ё\u{308}\u{3099}a", "е\u{3099}a"),
        // Variants of signs for which a keyboard has one key.
        ("don’t don‘t donʼt don´t don＇t", "don't don't don't don't don't"),
        ("«a» “b” „c‟ ‹d› 「e」 ＂f＂", r#""a" "b" "c" "d" "e" "f""#),
        ("well\u{2011}known \u{2212}1", "well-known -1"),
    ] {
        assert_eq!(folded(one), folded(other), "{one:?} and {other:?}");
    }
}

#[test]
fn letters_that_differ_stay_apart() {
    for (one, other) in [
        ("й", "и"),
        ("ї", "і"),
        ("ў", "у"),
        ("が", "か"),
        ("कि", "क"),
        ("≠", "="),
        ("—", "-"),
        ("東", "京"),
        ("a b", "ab"),
    ] {
        assert_ne!(folded(one), folded(other), "{one:?} and {other:?}");
    }
}

#[test]
fn a_compatibility_ideograph_is_a_piece_of_its_own() {
    assert_eq!(pieces("東\u{f900}").len(), 2);
}

/// Texts of characters that are rare and known to break such code: marks, jamo, odd blanks and cases.
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
        '\u{ad}',
        '\u{fe0f}',
        'ﬁ',
        'é',
        'ﾊ',
        'ﾟ',
        '’',
        '«',
        '´',
        '\u{338}',
        '=',
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
    fn only_what_is_invisible_folds_to_nothing(text in awkward_text()) {
        for (piece, out) in pieces(&text) {
            prop_assert_eq!(out.is_empty(), piece.chars().all(is_ignorable), "{:?}", piece);
        }
    }

    #[test]
    fn folding_again_changes_nothing(text in awkward_text()) {
        prop_assert_eq!(folded(&folded(&text)), folded(&text));
    }
}
