//! What /proc shows of a tree, to be compared before a dump and after its restore.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Facts about a tree by the place of the process in it, the thread and the name of the fact. PIDs of the tree and inode
/// numbers are left out: they stay (the former) or change (the latter) by design.
#[derive(Debug, Default)]
pub(crate) struct State(BTreeMap<(usize, usize, String), String>);

/// The lines of /proc/PID/status that a restore should keep.
const STATUS: [&str; 17] = [
    "Name",
    "Uid",
    "Gid",
    "Groups",
    "SigPnd",
    "ShdPnd",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Cpus_allowed",
];

/// Flags of descriptors that change without anybody noticing: O_LARGEFILE, O_DIRECTORY, O_TMPFILE.
const IGNORED_FLAGS: u32 = 0o100_000 | 0o200_000 | 0o20_000_000;

impl State {
    /// The state of the processes with these PIDs, the root first.
    pub(crate) fn of(pids: &[i32]) -> Self {
        let mut state = Self::default();
        for (place, pid) in pids.iter().enumerate() {
            state.read_process(place, *pid, pids);
        }
        state
    }

    /// What is different afterwards, a line each.
    pub(crate) fn lost(&self, after: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for ((place, thread, name), before) in &self.0 {
            match after.0.get(&(*place, *thread, name.clone())) {
                Some(now) if now == before => {}
                Some(now) => lines.push(format!("process {place} thread {thread}: {name}: {before} became {now}")),
                None => lines.push(format!("process {place} thread {thread}: {name}: {before} is gone")),
            }
        }
        lines
    }

    fn put(&mut self, place: usize, thread: usize, name: &str, value: impl Into<String>) {
        self.0.insert((place, thread, name.to_owned()), value.into());
    }

    fn read_process(&mut self, place: usize, pid: i32, tree: &[i32]) {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let stat = read(&process.join("stat"));
        let fields: Vec<&str> = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
        let field = |n: usize| fields.get(n).copied().unwrap_or_default();
        // The state matters only where it lasts.
        if matches!(field(0), "T" | "Z" | "t") {
            self.put(place, 0, "state", field(0));
        }
        let relative = |of: &str| match tree.iter().position(|pid| pid.to_string() == of) {
            Some(place) => place.to_string(),
            None => "outside".to_owned(),
        };
        self.put(place, 0, "process group", relative(field(2)));
        self.put(place, 0, "session", relative(field(3)));
        if field(0) == "Z" {
            return;
        }
        self.put(place, 0, "exit signal", field(35));
        for name in ["cwd", "root", "exe"] {
            self.put(place, 0, name, link(&process.join(name)));
        }
        for name in ["oom_score_adj", "personality", "timerslack_ns", "cmdline"] {
            self.put(place, 0, name, read(&process.join(name)).replace('\0', " "));
        }
        for limit in read(&process.join("limits")).lines().skip(1) {
            let (name, value) = limit.split_at_checked(26).unwrap_or((limit, ""));
            self.put(place, 0, name.trim(), value.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        self.put(place, 0, "POSIX timers", read(&process.join("timers")).matches("ID:").count().to_string());
        self.put(place, 0, "sealed mappings", read(&process.join("smaps")).matches(" sl").count().to_string());
        let mut threads = entries(&process.join("task"));
        threads.sort_unstable();
        for (number, thread) in threads.into_iter().enumerate() {
            self.read_thread(place, number, &process.join("task").join(thread.to_string()));
        }
    }

    fn read_thread(&mut self, place: usize, thread: usize, directory: &Path) {
        let status = read(&directory.join("status"));
        for line in status.lines() {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            if STATUS.contains(&name) {
                self.put(place, thread, name, value.trim());
            }
        }
        let stat = read(&directory.join("stat"));
        let fields: Vec<&str> = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
        for (name, at) in [("priority", 15), ("nice", 16), ("real-time priority", 37), ("scheduling policy", 38)] {
            self.put(place, thread, name, fields.get(at).copied().unwrap_or_default());
        }
        for namespace in ["mnt", "net", "ipc", "uts", "user", "pid", "pid_for_children", "cgroup"] {
            let theirs = link(&directory.join("ns").join(namespace));
            let ours = link(&Path::new("/proc/self/ns").join(namespace));
            self.put(place, thread, &format!("{namespace} namespace"), if theirs == ours { "shared" } else { "own" });
        }
        for descriptor in entries(&directory.join("fd")) {
            let target = link(&directory.join("fd").join(descriptor.to_string()));
            let info = read(&directory.join("fdinfo").join(descriptor.to_string()));
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default().trim();
            let flags = u32::from_str_radix(flags, 8).unwrap_or_default() & !IGNORED_FLAGS;
            self.put(place, thread, &format!("descriptor {descriptor}"), format!("{} {flags:o}", nameless(&target)));
        }
    }
}

/// A descriptor's target without what may change: inode numbers, and the name a ghost file is restored under.
fn nameless(target: &str) -> String {
    let kind = target.split_once(":[").map_or(target, |(kind, _)| kind);
    match kind.strip_suffix(" (deleted)") {
        Some(path) => format!("deleted file in {}", Path::new(path).parent().unwrap_or(Path::new("")).display()),
        None => kind.to_owned(),
    }
}

/// What cannot be read is an empty text: the comparison shows it.
fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn link(path: &Path) -> String {
    fs::read_link(path).map(|target| target.to_string_lossy().into_owned()).unwrap_or_default()
}

fn entries(directory: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}
