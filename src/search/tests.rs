use proptest::prelude::*;

use super::{fold::tests::awkward_text, *};

fn find(query: &str, text: &str) -> Option<Vec<[u32; 2]>> {
    Query::parse(query).find(text, &mut Scratch::default())
}

/// Returns the highlighted parts of `text`.
#[track_caller]
fn marked(query: &str, text: &str) -> Vec<String> {
    let units: Vec<u16> = text.encode_utf16().collect();
    find(query, text)
        .unwrap_or_else(|| panic!("{query:?} is not found in {text:?}"))
        .into_iter()
        .map(|[start, length]| (start as usize, length as usize))
        .map(|(start, length)| String::from_utf16(&units[start..start + length]).expect("whole"))
        .collect()
}

#[track_caller]
fn assert_found(queries: &[&str], text: &str) {
    for query in queries {
        assert!(find(query, text).is_some(), "{query:?} is not found in {text:?}");
    }
}

#[track_caller]
fn assert_absent(queries: &[&str], text: &str) {
    for query in queries {
        assert_eq!(find(query, text), None, "{query:?} is found in {text:?}");
    }
}

/// Each of these words finds each of the others, whole.
#[track_caller]
fn assert_forms(forms: &[&str]) {
    for query in forms {
        for form in forms {
            let text = format!("({form}), {form}!");
            assert_eq!(marked(query, &text), [*form, *form], "{query:?} in {text:?}");
        }
    }
}

#[test]
fn russian_words_are_found_in_all_their_forms() {
    assert_forms(&["кошка", "кошки", "кошке", "кошкой", "Кошкам", "КОШКАХ"]);
    assert_forms(&["ёлка", "елка", "ЁЛКИ", "е\u{308}лку"]);
    assert_forms(&["бежать", "бежал", "бежали"]);
    assert_forms(&["сообщение", "сообщения", "сообщений", "Сообщениями"]);
    assert_forms(&["юг", "юга", "югом"]);
    assert_forms(&["новый", "новая", "новые", "новых", "НОВЫМИ"]);
}

#[test]
fn english_words_are_found_in_all_their_forms() {
    assert_forms(&["run", "running", "runs", "Running"]);
    assert_forms(&["deploy", "deployed", "DEPLOYING", "deploys"]);
    assert_forms(&["happy", "happiness"]);
    assert_forms(&["hope", "hoping", "hoped"]);
    assert_forms(&["die", "dying", "died"]);
    assert_forms(&["sky", "skies"]);
    assert_forms(&["café", "cafés", "cafe\u{301}s"]);
}

#[test]
fn a_word_form_is_a_whole_word() {
    assert_eq!(marked("running", "a runner runs; rerun"), ["runs"]);
    assert_absent(&["running"], "a runner, a rerun, runrun");
    assert_absent(&["кошками"], "кошелёк, окошко");
    // Script, digits and punctuation end a word.
    assert_eq!(marked("deploys", "昨日deployした, deploy2, re-deploy'd"), ["deploy"; 3]);
    assert_eq!(marked("dogs", "the dog's bone"), ["dog"]);
}

#[test]
fn a_short_stem_does_not_match_everything() {
    assert_absent(&["ее", "ею"], "а, б, в, г, д, е");
    assert_absent(&["яма"], "я сам");
    assert_absent(&["нее", "ней", "пою", "той"], "не то, по тому");
    assert_absent(&["goes"], "a g");
    assert_absent(&["I"], "you");
}

#[test]
fn a_word_is_a_literal_part_of_the_text() {
    assert_eq!(marked("東京", "私は東京に住んでいます。東京!"), ["東京", "東京"]);
    assert_eq!(marked("0042", "see IMG_0042.jpeg"), ["0042"]);
    assert_eq!(marked("ошк", "Кошка"), ["ошк"]);
    assert_eq!(marked("ไทย", "ภาษาไทยง่าย"), ["ไทย"]);
    assert_eq!(marked("한국", "대한국민"), ["한국"]);
    assert_eq!(marked("c++", "in C++, not C"), ["C++"]);
    assert_eq!(marked("aa", "aaaaa"), ["aa", "aa"]);
    assert_absent(&["대한민국"], "대한국민");
}

