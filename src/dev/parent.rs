//! Ending with `make`: it neither takes its recipe along when it is killed, nor passes on a SIGINT
//! that was sent to it alone. It expects those to come from a terminal, to everyone at once.

use std::{fs, time::Duration};

use nix::unistd::{Pid, getppid};

/// How often the parent is looked at: soon enough for somebody who waits, nothing for the processor.
const INTERVAL: Duration = Duration::from_millis(300);

/// SIGINT's bit in the masks of `/proc/PID/status`.
const SIGINT_BIT: u64 = 1 << (2 - 1);

/// Returns once the process that started us is gone, or (seen on Linux only) is about to go: GNU
/// make stops catching SIGINT when it got one, and then waits for its recipe, without a limit.
pub(super) async fn ended() {
    let parent = getppid();
    let caught = catches_sigint(parent);
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        let interrupted = caught == Some(true) && catches_sigint(parent) == Some(false);
        if getppid() != parent || interrupted {
            return;
        }
    }
}

fn catches_sigint(pid: Pid) -> Option<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    Some(u64::from_str_radix(mask.trim(), 16).ok()? & SIGINT_BIT != 0)
}
