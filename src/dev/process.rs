//! The child processes of both servers: start, end and errors.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::DevError;

/// Pause between two checks of a child: short against the tenth of a second that a start takes.
pub(super) const POLL: Duration = Duration::from_millis(10);

/// Time-out of a start. It takes well under a second, but recovery after a crash, on a busy machine with
/// slow disks, can take many.
pub(super) const READY_CEILING: Duration = Duration::from_secs(60);

/// Time-out of an orderly end, after which the child is killed: a checkpoint or a snapshot of a
/// developer's data takes far less.
const STOP_CEILING: Duration = Duration::from_secs(20);

/// How long `Drop` blocks its thread until a child ends.
const DROP_CEILING: Duration = Duration::from_secs(3);

/// The tail of a log that an error shows, in bytes: about thirty lines.
const LOG_TAIL: u64 = 4096;

/// Ports for children, below the ranges for outgoing connections (32768 and up on Linux, 49152 on
/// macOS): one of those could be taken while its server restarts.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Waits for the end of its standard input, which comes when the process at the other end has ended in
/// any way. Then it ends the server `$1` with the signal `$2`, after ten seconds with SIGKILL, and
/// removes the folder `$3`, if given.
const GUARD: &str = r#"
read -r _
kill -s "$2" "$1" 2>/dev/null
n=0
while [ "$n" -lt 100 ] && kill -0 "$1" 2>/dev/null; do
    # Ended, but its new parent has not noticed yet.
    case $(cat "/proc/$1/stat" 2>/dev/null) in *") Z "*) break ;; esac
    sleep 0.1
    n=$((n + 1))
done
kill -s KILL "$1" 2>/dev/null
[ -z "$3" ] || rm -rf -- "$3"
"#;

/// A running server, and the guard that outlives this process. Dropping it ends both.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    guard: Child,
    /// Ends the server at once, without leaving children or shared memory of its own.
    at_once: Signal,
}

impl Server {
    /// Starts `command` in its own process group, and appends its output to `log`.
    ///
    /// If this process is killed, the guard sends `orphaned` and then removes `folder`.
    pub(super) fn spawn(
        mut command: Command,
        log: &Path,
        at_once: Signal,
        orphaned: Signal,
        folder: Option<&Path>,
    ) -> Result<Self, DevError> {
        let output = fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(DevError::io(format!("cannot write {}", log.display())))?;
        let errors = output.try_clone().map_err(DevError::io("cannot share a log file"))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(DevError::io(format!("cannot run {}", command.get_program().display())))?;
        let guard = Command::new("/bin/sh")
            .args(["-c", GUARD, "beseda-guard", &child.id().to_string()])
            .arg(orphaned.as_str().trim_start_matches("SIG"))
            .args(folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match guard {
            Ok(guard) => Ok(Self { child, guard, at_once }),
            Err(source) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(DevError::Io { what: "cannot run /bin/sh".to_owned(), source })
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal. A server that has ended already is no error, since most signals ask for that.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = kill(pid(&self.child), signal);
    }

    /// Returns its exit status, if it has ended.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to end, and kills it after [`STOP_CEILING`].
    pub(super) async fn stop(mut self, orderly: Signal) {
        self.signal(orderly);
        // A paused server can't act on a signal.
        self.signal(Signal::SIGCONT);
        let deadline = Instant::now() + STOP_CEILING;
        while self.ended().is_none() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(self.at_once);
            self.signal(Signal::SIGCONT);
            let deadline = Instant::now() + DROP_CEILING;
            while self.ended().is_none() && Instant::now() < deadline {
                thread::sleep(POLL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // Killed before its input closes: it must not signal a process id that is free again.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// Finds a free loopback port. Another process may take it before the server starts, so callers retry.
pub(super) fn free_port() -> Result<u16, DevError> {
    for _ in 0..200 {
        let port = rand::random_range(PORTS);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    any.map(|address| address.port()).map_err(DevError::io("no free port on 127.0.0.1"))
}

/// Reads the tail of a log, for an error.
pub(super) fn log_tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).trim_end().to_owned())
    };
    read().unwrap_or_else(|error| format!("({}: {error})", log.display()))
}

/// Reads a path from an environment variable; `None` if it is empty or missing.
pub(super) fn named_path(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The folders of `PATH`.
pub(super) fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(pid: &str) -> bool {
        Command::new("/bin/kill")
            .args(["-0", pid])
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    }

    /// Closes the guard's input, which is all that the guard sees of a SIGKILL of this process.
    #[test]
    fn the_guard_ends_an_orphan_and_removes_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let doomed = folder.path().join("doomed");
        fs::create_dir(&doomed).unwrap();
        let mut command = Command::new("/bin/sleep");
        command.arg("60");
        let log = folder.path().join("log");
        let mut server =
            Server::spawn(command, &log, Signal::SIGKILL, Signal::SIGTERM, Some(&doomed)).unwrap();
        drop(server.guard.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(5);
        // Reaps the child in between, because to the guard a zombie still exists.
        while server.guard.try_wait().unwrap().is_none() && Instant::now() < deadline {
            server.ended();
            thread::sleep(POLL);
        }
        assert!(server.ended().is_some());
        assert!(!doomed.exists());
    }

    #[test]
    fn dropping_a_server_ends_it_even_when_paused() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sleep");
        command.arg("60");
        let log = folder.path().join("log");
        let server = Server::spawn(command, &log, Signal::SIGTERM, Signal::SIGTERM, None).unwrap();
        let pid = server.pid().to_string();
        assert!(alive(&pid));
        server.signal(Signal::SIGSTOP);
        drop(server);
        assert!(!alive(&pid));
    }
}
