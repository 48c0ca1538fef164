//! The real `beseda chat`, with pipes or a terminal.

use std::{
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::{
    pty::{OpenptyResult, Winsize, openpty},
    sys::termios::{LocalFlags, tcgetattr},
};

use super::{User, eventually_within};

/// Longest wait: a reconnect may need several attempts.
const PATIENCE: Duration = Duration::from_secs(60);

/// The terminal's size: each line of the tests fits into one row.
const WINDOW: Winsize = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };

type Text = Arc<Mutex<String>>;

/// `beseda chat`, killed on drop.
pub(crate) struct Talker {
    child: Child,
    input: Option<Box<dyn Write + Send>>,
    output: Text,
    notes: Text,
    /// The terminal's other end, if it has one.
    terminal: Option<OwnedFd>,
}

impl Talker {
    /// Starts it as `user`, in a chat with `with`, at these replicas.
    pub(crate) fn start(user: &User, with: &str, replicas: &[usize]) -> Self {
        let mut command = command(user, ["--with", with], replicas);
        Self::over_pipes(command.env("BESEDA_TOKEN", &user.token))
    }

    /// Starts it as `user`, in a group, by its room name or id.
    pub(crate) fn in_group(user: &User, chat: &str, replicas: &[usize]) -> Self {
        let mut command = command(user, ["--group", chat], replicas);
        Self::over_pipes(command.env("BESEDA_TOKEN", &user.token))
    }

    /// Starts it with a token that it signs itself, by the secret in a folder of `beseda dev`.
    pub(crate) fn beside(
        folder: &std::path::Path,
        user: &User,
        with: &str,
        replica: usize,
    ) -> Self {
        Self::over_pipes(command(user, ["--with", with], &[replica]).env("BESEDA_DEV_DATA", folder))
    }

    /// Starts it at a terminal.
    pub(crate) fn at_terminal(user: &User, with: &str, replica: usize) -> Self {
        let OpenptyResult { master, slave } = openpty(&WINDOW, None).expect("a terminal");
        let end = || Stdio::from(slave.try_clone().expect("a descriptor more"));
        let mut command = command(user, ["--with", with], &[replica]);
        command.env("BESEDA_TOKEN", &user.token).env("TERM", "xterm");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn();
        let screen = std::fs::File::from(master);
        let output = gather(screen.try_clone().expect("a descriptor more"));
        Self {
            child: child.expect("the program starts"),
            input: Some(Box::new(screen)),
            notes: Arc::clone(&output),
            output,
            terminal: Some(slave),
        }
    }

    fn over_pipes(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let output = gather(child.stdout.take().expect("its output"));
        let notes = gather(child.stderr.take().expect("its notes"));
        let input = child.stdin.take().expect("its input");
        Self { child, input: Some(Box::new(input)), output, notes, terminal: None }
    }

    /// Types text; a line ends with `\n`, at a terminal with `\r`.
    pub(crate) fn types(&mut self, text: &str) {
        self.types_bytes(text.as_bytes());
    }

    /// Types bytes, which need not be UTF-8.
    pub(crate) fn types_bytes(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("an input that has not ended");
        input.write_all(bytes).expect("it reads");
    }

    /// Closes its input.
    pub(crate) fn end_input(&mut self) {
        self.input = None;
    }

    /// Returns its raw output so far.
    pub(crate) fn raw(&self) -> String {
        self.output.lock().expect("no panic").clone()
    }

    /// Returns the messages so far, without the times: `alice: hello`.
    pub(crate) fn said(&self) -> Vec<String> {
        let time = "0000-00-00 00:00:00 ".len();
        let said = |line: &str| line.get(time..).unwrap_or(line).to_owned();
        self.raw().lines().map(said).collect()
    }

    pub(crate) fn notes(&self) -> String {
        self.notes.lock().expect("no panic").clone()
    }

    /// Waits for this message.
    pub(crate) async fn hears(&self, said: &str) {
        eventually_within(PATIENCE, async || {
            if self.said().iter().any(|line| line == said) { Ok(()) } else { Err(self.told()) }
        })
        .await;
    }

    /// Waits for this text in a note; at a terminal, anywhere on the screen.
    pub(crate) async fn notes_that(&self, part: &str) {
        eventually_within(PATIENCE, async || {
            if self.notes().contains(part) { Ok(()) } else { Err(self.told()) }
        })
        .await;
    }

    /// Waits for its end, and returns its status.
    pub(crate) async fn ended(&mut self) -> i32 {
        let ended = eventually_within(PATIENCE, async || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            _ => Err(self.told()),
        });
        ended.await.code().expect("it was not killed")
    }

    /// True if the terminal echoes and reads by line again, as before.
    pub(crate) fn terminal_is_as_before(&self) -> bool {
        let terminal = self.terminal.as_ref().expect("it is at a terminal");
        let flags = tcgetattr(terminal).expect("a terminal").local_flags;
        flags.contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG)
    }

    fn told(&self) -> String {
        format!("said:\n{}\nnoted:\n{}", self.raw(), self.notes())
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(user: &User, chat: [&str; 2], replicas: &[usize]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beseda"));
    command.env_clear().env("TZ", "UTC").args(["chat", "--as", &user.id]).args(chat);
    for replica in replicas {
        command.args(["--url", &format!("http://{}", user.on(*replica).host())]);
    }
    command
}

/// Reads to the end in a separate thread.
fn gather(mut from: impl Read + Send + 'static) -> Text {
    let text = Text::default();
    let gathered = Arc::clone(&text);
    std::thread::spawn(move || {
        let mut buffer = [0; 4_096];
        // A character may be cut in two.
        let mut bytes = Vec::new();
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..read]);
            *gathered.lock().expect("no panic") = String::from_utf8_lossy(&bytes).into_owned();
        }
    });
    text
}
