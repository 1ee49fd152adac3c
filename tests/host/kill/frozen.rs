//! Dumps of a tree whose cgroup is frozen for it: whoever is killed, the cgroup is as it was within a second.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ::crr::host::cgroup::{Layout, Membership};
use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::goes_on;
use super::paused::{KILLED, Kill, Paused};
use crate::crr::Running;
use crate::need::Need::{self, Cc, Cgroup2, Criu, Netns, Root};
use crate::rounds::rounds;
use crate::until::{SOON, until};
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns, Cgroup2];

/// What a tree may lose at the most to the death of whoever had it frozen.
const SECOND: Duration = Duration::from_secs(1);

/// The steps of a dump at which the cgroup is frozen, or the tree is held, or neither yet.
const STEPS: [&str; 6] = ["pre-dump", "frozen", "query-ext-files", "post-dump", "record-written", "renamed"];

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in [Version::V1, Version::V2] {
        let name = format!("{version:?}").to_lowercase();
        trials.extend([
            test(format!("a_tree_frozen_by_{name}_for_a_dump_runs_on_after_it"), NEEDS, move || passes(version)),
            test(format!("a_tree_frozen_by_{name}_runs_on_when_crr_or_criu_is_killed"), NEEDS, move || struck(version)),
            test(format!("a_tree_that_was_frozen_by_{name}_before_stays_so"), NEEDS, move || stays_frozen(version)),
            test(format!("a_wild_tree_can_be_dumped_with_its_{name}_cgroup_frozen"), NEEDS, move || wild(version)),
        ]);
    }
    trials.push(test("the_guard_of_a_cgroup_survives_the_kill_of_crrs_cgroup", NEEDS, cgroup_kill));
    trials.push(test("a_cgroup_that_cannot_be_frozen_is_refused", NEEDS, refused));
    trials
}

/// Which hierarchy a tree is frozen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// A cgroup that can be frozen.
pub(crate) struct Cage {
    directory: PathBuf,
    version: Version,
    /// Whether the test made it.
    own: bool,
}

impl Cage {
    fn new(version: Version) -> Result<Self, Failed> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let layout = Layout::read()?;
        let name = if version == Version::V1 { "freezer" } else { "" };
        let hierarchy = layout.hierarchy(name).ok_or_else(|| format!("no hierarchy for {version:?} is mounted"))?;
        let name = format!("crr-cage-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let directory = hierarchy.mount.join(name);
        fs::create_dir(&directory)?;
        Ok(Self { directory, version, own: true })
    }

    /// That of a container.
    pub(crate) fn of(directory: PathBuf, version: Version) -> Self {
        Self { directory, version, own: false }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn path(&self) -> &str {
        self.directory.to_str().unwrap_or_default()
    }

    /// A command that runs in it from its first instruction.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\"", self.path()]).arg(program);
        command
    }

    fn set(&self, frozen: bool) -> Outcome {
        let (file, words) = match self.version {
            Version::V1 => ("freezer.state", ["THAWED", "FROZEN"]),
            Version::V2 => ("cgroup.freeze", ["0", "1"]),
        };
        fs::write(self.directory.join(file), words[usize::from(frozen)])?;
        until("the cgroup to be so", SOON, || (self.is_frozen() == frozen).then_some(()))
    }

    fn processes(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.directory.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
    }

    /// Whether its tasks stand still, or are about to.
    pub(crate) fn is_frozen(&self) -> bool {
        let read = |file: &str| fs::read_to_string(self.directory.join(file)).unwrap_or_default();
        match self.version {
            Version::V1 => read("freezer.state").trim() != "THAWED",
            Version::V2 => read("cgroup.freeze").trim() != "0" || !read("cgroup.events").contains("frozen 0"),
        }
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        if !self.own {
            return;
        }
        // A task on its way out is counted for a moment yet.
        let _ = until("a cgroup to be removed", SOON, || fs::remove_dir(&self.directory).is_ok().then_some(()));
    }
}

/// A tree in a cgroup of its own. What is first is dropped first.
struct Caged {
    victim: Victim,
    cage: Cage,
}

impl Caged {
    fn start(version: Version, program: &str, arguments: &[&str]) -> Result<Self, Failed> {
        let cage = Cage::new(version)?;
        // Tests of containers want it so.
        let program = programs::program_with(program, if program == "wild" { &["-static"] } else { &["-pthread"] })?;
        let command = cage.command(&program);
        let words: Vec<&str> = command.get_args().filter_map(|word| word.to_str()).collect();
        let victim = Victim::start(Path::new("/bin/sh"), &[&words, arguments].concat())?;
        Ok(Self { victim, cage })
    }

    fn dump(&self, more: &[&str]) -> Command {
        let mut command = crr::command();
        command.args(["dump", "--pid", &self.victim.pid().to_string(), "--freeze-cgroup", self.cage.path(), "--dir"]);
        command.arg(self.victim.images()).args(more);
        command
    }

