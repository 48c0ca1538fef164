//! CPU time of processes and all their children, from `/proc`.

use std::{collections::HashMap, fs, str::FromStr, time::Duration};

use crate::error::Error;

/// Ticks a second in `/proc/PID/stat`: `USER_HZ`, 100 on every architecture that this runs on.
const TICKS_A_SECOND: u64 = 100;

/// A process to be measured, under a name that several may share.
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

/// CPU seconds by name, in the order of first mention.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(Vec<(String, Duration)>);

impl Sample {
    pub(crate) fn take(processes: &[Process]) -> Result<Self, Error> {
        if processes.is_empty() {
            return Ok(Self::default());
        }
        let all = read_all();
        let mut sample = Self::default();
        for Process { name, pid } in processes {
            let used = Duration::from_millis(
                tree_ticks(&all, *pid).ok_or(Error::NoProcess(*pid))? * 1_000 / TICKS_A_SECOND,
            );
            match sample.0.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += used,
                None => sample.0.push((name.clone(), used)),
            }
        }
        Ok(sample)
    }

    /// What was used since `earlier`, by name.
    pub(crate) fn since(&self, earlier: &Self) -> Vec<(String, Duration)> {
        let before = |name: &str| {
            earlier.0.iter().find(|(known, _)| known == name).map_or(Duration::ZERO, |(_, t)| *t)
        };
        self.0.iter().map(|(name, now)| (name.clone(), now.saturating_sub(before(name)))).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Own, and of children that ended: with those of the living, no tick is lost when one ends.
    ticks: u64,
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
    let mut ticks = 0;
    for number in 14..=17 {
        ticks += field(number)?.parse::<u64>().ok()?;
    }
    Some(Stat { parent: field(4)?.parse().ok()?, ticks })
}

/// `None` where there is no such process.
fn tree_ticks(all: &HashMap<u32, Stat>, root: u32) -> Option<u64> {
    let mut sum = all.get(&root)?.ticks;
    let children = all.iter().filter(|(pid, stat)| stat.parent == root && **pid != root);
    for (pid, _) in children {
        sum += tree_ticks(all, *pid).unwrap_or(0);
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_spaces_and_parentheses() {
        let stat = "7 (a (b) c) S 3 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5 6 7";
        assert_eq!(parse(stat), Some(Stat { parent: 3, ticks: 100 }));
        assert_eq!(parse("7 (x"), None);
    }

    #[test]
    fn children_count_and_names_add_up() {
        let all = HashMap::from([
            (1, Stat { parent: 0, ticks: 5 }),
            (2, Stat { parent: 1, ticks: 10 }),
            (3, Stat { parent: 2, ticks: 20 }),
            (4, Stat { parent: 0, ticks: 40 }),
        ]);
        assert_eq!(tree_ticks(&all, 1), Some(35));
        assert_eq!(tree_ticks(&all, 9), None);
        let own = Process { name: "me".to_owned(), pid: std::process::id() };
        let sample = Sample::take(&[own.clone(), own]).unwrap();
        assert_eq!(sample.0.len(), 1);
    }

    #[test]
    fn processes_are_named() {
        let process = Process { name: "postgres".to_owned(), pid: 7 };
        assert_eq!("postgres=7".parse(), Ok(process));
        assert!("postgres".parse::<Process>().is_err());
    }
}
