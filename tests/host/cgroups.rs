//! Cgroups of crr's own: made, entered, left and removed.

use std::process::{Child, Command, Stdio};

use ::crr::host::cgroup::{Layout, Membership, OwnCgroup, Place, settle};
use libtest_mimic::{Failed, Trial};

use crate::need::Need::{self, Cgroups, Root};
use crate::{Outcome, ensure, test};

const NEEDS: &[Need] = &[Root, Cgroups];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("an_own_cgroup_takes_a_process_and_goes_when_it_is_empty", NEEDS, own),
        test("a_process_goes_back_to_its_recorded_cgroups", NEEDS, recorded),
        test("a_process_whose_cgroups_are_gone_gets_its_own", NEEDS, gone),
    ]
}

/// A process that lives until it is dropped.
struct Bystander(Child);

impl Bystander {
    fn start() -> Result<Self, Failed> {
        Ok(Self(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?))
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn name(of: &str) -> String {
    format!("test-{of}-{}", std::process::id())
}

/// In how many hierarchies the process is in a cgroup of that name.
fn count(pid: i32, name: &str) -> Result<usize, Failed> {
    Ok(Membership::of(pid)?.0.values().filter(|path| path.ends_with(&format!("/crr/{name}"))).count())
}

fn own() -> Outcome {
    let (layout, name) = (Layout::read()?, name("own"));
    let (own, refused) = OwnCgroup::create(&layout, &name);
    let directories = own.directories().to_vec();
    let bystander = Bystander::start()?;
    let failures = own.enter(bystander.pid());
    ensure!(failures.is_empty(), "{failures:?}");
    let entered = count(bystander.pid(), &name)?;
    ensure!(entered == directories.len(), "in {entered} of {directories:?}; refused: {refused:?}");
    own.remove_if_empty();
    ensure!(directories.iter().all(|directory| directory.is_dir()), "removed with a process in it");
    drop(bystander);
    OwnCgroup::existing(&layout, &name).remove_if_empty();
    ensure!(!directories.iter().any(|directory| directory.exists()), "left: {directories:?}");
    Ok(())
}

fn recorded() -> Outcome {
    let (layout, name) = (Layout::read()?, name("recorded"));
    let bystander = Bystander::start()?;
    let before = Membership::of(bystander.pid())?;
    let (own, _) = OwnCgroup::create(&layout, &name);
    own.enter(bystander.pid());
    ensure!(Membership::of(bystander.pid())? != before, "it was not moved");
    let settled = settle(&layout, bystander.pid(), Some(&before), "unused");
    own.remove_if_empty();
    ensure!(matches!(settled.place, Place::Recorded), "{settled:?}");
    let after = Membership::of(bystander.pid())?;
    ensure!(after == before, "{after:?} instead of {before:?}");
    Ok(())
}

fn gone() -> Outcome {
    let (layout, name) = (Layout::read()?, name("gone"));
    let bystander = Bystander::start()?;
    let mut recorded = Membership::of(bystander.pid())?;
    recorded.0.values_mut().for_each(|path| *path = "/no such cgroup".into());
    let settled = settle(&layout, bystander.pid(), Some(&recorded), &name);
    ensure!(settled.failures.iter().any(|why| why.contains("no such cgroup")), "{settled:?}");
    match settled.place {
        Place::Own(own) => {
            let entered = count(bystander.pid(), &name)?;
            ensure!(entered > 0 && entered == own.directories().len(), "in {entered} of {:?}", own.directories());
            drop(bystander);
            own.remove_if_empty();
        }
        Place::Scope(scope) => ensure!(scope.unit.contains(&name), "{scope:?}"),
        other => return Err(format!("{other:?}").into()),
    }
    Ok(())
}
