//! CPU time and memory of processes and all their children, from `/proc`.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    str::FromStr,
    time::Duration,
};

use crate::error::Error;

/// Ticks a second in `/proc/PID/stat`: `USER_HZ`, 100 on every architecture that this runs on.
const TICKS_A_SECOND: u64 = 100;

/// A measured process; several may share a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub name: String,
    pub pid: u32,
}

impl FromStr for Process {
    type Err = &'static str;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        let (name, pid) = raw.split_once('=').ok_or("must be NAME=PID")?;
        let pid = pid.parse().map_err(|_| "PID must be a number")?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

/// The name of this program in the results.
const OWN: &str = "loadtest";

/// CPU time and memory of processes by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(BTreeMap<String, Usage>);

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Since the processes began.
    pub cpu: Duration,
    /// Resident memory in bytes; pages shared within a tree count once.
    pub memory: u64,
}

impl Sample {
    /// Samples these processes, and this one without its children.
    pub(crate) fn take(processes: &[Process]) -> Result<Self, Error> {
        let all = read_all();
        let time = |ticks| Duration::from_millis(ticks * 1_000 / TICKS_A_SECOND);
        let id = std::process::id();
        let own =
            Usage { cpu: time(all.get(&id).map_or(0, |stat| stat.own)), memory: memory_of(&[id]) };
        let mut sample = Self(BTreeMap::from([(OWN.to_owned(), own)]));
        for Process { name, pid } in processes {
            let used = tree_ticks(&all, *pid).ok_or(Error::NoProcess(*pid))?;
            let usage = sample.0.entry(name.clone()).or_default();
            usage.cpu += time(used);
            usage.memory += memory_of(&tree(&all, *pid));
        }
        Ok(sample)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Usage)> {
        self.0.iter().map(|(name, usage)| (name.as_str(), *usage))
    }

    /// Returns the CPU time used since `earlier`, by name.
    pub(crate) fn cpu_since(&self, earlier: &Self) -> BTreeMap<String, Duration> {
        let before = |name: &str| earlier.0.get(name).map_or(Duration::ZERO, |usage| usage.cpu);
        self.iter()
            .map(|(name, now)| (name.to_owned(), now.cpu.saturating_sub(before(name))))
            .collect()
    }

    /// Returns the memory of the processes with this name; `None` if there are none.
    pub(crate) fn memory(&self, name: &str) -> Option<u64> {
        self.0.get(name).map(|usage| usage.memory)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    own: u64,
    /// CPU time of ended children, so that none is lost when one ends.
    reaped: u64,
}

fn read_all() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, parse(&stat)?))
        })
        .collect()
}

/// proc(5): after the name in parentheses, which may hold anything, come the state (3), the parent
/// (4), and user, system, children's user and children's system time (14 to 17).
fn parse(stat: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3);
    let ticks = |number: usize| field(number)?.parse::<u64>().ok();
    Some(Stat {
        parent: field(4)?.parse().ok()?,
        own: ticks(14)? + ticks(15)?,
        reaped: ticks(16)? + ticks(17)?,
    })
}

/// `None` if there is no such process.
fn tree_ticks(all: &HashMap<u32, Stat>, root: u32) -> Option<u64> {
    all.get(&root)?;
    let used = |pid| all.get(pid).map_or(0, |stat: &Stat| stat.own + stat.reaped);
    Some(tree(all, root).iter().map(used).sum())
}

/// Lists a process and its descendants.
fn tree(all: &HashMap<u32, Stat>, root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        let children = all.iter().filter(|(pid, stat)| stat.parent == parent && **pid != parent);
        found.extend(children.map(|(pid, _)| *pid));
    }
    found
}

/// What these processes hold: each one's own pages, and the largest share of what they have in
/// common (Postgres's buffers, the program), which would else count once for each.
fn memory_of(pids: &[u32]) -> u64 {
    let (mut own, mut common) = (0, 0);
    for pid in pids {
        // A process that has just ended has no memory.
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            kib.unwrap_or(0) * 1024
        };
        own += bytes("RssAnon:");
        common = common.max(bytes("RssFile:") + bytes("RssShmem:"));
    }
    own + common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_spaces_and_parentheses() {
        let stat = "7 (a (b) c) S 3 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5 6 7";
        assert_eq!(parse(stat), Some(Stat { parent: 3, own: 30, reaped: 70 }));
        assert_eq!(parse("7 (x"), None);
    }

    #[test]
    fn children_count_and_names_add_up() {
        let all = HashMap::from([
            (1, Stat { parent: 0, own: 5, reaped: 1 }),
            (2, Stat { parent: 1, own: 10, reaped: 1 }),
            (3, Stat { parent: 2, own: 20, reaped: 1 }),
            (4, Stat { parent: 0, own: 40, reaped: 1 }),
        ]);
        assert_eq!(tree_ticks(&all, 1), Some(38));
        assert_eq!(tree_ticks(&all, 9), None);
        let own = Process { name: "me".to_owned(), pid: std::process::id() };
        let sample = Sample::take(&[own.clone(), own]).unwrap();
        let names: Vec<&str> = sample.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["loadtest", "me"]);
        let (once, twice) = (sample.memory("loadtest").unwrap(), sample.memory("me").unwrap());
        assert!(once > 1 << 20 && twice > once, "{once} {twice}");
    }

    #[test]
    fn what_two_processes_share_counts_once() {
        let id = std::process::id();
        let (one, two) = (memory_of(&[id]), memory_of(&[id, id]));
        assert!(one < two && two < 2 * one, "{one} {two}");
    }

    #[test]
    fn processes_are_named() {
        let process = Process { name: "postgres".to_owned(), pid: 7 };
        assert_eq!("postgres=7".parse(), Ok(process));
        assert!("postgres".parse::<Process>().is_err());
    }
}
