//! Round trips of larger programs that check themselves: threads, a hundred processes, pipes and sockets, memory, timers,
//! Python. Each is taken through the criu program too, so that a failure of the program is told from one of crr.

use std::path::{Path, PathBuf};

use ::crr::checkpoint::{Manifest, RECORD_NAME, Record};
use ::crr::process::Tree;
use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::need::Need::{self, Cc, Criu, Netns, Python3, Root};
use crate::until::SOON;
use crate::victim::{self, Victim};
use crate::{Outcome, crr, ensure, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns, Python3];

/// A program, its arguments, and the options that the criu program must be given.
struct Subject {
    name: &'static str,
    source: &'static str,
    arguments: &'static [&'static str],
}

const SUBJECTS: &[Subject] = &[
    Subject { name: "twenty_threads", source: "threads", arguments: &["20"] },
    Subject { name: "a_hundred_processes", source: "tree", arguments: &["100"] },
    Subject { name: "pipes_and_local_sockets", source: "talk", arguments: &[] },
    Subject { name: "memory_that_changes", source: "memory", arguments: &["64", "4"] },
    Subject { name: "timers", source: "timers", arguments: &[] },
    Subject { name: "a_python_program", source: "program.py", arguments: &[] },
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for subject in SUBJECTS {
        trials.push(test(format!("{}_survives_criu", subject.name), NEEDS, || by_criu(subject)));
        trials.push(test(format!("{}_is_dumped_and_restored", subject.name), NEEDS, || by_crr(subject)));
        trials.push(test(format!("{}_has_the_files_that_were_forecast", subject.name), NEEDS, || forecast(subject)));
    }
    trials.push(test("a_tree_left_running_goes_on_and_its_checkpoint_restores", NEEDS, left_running));
    trials.push(test("one_checkpoint_is_restored_three_times", NEEDS, thrice));
    trials.push(test("a_tree_left_stopped_goes_on_when_continued", NEEDS, left_stopped));
    trials.push(test("criu_restores_what_crr_dumped", NEEDS, dumped_by_crr));
    trials.push(test("crr_restores_what_criu_dumped", NEEDS, dumped_by_criu));
    trials
}

fn start(subject: &Subject) -> Result<Victim, Failed> {
    let script = programs::file(subject.source);
    let (program, script): (PathBuf, Option<&Path>) = if subject.source.ends_with(".py") {
        (PathBuf::from("python3"), Some(&script))
    } else {
        (programs::program(subject.source)?, None)
    };
    let words: Vec<&str> = script.and_then(Path::to_str).into_iter().chain(subject.arguments.iter().copied()).collect();
    let victim = Victim::start(&program, &words)?;
    victim.await_ticks(3)?;
    victim.self_check()?;
    Ok(victim)
}

fn by_criu(subject: &Subject) -> Outcome {
    let mut victim = start(subject)?;
    let images = victim.images();
    std::fs::create_dir(&images)?;
    let tree = victim.tree();
    crr::criu("dump", &images, ["-t", &victim.pid().to_string()], SOON)?.must_pass("criu dump")?;
    victim.await_gone(&tree)?;
    crr::criu("restore", &images, ["-d"], SOON)?.must_pass("criu restore")?;
    came_back(&victim)
}

fn by_crr(subject: &Subject) -> Outcome {
    let mut victim = start(subject)?;
    let (images, tree) = (victim.images(), victim.tree());
    crr::dump(victim.pid(), &images, &[])?.must_pass("crr dump")?;
    victim.await_gone(&tree)?;
    crr::restore(&images, &[])?.must_pass("crr restore")?;
    came_back(&victim)
}

