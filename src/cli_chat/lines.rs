//! Lines of output. Texts of others must never act as control sequences.

use jiff::{Timestamp, tz::TimeZone};

/// A line to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// A message.
    Said {
        at: Timestamp,
        who: String,
        text: String,
        edited: bool,
    },
    Deleted {
        at: Timestamp,
        who: String,
    },
    /// A message of the service itself.
    Told {
        at: Timestamp,
        what: String,
    },
    /// A note of this program.
    Note(String),
}

/// The format of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// For a terminal: the time, with the day if it is not today.
    Short,
    /// For a log: day and time.
    Full,
}

impl Line {
    pub(super) fn note(text: impl Into<String>) -> Self {
        Self::Note(text.into())
    }

    /// Formats it as plain lines, with a line break at the end. A text of others can't imitate other
    /// output: control characters are shown as symbols, and further lines of a text are marked.
    pub(super) fn render(&self, times: Times, now: Timestamp, zone: &TimeZone) -> String {
        let time = |at: Timestamp| {
            let (at, now) = (at.to_zoned(zone.clone()), now.to_zoned(zone.clone()));
            let format = match times {
                Times::Full => "%Y-%m-%d %H:%M:%S",
                Times::Short if at.date() == now.date() => "%H:%M",
                Times::Short => "%Y-%m-%d %H:%M",
            };
            at.strftime(format).to_string()
        };
        match self {
            Self::Said { at, who, text, edited } => {
                let edited = if *edited { " (edited)" } else { "" };
                let mut rendered = format!("{} {}{edited}: ", time(*at), harmless(who));
                for (number, line) in text.split('\n').enumerate() {
                    if number > 0 {
                        rendered += "\n    | ";
                    }
                    rendered += &harmless(line.strip_suffix('\r').unwrap_or(line));
                }
                rendered + "\n"
            }
            Self::Deleted { at, who } => {
                format!("* {}'s message of {} was deleted\n", harmless(who), time(*at))
            }
            Self::Told { at, what } => format!("{} * {}\n", time(*at), harmless(what)),
            Self::Note(text) => format!("* {}\n", harmless(text)),
        }
    }
}

/// Removes all that a terminal would interpret: escape sequences and other control characters, and marks
/// of the writing direction, by which a text can disguise itself. Returns one line.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => shown.push(' '),
            // Unicode has symbols for these: ␛ for the escape.
            '\u{0}'..='\u{1f}' => {
                shown.extend(char::from_u32(u32::from(character) + 0x2400));
            }
            '\u{7f}' => shown.push('\u{2421}'),
            '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}' => shown.extend(character.escape_unicode()),
            _ if character.is_control() => shown.extend(character.escape_unicode()),
            _ => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn moment(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn said(text: &str) -> String {
        let at = moment("2026-11-23T20:57:21Z");
        let (who, text) = ("bob".to_owned(), text.to_owned());
        Line::Said { at, who, text, edited: false }.render(Times::Short, at, &TimeZone::UTC)
    }

    #[test]
    fn escape_sequences_are_shown_and_not_obeyed() {
        assert_eq!(said("\u{1b}[2J\u{7}\u{9b}31m"), "20:57 bob: ␛[2J␇\\u{9b}31m\n");
        assert_eq!(said("a\rb\u{8}\u{7f}\tc"), "20:57 bob: a␍b␈␡ c\n");
        assert_eq!(said("\u{202e}txet"), "20:57 bob: \\u{202e}txet\n");
        assert_eq!(said("Привет, 東京 👩‍🚀"), "20:57 bob: Привет, 東京 👩‍🚀\n");
    }

    #[test]
    fn nobody_can_write_a_line_that_looks_like_another_ones() {
        let shown = said("hi\r\n20:58 alice: I agree\n* bob is offline");
        assert_eq!(shown, "20:57 bob: hi\n    | 20:58 alice: I agree\n    | * bob is offline\n");
        let at = moment("2026-11-23T20:57:21Z");
        let who = "x\n20:58 alice".to_owned();
        let line = Line::Deleted { at, who }.render(Times::Short, at, &TimeZone::UTC);
        assert_eq!(line.lines().count(), 1, "{line}");
    }

    #[test]
    fn times_are_as_long_as_they_need_be() {
        let (at, later) = (moment("2026-11-23T20:57:21Z"), moment("2026-11-24T08:00:00Z"));
        let line = Line::Deleted { at, who: "bob".to_owned() };
        let of = |times, now| line.render(times, now, &TimeZone::UTC);
        assert!(of(Times::Short, at).contains(" 20:57 "));
        assert!(of(Times::Short, later).contains(" 2026-11-23 20:57 "));
        assert!(of(Times::Full, at).contains(" 2026-11-23 20:57:21 "));
    }

    proptest! {
        #[test]
        fn no_text_has_a_control_character_left(text in any::<String>()) {
            let shown = said(&text);
            prop_assert!(!shown.trim_end_matches('\n').chars().any(|c| c.is_control() && c != '\n'));
            prop_assert!(shown.lines().skip(1).all(|line| line.starts_with("    | ")), "{shown}");
        }
    }
}