    /// It runs, within a second.
    fn must_run(&self) -> Outcome {
        let tick = self.victim.last_tick();
        until("the cgroup to be thawed and the tree to tick", SECOND, || {
            (!self.cage.is_frozen() && self.victim.last_tick() > tick).then_some(())
        })
    }

    fn no_images(&self) -> Outcome {
        for directory in [self.victim.images(), super::partial(&self.victim.images())] {
            if directory.exists() {
                fs::remove_dir_all(directory)?;
            }
        }
        Ok(())
    }
}

impl Drop for Caged {
    fn drop(&mut self) {
        // Frozen, so that no process of it is missed; thawed, as of version 1 a frozen one does not even die.
        let _ = self.cage.set(true);
        for pid in self.cage.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.cage.set(false);
    }
}

/// The guards of a crr with this word on its command line.
pub(crate) fn guards(of: &Path) -> Vec<i32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let word = of.to_string_lossy().into_owned();
    pids.filter(|pid| {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        read("comm") == b"crr-guard\n" && String::from_utf8_lossy(&read("cmdline")).split('\0').any(|part| part == word)
    })
    .collect()
}

pub(crate) fn no_guard(of: &Path) -> Outcome {
    until("the guard to be gone", SECOND, || guards(of).is_empty().then_some(()))
}

/// Process group and session, of which the guard has its own.
fn group_and_session(pid: i32) -> Result<(String, String), Failed> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(") ").ok_or("no stat")?.1.split(' ').collect();
    Ok((fields[2].to_owned(), fields[3].to_owned()))
}

fn passes(version: Version) -> Outcome {
    let caged = Caged::start(version, "tree", &["5"])?;
    let tree = caged.victim.tree();
    for _ in 0..rounds(3) {
        let ran = Running::start(&mut caged.dump(&["--leave-running"]))?.end(SOON)?.must_pass("crr dump")?;
        ensure!(!ran.stderr.contains("cgroup"), "{}", ran.stderr);
        ensure!(!caged.cage.is_frozen(), "the cgroup is left frozen");
        caged.must_run()?;
        no_guard(&caged.victim.images())?;
        caged.no_images()?;
    }
    goes_on(&caged.victim, &tree)?;
    caged.victim.end()
}

fn struck(version: Version) -> Outcome {
    let caged = Caged::start(version, "tree", &["3"])?;
    let tree = caged.victim.tree();
    for step in STEPS {
        for strike in ["crr", "its process group", "CRIU", "both"] {
            strike_at(&caged, step, strike)
                .and_then(|()| goes_on(&caged.victim, &tree))
                .map_err(|failed| format!("{strike} at {step}: {}", failed.message().unwrap_or_default()))?;
            caged.no_images()?;
        }
    }
    caged.victim.end()
}

fn strike_at(caged: &Caged, step: &str, strike: &str) -> Outcome {
    let images = caged.victim.images();
    let paused = Paused::start(&mut caged.dump(&[]), step)?;
    let crr = Pid::from_raw(paused.pid());
    let guard = match guards(&images)[..] {
        [guard] => guard,
        ref other => return Err(format!("guards: {other:?}").into()),
    };
    if step == "frozen" {
        ensure!(caged.cage.is_frozen(), "the cgroup is not frozen");
        let (own, its) = (group_and_session(paused.pid())?, group_and_session(guard)?);
        ensure!(own.0 != its.0 && own.1 != its.1, "the guard has group and session {its:?}, and crr {own:?}");
        let open: Vec<_> = fs::read_dir(format!("/proc/{guard}/fd"))?.flatten().map(|fd| fd.path()).collect();
        let open: Vec<_> = open.iter().filter_map(|fd| fs::read_link(fd).ok()).collect();
        ensure!(open.len() == 2, "the guard has open {open:?}");
    }
    let criu = Pid::from_raw(paused.criu.ok_or("no CRIU")?);
    match strike {
        "crr" => kill(crr, Signal::SIGKILL)?,
        "its process group" => killpg(crr, Signal::SIGKILL)?,
        "CRIU" => {
            kill(criu, Signal::SIGKILL)?;
            kill(crr, Signal::SIGCONT)?;
        }
        _ => {
            kill(criu, Signal::SIGKILL)?;
            kill(crr, Signal::SIGKILL)?;
        }
    }
    caged.must_run()?;
    if strike == "CRIU" {
        paused.go_on()?.must_exit(76, "a dump whose CRIU was killed")?;
    } else {
        paused.strike(Kill::Crr)?.must_exit(KILLED, "a killed crr")?;
    }
    ensure!(!caged.cage.is_frozen(), "the cgroup is frozen again");
    no_guard(&images)
}