/// What is said of the files before the freeze is what the images then name, and CRIU insists on no more.
fn forecast(subject: &Subject) -> Outcome {
    let victim = start(subject)?;
    let root = PathBuf::from(format!("/proc/{}/root", victim.pid()));
    let forecast = Manifest::forecast(&Tree::read(victim.pid())?, &root)?;
    let (images, tree) = (victim.images(), victim.tree());
    crr::dump(victim.pid(), &images, &["--leave-running"])?.must_pass("crr dump --leave-running")?;
    let record = Record::parse(&std::fs::read(images.join(RECORD_NAME))?).map_err(|problem| problem.to_string())?;
    let insisted = |manifest: &Manifest| -> Vec<_> {
        let files = manifest.files().iter();
        files.map(|file| (file.path.clone(), file.uses.clone(), file.mode, file.build_id.clone())).collect()
    };
    let (said, named) = (insisted(&forecast), insisted(&record.files));
    ensure!(said == named, "forecast {said:#?}, and the images name {named:#?}");
    for (said, named) in forecast.files().iter().zip(record.files.files()) {
        let agree = said.size_bytes.is_none_or(|size| Some(size) == named.size_bytes);
        ensure!(agree, "{}: {:?} forecast, {:?} named", said.path.display(), said.size_bytes, named.size_bytes);
    }
    ensure!(forecast.elsewhere().compare(&root)?.iter().all(|file| !file.kind.is_fatal()), "it differs from itself");
    victim.kill_all()?;
    ensure!(!tree.is_empty(), "no tree");
    Ok(())
}

fn tree_of_five() -> Result<Victim, Failed> {
    start(&Subject { name: "tree", source: "tree", arguments: &["5"] })
}

fn left_running() -> Outcome {
    let mut victim = tree_of_five()?;
    let (images, tree) = (victim.images(), victim.tree());
    crr::dump(victim.pid(), &images, &["--leave-running"])?.must_pass("crr dump --leave-running")?;
    victim.await_ticks(3)?;
    victim.self_check()?;
    victim.ticks_without_gap()?;
    victim.kill_all()?;
    victim.await_gone(&tree)?;
    crr::restore(&images, &[])?.must_pass("crr restore")?;
    victim.await_ticks(3)?;
    victim.self_check()?;
    victim.end()
}

fn thrice() -> Outcome {
    let mut victim = tree_of_five()?;
    let (images, tree) = (victim.images(), victim.tree());
    crr::dump(victim.pid(), &images, &[])?.must_pass("crr dump")?;
    victim.await_gone(&tree)?;
    for _ in 0..3 {
        crr::restore(&images, &[])?.must_pass("crr restore")?;
        victim.await_ticks(3)?;
        victim.self_check()?;
        victim.kill_all()?;
        victim.await_gone(&tree)?;
    }
    Ok(())
}

fn left_stopped() -> Outcome {
    let victim = tree_of_five()?;
    crr::dump(victim.pid(), &victim.images(), &["--leave-stopped"])?.must_pass("crr dump --leave-stopped")?;
    for pid in victim.tree() {
        let state = victim::state(pid).unwrap_or('?');
        ensure!(state == 'T', "PID {pid} is in state {state}, not stopped");
        kill(Pid::from_raw(pid), Signal::SIGCONT)?;
    }
    came_back(&victim)
}

fn dumped_by_crr() -> Outcome {
    let mut victim = tree_of_five()?;
    let (images, tree) = (victim.images(), victim.tree());
    crr::dump(victim.pid(), &images, &[])?.must_pass("crr dump")?;
    victim.await_gone(&tree)?;
    crr::criu("restore", &images, ["-d"], SOON)?.must_pass("criu restore")?;
    came_back(&victim)
}

fn dumped_by_criu() -> Outcome {
    let mut victim = tree_of_five()?;
    let (images, tree) = (victim.images(), victim.tree());
    std::fs::create_dir(&images)?;
    crr::criu("dump", &images, ["-t", &victim.pid().to_string()], SOON)?.must_pass("criu dump")?;
    victim.await_gone(&tree)?;
    // crr never made this directory 0700, and it is the tests' own.
    crr::restore(&images, &[])?.must_pass("crr restore")?;
    came_back(&victim)
}

/// The tree goes on where it was, finds itself intact, and ends as it should.
fn came_back(victim: &Victim) -> Outcome {
    victim.await_ticks(3)?;
    victim.self_check()?;
    victim.ticks_without_gap()?;
    victim.end()
}
