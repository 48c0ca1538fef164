//! Input and output of the conversation.
//!
//! In a terminal a line is edited while others appear above it. When it is finished it disappears, and
//! it appears among the others once the service has it. If input or output is no terminal, lines are
//! plain: messages go to the output, notes to the error output.

use std::{
    collections::VecDeque,
    io::{self, BufRead, IsTerminal, Read as _, Write},
    time::Duration,
};

use beseda_protocol::bounds::MAX_TEXT_CHARS;
use jiff::{Timestamp, tz::TimeZone};
use rustyline_async::{Readline, ReadlineEvent, SharedWriter};
use tokio::sync::{mpsc, oneshot};

use super::lines::{Line, Times};

/// Capacity of the queues of lines to be shown, and of typed lines: a full queue slows the other end.
const WAITING: usize = 256;

/// Most bytes that are kept of a line: more than the longest text, so that a longer line is refused for
/// its length, and bounded, for a line without an end.
const MAX_LINE_BYTES: u64 = MAX_TEXT_CHARS as u64 * 4 + 4;

/// Time-out for showing the remaining lines at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// An action of the user.
#[derive(Debug)]
pub(super) enum Input {
    Line(String),
    /// A line that is not UTF-8: its number, from 1.
    NotText(u64),
    /// The input has ended.
    End,
    /// Ctrl-C, if the terminal does not turn it into a signal.
    Interrupted,
}

pub(super) struct Console {
    input: mpsc::Receiver<Input>,
    /// Lines to be shown. The task that shows them ends when this is dropped.
    output: mpsc::Sender<Line>,
    shown: oneshot::Receiver<()>,
    terminal: bool,
}

impl Console {
    /// Opens the console. In a terminal, `prompt` precedes the edited line.
    pub(super) fn open(prompt: &str) -> Self {
        let (typed, input) = mpsc::channel(WAITING);
        let (output, lines) = mpsc::channel(WAITING);
        let (done, shown) = oneshot::channel();
        let terminal = match editor(prompt) {
            Some(editor) => {
                tokio::spawn(async move {
                    editor.run(typed, lines).await;
                    let _ = done.send(());
                });
                true
            }
            None => {
                // Both block; nothing waits for the reader.
                std::thread::spawn(move || read_lines(&typed));
                std::thread::spawn(move || {
                    print(lines, Times::Full);
                    let _ = done.send(());
                });
                false
            }
        };
        Self { input, output, shown, terminal }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Waits for the next input; after [`Input::End`] for ever. Safe to cancel.
    pub(super) async fn next(&mut self) -> Input {
        match self.input.recv().await {
            Some(input) => input,
            None => std::future::pending().await,
        }
    }

    /// Shows a line. Returns whether the output is still read.
    pub(super) async fn show(&self, line: Line) -> bool {
        self.output.send(line).await.is_ok()
    }

    /// Shows the remaining lines, and restores the terminal.
    pub(super) async fn close(self) {
        drop(self.output);
        let _ = tokio::time::timeout(LAST_LINES, self.shown).await;
    }
}

/// A terminal whose last line is edited. Restores it when dropped.
struct LineEditor {
    readline: Readline,
    above: SharedWriter,
}

/// Opens the editor; `None` unless input and output are terminals.
fn editor(prompt: &str) -> Option<LineEditor> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return None;
    }
    let (mut readline, above) = Readline::new(prompt.to_owned()).ok()?;
    readline.should_print_line_on(false, false);
    Some(LineEditor { readline, above })
}

impl LineEditor {
    async fn run(mut self, typed: mpsc::Sender<Input>, mut lines: mpsc::Receiver<Line>) {
        let zone = TimeZone::system();
        // Typed lines not received yet. Nobody types so fast that they grow, and waiting for the receiver
        // would stop the output.
        let mut waiting = VecDeque::new();
        loop {
            // Biased: `readline` also prints earlier lines, so it is polled before more are taken.
            tokio::select! {
                biased;
                event = self.readline.readline() => {
                    let input = match event {
                        Ok(ReadlineEvent::Line(line)) => {
                            self.readline.add_history_entry(line.clone());
                            Input::Line(line)
                        }
                        Ok(ReadlineEvent::Interrupted) => Input::Interrupted,
                        Ok(ReadlineEvent::Eof) | Err(_) => Input::End,
                    };
                    let last = !matches!(input, Input::Line(_));
                    waiting.push_back(input);
                    if last {
                        break;
                    }
                }
                permit = typed.reserve(), if !waiting.is_empty() => match (permit, waiting.pop_front()) {
                    (Ok(permit), Some(input)) => permit.send(input),
                    _ => break,
                },
                line = lines.recv() => match line {
                    Some(line) => {
                        let text = line.render(Times::Short, Timestamp::now(), &zone);
                        if self.above.write_all(text.as_bytes()).is_err() {
                            break;
                        }
                    }
                    None => break,
                }
            }
        }
        let _ = self.readline.flush();
        drop(self);
        // From here on the terminal is an ordinary one, where Ctrl-C is a signal.
        std::thread::spawn(move || {
            for input in waiting {
                if typed.blocking_send(input).is_err() {
                    return;
                }
            }
        });
        let _ = tokio::task::spawn_blocking(move || print(lines, Times::Short)).await;
    }
}

fn read_lines(typed: &mpsc::Sender<Input>) {
    let mut stdin = io::stdin().lock();
    for number in 1.. {
        let Ok(Some(line)) = read_line(&mut stdin) else { break };
        let input = match String::from_utf8(line) {
            Ok(text) => Input::Line(text),
            Err(_) => Input::NotText(number),
        };
        if typed.blocking_send(input).is_err() {
            return;
        }
    }
    let _ = typed.blocking_send(Input::End);
}

/// Reads the next line without its end, cut after [`MAX_LINE_BYTES`]; `None` at the end.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        while line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if line.len() as u64 == MAX_LINE_BYTES {
        input.skip_until(b'\n')?;
        // The cut may split a character; the rest is still too long.
        let whole = std::str::from_utf8(&line).map_or_else(
            |error| if error.error_len().is_none() { error.valid_up_to() } else { line.len() },
            str::len,
        );
        line.truncate(whole);
    }
    Ok(Some(line))
}

fn print(mut lines: mpsc::Receiver<Line>, times: Times) {
    let zone = TimeZone::system();
    while let Some(line) = lines.blocking_recv() {
        let text = line.render(times, Timestamp::now(), &zone);
        let written = match line {
            // A closed error output is no reason to end.
            Line::Note(_) => {
                let _ = io::stderr().write_all(text.as_bytes());
                Ok(())
            }
            _ => io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()),
        };
        if written.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use beseda_protocol::bounds::check_text;

    use super::*;

    #[test]
    fn a_line_beyond_all_bounds_is_cut_and_the_next_one_is_whole() {
        // An odd byte first, so that the cut goes through a character.
        let long = format!("a{}", "я".repeat(1 << 20));
        let mut input = io::Cursor::new(format!("one\r\n{long}\n\ntwo"));
        let mut next =
            || read_line(&mut input).unwrap().map(|line| String::from_utf8(line).unwrap());
        assert_eq!(next().as_deref(), Some("one"));
        let cut = next().unwrap();
        assert!(long.starts_with(&cut) && cut.len() < 20_000, "{} bytes", cut.len());
        assert!(check_text(&cut).is_err(), "the cut text is still too long");
        assert_eq!(next().as_deref(), Some(""));
        assert_eq!(next().as_deref(), Some("two"));
        assert_eq!(next(), None);
    }
}
