//! A container that was dumped, and its restores by crr.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use libtest_mimic::Failed;

use crate::crr::{self, Ran, Running};
use crate::until::{SOON, until};
use crate::{Outcome, ensure};

use super::bed::{Bed, LIMIT};
use super::bundle::Bundle;
use super::output::Output;
use super::round_trip::{By, dump_with};
use super::runtime::Runtime::Runc11;
use super::snapshot::cgroups_of;

/// A counter that was dumped.
pub(super) struct Dumped {
    pub(super) bed: Bed,
    pub(super) bundle: Bundle,
    pub(super) output: Output,
    pub(super) images: PathBuf,
}

impl Dumped {
    /// By crr, or by its runtime.
    pub(super) fn new(by: By) -> Result<Self, Failed> {
        Self::of(by, |_, _| Ok(()))
    }

    /// After something was done to its bundle.
    pub(super) fn of(by: By, prepare: impl FnOnce(&Bed, &mut Bundle) -> Outcome) -> Result<Self, Failed> {
        let bed = Bed::new(Runc11)?;
        let output = Output::new()?;
        let mut bundle = bed.bundle("bundle")?;
        prepare(&bed, &mut bundle)?;
        let container = bed.run_on("one", &bundle, &output)?;
        output.await_numbers(2)?;
        let images = bed.path("images");
        dump_with(by, &bed, &container, &images, &[])?;
        if by == By::Runtime {
            // Of a crr the name is free already.
            let _ = container.with("delete", &["--force"])?;
        }
        Ok(Self { bed, bundle, output, images })
    }

    /// `crr restore -d` of it.
    pub(super) fn command(&self, name: &str, more: &[&str]) -> Result<Command, Failed> {
        self.bundle.write()?;
        let mut command = crr::command();
        command.args(["restore", "-d", "--container", &self.bed.id(name), "--runtime-root"]).arg(self.bed.root());
        command.arg("--bundle").arg(self.bundle.path()).arg("--dir").arg(&self.images).args(more);
        Ok(command)
    }

    /// Runs that to its end.
    pub(super) fn restore(&self, name: &str, more: &[&str]) -> Result<Ran, Failed> {
        self.output.run(&mut self.command(name, more)?, LIMIT)
    }

    /// Refused with this status, and nothing of the container is there.
    pub(super) fn refuses(&self, more: &[&str], code: i32) -> Result<String, Failed> {
        let ran = Running::start(&mut self.command("one", more)?)?.end(LIMIT)?.must_exit(code, "crr restore")?;
        self.is_clean("one")?;
        Ok(ran.stderr)
    }

    /// Nothing of the container is there.
    pub(super) fn is_clean(&self, name: &str) -> Outcome {
        let id = self.bed.id(name);
        ensure!(!self.bed.root().join(&id).exists(), "its directory is left");
        ensure!(cgroups_of(&id).is_empty(), "cgroups are left: {:?}", cgroups_of(&id));
        ensure!(self.bed.mounts().is_empty(), "mounts are left: {:?}", self.bed.mounts());
        // PID 1 takes its time to take note of their end.
        until("the processes to be gone", SOON, || self.bed.processes().is_empty().then_some(()))?;
        ensure!(journals(&id).is_empty(), "a journal is left: {:?}", journals(&id));
        Ok(())
    }
}

/// The notes of restores that name a container.
pub(super) fn journals(id: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir("/run/crr").into_iter().flatten().flatten().map(|entry| entry.path());
    let names = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains(id));
    entries.filter(|path| path.to_string_lossy().contains("/container-")).filter(names).collect()
}
