//! Finding the processes that a process started, also after its own end.

use std::{collections::BTreeMap, fs};

use nix::unistd::Pid;

/// The variable by which processes are known. It must not be one that Gust keeps from its children.
const VARIABLE: &str = "E2E_MARK";

/// A mark in the environment, which children inherit.
#[derive(Debug, Clone)]
pub struct Marked {
    value: String,
}

/// One process as `/proc` tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    parent: i32,
    state: char,
    /// Clock ticks from boot to the start: with the id, it tells a process from a later one of the same id.
    started: u64,
    command: String,
}

impl Marked {
    /// A mark that no other test uses.
    pub fn new(name: &str) -> Self {
        Self { value: format!("{name}-{}", std::process::id()) }
    }

    /// The variable and its value.
    pub fn variable(&self) -> (&'static str, &str) {
        (VARIABLE, &self.value)
    }

    /// Every process that lives and has the mark or descends from `root`: id, start and command line.
    pub fn family(&self, root: Pid) -> Vec<(i32, u64, String)> {
        let all = processes();
        let needle = format!("{VARIABLE}={}", self.value);
        let belongs = |pid: i32| {
            let is_marked = fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
                environ.split(|byte| *byte == 0).any(|entry| entry == needle.as_bytes())
            });
            is_marked || descends(&all, pid, root.as_raw())
        };
        all.iter()
            .filter(|(pid, entry)| entry.state != 'Z' && belongs(**pid))
            .map(|(pid, entry)| (*pid, entry.started, entry.command.clone()))
            .collect()
    }

    /// Which of `known`, or of what has the mark, still live.
    pub fn survivors(&self, root: Pid, known: &[(i32, u64, String)]) -> Vec<(i32, u64, String)> {
        let all = processes();
        let lives = |pid: i32, started: u64| {
            all.get(&pid).is_some_and(|entry| entry.started == started && entry.state != 'Z')
        };
        let mut alive = self.family(root);
        alive.extend(known.iter().filter(|(pid, started, _)| lives(*pid, *started)).cloned());
        alive.sort();
        alive.dedup();
        alive
    }
}

fn descends(all: &BTreeMap<i32, Entry>, pid: i32, root: i32) -> bool {
    let mut at = pid;
    // Ids change while they are read, so a circle is possible in what was read.
    for _ in 0..64 {
        if at == root {
            return true;
        }
        match all.get(&at) {
            Some(entry) if entry.parent > 1 => at = entry.parent,
            _ => return false,
        }
    }
    false
}

fn processes() -> BTreeMap<i32, Entry> {
    let Ok(folder) = fs::read_dir("/proc") else { return BTreeMap::new() };
    folder
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name stands in parentheses and may hold anything.
            let (_, rest) = stat.rsplit_once(')')?;
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            Some((
                pid,
                Entry {
                    state: fields.first()?.chars().next()?,
                    parent: fields.get(1)?.parse().ok()?,
                    started: fields.get(19)?.parse().ok()?,
                    command: String::from_utf8_lossy(&command).replace('\0', " "),
                },
            ))
        })
        .collect()
}
