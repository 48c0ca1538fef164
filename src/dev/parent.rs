//! Ending together with `make`. When `make` is killed its recipe goes on, and it does not forward a
//! SIGINT, because one from a terminal reaches the whole process group.

use std::{fs, time::Duration};

use nix::unistd::{Pid, getppid};

/// Pause between two checks of the parent: short for a user who waits, and cheap.
const INTERVAL: Duration = Duration::from_millis(300);

/// SIGINT's bit in the masks of `/proc/PID/status`.
const SIGINT_BIT: u64 = 1 << (2 - 1);

/// Returns once the parent process has ended or, on Linux only, is about to end: GNU make stops catching
/// SIGINT when it receives one, and then waits for its recipe without a limit.
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
