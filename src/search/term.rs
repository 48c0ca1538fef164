//! One word or phrase of a query, and its matches in a folded text.

use std::ops::Range;

use frostem::{Algorithm, Stemmer};
use memchr::memmem::Finder;

/// Longest word that is stemmed, in bytes. No real word is longer, and the time of a stemmer can grow with
/// the square of the length, which a hostile text would exploit.
const MAX_STEMMED_BYTES: usize = 128;

/// Shortest stem that is matched by form, in characters. With one letter, `ее`, `ей` and the letter `е`
/// would be one word.
const MIN_STEM_CHARS: usize = 2;

/// A part of a query, folded.
pub(super) struct Term {
    literal: Finder<'static>,
    forms: Option<Forms>,
}

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        self.literal.needle() == other.literal.needle()
            && self.forms.is_some() == other.forms.is_some()
    }
}

impl Term {
    pub(super) fn word(word: &str) -> Self {
        Self { forms: Forms::of(word), ..Self::phrase(word) }
    }

    pub(super) fn phrase(phrase: &str) -> Self {
        Self { literal: Finder::new(phrase).into_owned(), forms: None }
    }

    /// The length of the literal, in bytes.
    pub(super) fn len(&self) -> usize {
        self.literal.needle().len()
    }

    pub(super) fn occurs_in(&self, text: &str) -> bool {
        match &self.forms {
            None => self.literal.find(text.as_bytes()).is_some(),
            // The word and all its forms share this start, so without it none of them occurs.
            Some(forms) => forms.start.find(text.as_bytes()).is_some_and(|at| {
                self.literal.find(&text.as_bytes()[at..]).is_some()
                    || forms.words(text, at).next().is_some()
            }),
        }
    }

    /// Calls `found` with each match of the term; matches may overlap.
    pub(super) fn for_each_span(&self, text: &str, mut found: impl FnMut(Range<usize>)) {
        self.literal.find_iter(text.as_bytes()).for_each(|at| found(at..at + self.len()));
        self.forms.iter().flat_map(|forms| forms.words(text, 0)).for_each(found);
    }
}

/// The forms of a word: the words with its stem.
struct Forms {
    script: Script,
    stemmer: Stemmer,
    stem: String,
    /// The common start of all forms. It is searched for first, because stemming each word of a text
    /// would take a hundred times as long.
    start: Finder<'static>,
}

impl Forms {
    /// `None` if `word` has no known forms: it is not of letters alone, or of another script.
    fn of(word: &str) -> Option<Self> {
        let script = script(word.chars().next()?)?;
        if !script.has_forms(word) || !word.chars().all(|c| self::script(c) == Some(script)) {
            return None;
        }
        let stemmer = Stemmer::new(script.algorithm());
        let stem = stemmer.stem(word).into_owned();
        if stem.chars().count() < MIN_STEM_CHARS {
            return None;
        }
        let start = common_start(word, script.start_of_forms(&stem));
        if start.is_empty() {
            return None;
        }
        let start = Finder::new(start).into_owned();
        Some(Self { script, stemmer, stem, start })
    }

    /// Finds the words of `text` with this stem, from the byte `from` on.
    fn words<'a>(&'a self, text: &'a str, from: usize) -> impl Iterator<Item = Range<usize>> + 'a {
        self.start.find_iter(&text.as_bytes()[from..]).filter_map(move |at| {
            let at = from + at;
            let is_letter = |c| script(c) == Some(self.script);
            if text[..at].ends_with(is_letter) {
                return None;
            }
            let word = &text[at..];
            let word = &word[..word.find(|c| !is_letter(c)).unwrap_or(word.len())];
            (self.script.has_forms(word) && self.stemmer.stem(word) == self.stem)
                .then(|| at..at + word.len())
        })
    }
}

/// The scripts whose words are stemmed, each as its likeliest language.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Script {
    Cyrillic,
    Latin,
}

/// Returns the script of a folded letter. A change of script ends a word: `deployした` contains the word
/// `deploy`.
fn script(c: char) -> Option<Script> {
    match c {
        'a'..='z' => Some(Script::Latin),
        '\u{400}'..='\u{52f}' if c.is_alphabetic() => Some(Script::Cyrillic),
        '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' if c.is_alphabetic() => Some(Script::Latin),
        _ => None,
    }
}

impl Script {
    fn algorithm(self) -> Algorithm {
        match self {
            Self::Cyrillic => Algorithm::Russian,
            Self::Latin => Algorithm::English,
        }
    }

    /// Whether a word of this script is matched by form. Russian particles such as `не`, `по` and `то`
    /// are not: they are in every other text and share their stem with `нее`, `пою` and `той` without
    /// being forms of these. (`юг` and `юга` are one word.)
    fn has_forms(self, word: &str) -> bool {
        let particle = self == Self::Cyrillic
            && word.chars().count() == 2
            && word.ends_with(['а', 'е', 'и', 'о', 'у', 'ы', 'э', 'ю', 'я']);
        word.len() <= MAX_STEMMED_BYTES && !particle
    }

    /// Returns the part of `stem` with which all its words begin. The Russian stemmer only cuts off
    /// endings; the English one also rewrites the last letter of the stem (`happy`: `happi`, `hoping`:
    /// `hope`), and more in three words (`dying`: `die`).
    fn start_of_forms(self, stem: &str) -> &str {
        let end = match (self, stem) {
            (Self::Cyrillic, _) => stem.len(),
            (Self::Latin, "die" | "lie" | "tie") => 1,
            (Self::Latin, _) => stem.char_indices().next_back().map_or(0, |(at, _)| at),
        };
        &stem[..end]
    }
}

fn common_start<'a>(one: &'a str, other: &str) -> &'a str {
    let end = one
        .char_indices()
        .zip(other.chars())
        .find(|((_, a), b)| a != b)
        .map_or(one.len().min(other.len()), |((at, _), _)| at);
    &one[..end]
}