fn stays_frozen(version: Version) -> Outcome {
    let caged = Caged::start(version, "tree", &["3"])?;
    let (tree, images) = (caged.victim.tree(), caged.victim.images());
    caged.cage.set(true)?;
    let tick = || caged.victim.last_tick().unwrap_or(0);
    let before = tick();
    Running::start(&mut caged.dump(&["--leave-running"]))?.end(SOON)?.must_pass("crr dump")?;
    ensure!(caged.cage.is_frozen(), "it was thawed by a dump");
    ensure!(tick() == before, "it ran after a dump, from tick {before} to {}", tick());
    caged.no_images()?;
    for step in ["pre-dump", "query-ext-files", "post-dump"] {
        for kill in [Kill::CtrlC, Kill::Criu, Kill::Crr] {
            let before = tick();
            Paused::start(&mut caged.dump(&[]), step)?.strike(kill)?;
            until(format_args!("the cgroup to be frozen after {kill:?} at {step}"), SECOND, || {
                caged.cage.is_frozen().then_some(())
            })?;
            no_guard(&images)?;
            ensure!(caged.cage.is_frozen(), "{kill:?} at {step}: it was thawed");
            let ran = tick() - before;
            // CRIU thaws what it holds, so that it runs when CRIU is killed, until the guard sees that.
            ensure!(ran == 0 || (kill == Kill::Criu && ran <= 10), "{kill:?} at {step}: it ran for {ran} ticks");
            caged.no_images()?;
        }
    }
    caged.cage.set(false)?;
    goes_on(&caged.victim, &tree)?;
    caged.victim.end()
}

fn wild(version: Version) -> Outcome {
    let caged = Caged::start(version, "wild", &["8"])?;
    let mut command = crr::command();
    command.args(["dump", "--leave-running", "--pid", &caged.victim.pid().to_string(), "--dir"]);
    let ran = Running::start(command.arg(caged.victim.images()))?.end(SOON)?;
    // It may succeed by luck; if it does not, crr says what helps.
    ensure!(ran.passed() || ran.stderr.contains("--freeze-cgroup"), "{}", ran.stderr);
    caged.no_images()?;
    for _ in 0..rounds(3) {
        Running::start(&mut caged.dump(&["--leave-running"]))?.end(SOON)?.must_pass("a dump of a frozen tree")?;
        caged.must_run()?;
        caged.no_images()?;
    }
    Ok(())
}

/// As the end of a service does it.
fn cgroup_kill() -> Outcome {
    let caged = Caged::start(Version::V1, "tree", &["3"])?;
    let (tree, images) = (caged.victim.tree(), caged.victim.images());
    let service = Cage::new(Version::V2)?;
    let dump = caged.dump(&[]);
    let mut command = service.command(Path::new(dump.get_program()));
    let paused = Paused::start(command.args(dump.get_args()), "frozen")?;
    ensure!(caged.cage.is_frozen(), "the cgroup is not frozen");
    let own = Membership::of(paused.pid())?;
    ensure!(own.0.get("").is_some_and(|path| service.directory.ends_with(path.trim_start_matches('/'))), "{own:?}");
    fs::write(service.directory.join("cgroup.kill"), "1")?;
    caged.must_run()?;
    paused.strike(Kill::Crr)?.must_exit(KILLED, "a killed crr")?;
    no_guard(&images)?;
    goes_on(&caged.victim, &tree)?;
    caged.victim.end()
}

fn refused() -> Outcome {
    let caged = Caged::start(Version::V1, "tree", &["2"])?;
    let tree = caged.victim.tree();
    let pid = caged.victim.pid().to_string();
    let with = |cgroup: &Path, words: &[&str]| -> Result<Command, Failed> {
        let mut command = crr::command();
        command.args(["dump", "--pid", &pid, "--dir"]).arg(caged.victim.images()).arg("--freeze-cgroup").arg(cgroup);
        command.args(words);
        Ok(command)
    };
    let no_cgroup = Running::start(&mut with(caged.victim.directory(), &[])?)?.end(SOON)?.must_exit(64, "no cgroup")?;
    ensure!(no_cgroup.stderr.contains("freezer.state"), "{}", no_cgroup.stderr);
    let nowhere = caged.victim.directory().join("nowhere");
    Running::start(&mut with(&nowhere, &[])?)?.end(SOON)?.must_exit(66, "no directory")?;
    Running::start(&mut with(&nowhere, &["--dry-run"])?)?.end(SOON)?.must_exit(66, "no directory, dry")?;
    // It would freeze itself, for ever.
    let dump = caged.dump(&[]);
    let mut inside = caged.cage.command(Path::new(dump.get_program()));
    let inside = Running::start(inside.args(dump.get_args()))?.end(SOON)?.must_exit(64, "crr in the cgroup")?;
    ensure!(inside.stderr.contains("must not hold crr itself"), "{}", inside.stderr);
    ensure!(!caged.victim.images().exists(), "DIR is there");
    goes_on(&caged.victim, &tree)?;
    caged.victim.end()
}