#[test]
fn no_character_is_a_pattern() {
    for special in ["%", "_", "\\", ".", "*", "?", "(", "[a-z]", "^$", "'", ";--", "&", "|", "<->"]
    {
        assert_absent(&[special], "plain words, nothing else");
        let text = format!("before {special} after");
        assert_eq!(marked(special, &text), [special]);
        let text = format!("x{special}y");
        assert_eq!(marked(&format!("X{special}Y"), &text), [text.as_str()]);
    }
    assert_absent(&[".*", "%", "a%c", "a_c", "a.c"], "abc");
}

#[test]
fn all_words_must_occur_in_any_order() {
    assert_eq!(marked("сервер упал", "Упал наш сервер"), ["Упал", "сервер"]);
    assert_absent(&["сервер упал"], "сервер работает");
    assert_eq!(marked("  deploy\t\nfailed ", "failed deploys"), ["failed", "deploys"]);
}

#[test]
fn overlapping_highlights_are_merged_and_touching_ones_are_not() {
    assert_eq!(marked("abc bcd", "xabcdx"), ["abcd"]);
    assert_eq!(marked("run running", "running"), ["running"]);
    assert_eq!(find("東", "東東"), Some(vec![[0, 1], [1, 1]]));
    assert_eq!(find("東 京", "東京"), Some(vec![[0, 1], [1, 1]]));
}

#[test]
fn a_phrase_is_literal_with_any_white_space() {
    let text = "The quick\r\n\t brown\u{a0}\u{3000}fox";
    assert_eq!(marked(r#""quick brown fox""#, text), ["quick\r\n\t brown\u{a0}\u{3000}fox"]);
    assert_eq!(marked("\"QUICK \n brown\"", text), ["quick\r\n\t brown"]);
    assert_absent(&[r#""brown quick""#, r#""quick fox""#, r#""quickbrown""#], text);
    // Quoted, a word is no longer found by its forms.
    assert_eq!(marked(r#""кошка""#, "кошки и Кошка"), ["Кошка"]);
    assert_absent(&[r#""deploys""#], "deployed");
    assert_eq!(marked("“new york” pizza", "Pizza in New York"), ["Pizza", "New York"]);
}

#[test]
fn a_negative_excludes_what_it_would_find() {
    assert_found(&["cat -dog", "-dog cat", r#"cat -"dog cat""#], "a cat");
    assert_absent(&["cat -dog"], "a cat and two dogs");
    assert_absent(&["cat -do"], "a cat and two dogs");
    assert_absent(&["кошка -собака"], "кошки и СОБАКИ");
    assert_absent(&["cat -dog", r#"cat -"two  dogs""#], "cats, two\ndogs");
    assert_eq!(marked(r#"cat -"two dog""#, "cats, two big dogs"), ["cats"]);
    assert_absent(&["cat -cat"], "cat");
}

#[test]
fn a_minus_that_negates_nothing_is_literal() {
    assert_eq!(marked("a - b", "A — B - C"), ["A", "B", "-"]);
    assert_eq!(marked("--force", "push --force"), ["--force"]);
    assert_eq!(marked("->", "a -> b"), ["->"]);
    assert_eq!(marked("well-known", "a well-known bug"), ["well-known"]);
}

#[test]
fn without_a_wanted_term_nothing_is_found() {
    for query in [
        "",
        " \n\u{3000}",
        "-word",
        "-a -b",
        r#"-"a phrase""#,
        "\"",
        "\"\"",
        "\" \"",
        "-\"",
        "-\"\" “",
    ] {
        assert!(Query::parse(query).is_empty(), "{query:?}");
        assert_absent(&[query], "a word, a phrase");
        assert_absent(&[query], "");
    }
    assert!(!Query::parse("a -b").is_empty());
}

#[test]
fn unbalanced_quotes_are_read_leniently() {
    assert_eq!(marked("\"quick brown", "the quick  brown fox"), ["quick  brown"]);
    assert_absent(&["\"quick brown"], "brown, quick");
    assert_eq!(marked("fox \"", "a fox"), ["fox"]);
    assert_eq!(marked("fox -\"", "a fox"), ["fox"]);
    assert_eq!(marked("5\" screen", "a screen of 5\""), ["screen", "5\""]);
    assert_eq!(marked(r#"{"id":7}"#, r#"got {"ID":7}"#), [r#"{"ID":7}"#]);
    assert_eq!(marked(r#""big fox"dog"#, "dog, big fox"), ["dog", "big fox"]);
}

#[test]
fn offsets_count_utf16_code_units_of_the_original() {
    assert_eq!(find("world", "😀 world"), Some(vec![[3, 5]]));
    assert_eq!(find("👍", "ok 👍👍🏽"), Some(vec![[3, 2], [5, 2]]));
    assert_eq!(find("𠮷", "a𠮷b"), Some(vec![[1, 2]]));
    // A decomposed letter counts as it was written.
    assert_eq!(find("café", "cafe\u{301} x"), Some(vec![[0, 5]]));
    assert_eq!(find("cafe\u{301}", "café x"), Some(vec![[0, 4]]));
    assert_eq!(find("x", "cafe\u{301} x"), Some(vec![[6, 1]]));
    assert_eq!(find("мой", "мои\u{306} x"), Some(vec![[0, 4]]));
    assert_eq!(find("x", "мои\u{306} x"), Some(vec![[5, 1]]));
    // Letters whose folded form has another length.
    assert_eq!(find("istanbul", "x İSTANBUL"), Some(vec![[2, 8]]));
    assert_eq!(find("STRASSE", "die Straße!"), Some(vec![[4, 6]]));
    assert_eq!(find("!", "die Straße!"), Some(vec![[10, 1]]));
    assert_eq!(find("οδοσ", "x ΟΔΟΣ οδος"), Some(vec![[2, 4], [7, 4]]));
    assert_eq!(find("x", "ȺȺ  x"), Some(vec![[4, 1]]));
    // A part of a letter highlights the letter.
    assert_eq!(find("s", "ß"), Some(vec![[0, 1]]));
}

#[test]
fn texts_are_found_as_people_type_them() {
    // An apostrophe is one key, though phones replace it.
    for text in ["I don't know", "I don’t know", "I donʼt know", "I don´t know"] {
        for query in ["don't", "don’t", "DON‘T"] {
            assert_eq!(marked(query, text)[0].chars().count(), 5, "{query:?} in {text:?}");
        }
    }
    // Accents, with and without; letters that few keyboards have.
    assert_eq!(marked("cafe", "un café"), ["café"]);
    assert_eq!(marked("café", "un cafe"), ["cafe"]);
    assert_eq!(marked("lodz", "Łódź, moje miasto"), ["Łódź"]);
    assert_eq!(marked("замок", "старый за\u{301}мок"), ["за\u{301}мок"]);
    assert_eq!(marked("irmak", "IRMAK ırmak Irmak"), ["IRMAK", "ırmak", "Irmak"]);
    assert_eq!(marked("ещё", "еще раз"), ["еще"]);
    // Full width, ligatures and letters of mathematics.
    assert_eq!(marked("hello", "ｈｅｌｌｏ 𝓱𝓮𝓵𝓵𝓸"), ["ｈｅｌｌｏ", "𝓱𝓮𝓵𝓵𝓸"]);
    assert_eq!(marked("office", "the oﬃce"), ["oﬃce"]);
    assert_eq!(marked("パン", "ﾊﾟﾝ"), ["ﾊﾟﾝ"]);
    assert_eq!(marked("100 km", "１００　㎞"), ["１００", "㎞"]);
    // Invisible characters.
    assert_eq!(marked("hyphenation", "hy\u{ad}phen\u{ad}ation!"), ["hy\u{ad}phen\u{ad}ation"]);
    assert_eq!(marked("hy\u{ad}phen", "hyphen"), ["hyphen"]);
    assert_eq!(
        marked("password", "pass\u{200b}wo\u{2060}rd\u{feff}"),
        ["pass\u{200b}wo\u{2060}rd"]
    );
    assert_eq!(marked("شلوم", "\u{202b}شلوم\u{202c}"), ["شلوم"]);
    // An accent or an invisible character before a word form does not matter.
    assert_eq!(marked("résumés", "her re\u{301}su\u{ad}me"), ["re\u{301}su\u{ad}me"]);
}

#[test]
fn all_quotation_marks_make_phrases() {
    let text = "war and peace; peace and war";
    for query in [
        "\"war and peace\"",
        "“war and peace”",
        "„war and peace“",
        "«war and peace»",
        "»war and peace«",
        "‹war and peace›",
        "「war and peace」",
        "＂war and peace＂",
    ] {
        assert_eq!(marked(query, text), ["war and peace"], "{query}");
        assert_absent(&[&format!("war -{query}")], text);
    }
    // In a text they equal the keyboard's quotation marks.
    assert_eq!(marked("{\"id\":7}", "{“id”:7}"), ["{“id”:7}"]);
    assert_eq!(marked("«война и мир»", "роман “Война\u{a0}и мир”"), ["Война\u{a0}и мир"]);
}

#[test]
fn a_highlight_tears_no_sign_apart_and_takes_nothing_invisible_along() {
    assert_eq!(find("o", "s\u{ad}o\u{ad}ft"), Some(vec![[2, 1]]));
    assert_eq!(find("❤", "x ❤\u{fe0f}!"), Some(vec![[2, 2]]));
    assert_eq!(find("❤\u{fe0f}", "x ❤!"), Some(vec![[2, 1]]));
    assert_eq!(find("f", "oﬃce"), Some(vec![[1, 1]]));
    assert_eq!(find("e", "e\u{200d}\u{301}x"), Some(vec![[0, 3]]));
}

#[test]
fn a_query_is_read_up_to_its_bounds() {
    let long = "a".repeat(MAX_QUERY_CHARS) + "b";
    assert_eq!(marked(&long, &long), ["a".repeat(MAX_QUERY_CHARS)]);
    let words: String = ('一'..).take(MAX_QUERY_CHARS).flat_map(|c| [c, ' ']).collect();
    assert_found(&[&words], &words);
}

/// A text of the longest kind, made so that every term of the query looks promising everywhere.
#[test]
fn a_hostile_query_stays_cheap() {
    let query: String = (1..=21).map(|n| format!("{} ", "y".repeat(n))).collect();
    // The first search of a process makes a table.
    assert_absent(&["y"], "é");
    for text in [
        "y".repeat(4_000),
        "yyy ".repeat(1_000),
        "e\u{301}".repeat(2_000),
        format!("e{}\u{301}", "\u{200d}".repeat(3_998)),
        " \u{200d}".repeat(2_000),
        // The longest decomposition there is: 18 characters.
        "\u{fdfa}".repeat(4_000),
    ] {
        let (query, mut scratch) = (Query::parse(&query), Scratch::default());
        let started = std::time::Instant::now();
        let _ = query.find(&text, &mut scratch);
        // Enough for an unoptimised build on a busy machine, while quadratic work would take seconds.
        assert!(started.elapsed().as_millis() < 1_000, "{:?}", started.elapsed());
    }
}

/// A query and a text that have something in common.
fn awkward_pair() -> impl Strategy<Value = (String, String)> {
    (awkward_text(), awkward_text(), awkward_text())
        .prop_map(|(before, query, after)| (query.clone(), before + &query + &after))
}

proptest! {
    #[test]
    fn highlights_are_well_formed((query, text) in awkward_pair()) {
        let mut end = 0;
        for [start, length] in find(&query, &text).unwrap_or_default() {
            prop_assert!(start >= end && length > 0);
            end = start + length;
            for edge in [start, end] {
                let units = || text.chars().scan(0, |at, c| { *at += c.len_utf16() as u32; Some(*at) });
                prop_assert!(edge == 0 || units().any(|at| at == edge), "{} in {:?}", edge, text);
            }
        }
    }

    #[test]
    fn a_match_highlights_something((query, text) in awkward_pair()) {
        prop_assert_ne!(find(&query, &text), Some(vec![]));
    }

    #[test]
    fn a_part_of_the_text_is_found_in_any_case(
        before in "[a-zа-яё東京😀0-9 %_.]{0,20}",
        word in "[a-zа-яёéöǆ東京😀0-9%_.*+\\\\ßσς]{1,20}",
        after in "[a-zа-яё東京😀0-9 %_.]{0,20}",
    ) {
        let text = format!("{before}{word}{after}");
        for (query, text) in [
            (word.clone(), text.clone()),
            (word.to_uppercase(), text.clone()),
            (word.to_lowercase(), text.to_uppercase()),
        ] {
            prop_assert!(find(&query, &text).is_some(), "{:?} in {:?}", query, text);
        }
    }

    #[test]
    fn a_query_and_its_negative_divide_all_texts(
        word in "[a-zа-яё東京0-9%_]{1,6}", text in "[a-zа-яё東京0-9 %_.]{0,30}",
    ) {
        let text = format!("{text} anchor");
        prop_assert_ne!(
            find(&word, &text).is_some(),
            find(&format!("anchor -{word}"), &text).is_some()
        );
    }
}
