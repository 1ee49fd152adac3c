//! A container of podman's, dumped and copied from below: without the engine, which goes on with its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use crate::crr::{self, Ran, Running};
use crate::need::Need::{self, Busybox, Criu, Netns, Podman, Root};
use crate::until::{SOON, until};
use crate::{Outcome, ensure, test};

use super::bed::{Bed, LIMIT};
use super::bundle::counter;
use super::output::Output;
use super::runtime::Runtime;

const NEEDS: &[Need] = &[Root, Criu, Netns, Busybox, Podman, Need::Runtime(Runtime::Runc11)];

pub(super) fn trials() -> Vec<Trial> {
    vec![
        test("a_container_of_podmans_is_ended_only_when_told_so", NEEDS, refused),
        test("a_container_of_podmans_runs_on_beside_a_copy_of_its_checkpoint", NEEDS, copied),
    ]
}

/// A podman with everything of its own, and one container that counts.
struct Engine {
    bed: Bed,
    id: String,
}

impl Engine {
    fn start() -> Result<Self, Failed> {
        let bed = Bed::new(Runtime::Runc11)?;
        let shim = bed.path("runtime");
        // podman asks for limits that cannot be given without CAP_SYS_RESOURCE: they are taken out of the bundle.
        let text = format!(
            "#!/bin/sh\nfor word; do case $prev in --bundle) bundle=$word;; esac; prev=$word; done\n\
             if [ -n \"$bundle\" ]; then python3 -c 'import json,sys\np=sys.argv[1]+\"/config.json\"\nc=json.load(open(p))\n\
             c[\"process\"].pop(\"rlimits\",None)\njson.dump(c,open(p,\"w\"))' \"$bundle\"; fi\n\
             exec {} --root {} \"$@\"\n",
            bed.runtime().program().display(),
            bed.root().display()
        );
        fs::write(&shim, text)?;
        fs::set_permissions(&shim, Permissions::from_mode(0o755))?;
        let rootfs = bed.bundle("image")?;
        let archive = bed.path("image.tar");
        let mut tar = Command::new("tar");
        Running::start(tar.arg("-C").arg(rootfs.inside("/")).arg("-cf").arg(&archive).arg("."))?
            .end(LIMIT)?
            .must_pass("tar of a root file system")?;
        let mut engine = Self { bed, id: String::new() };
        engine.podman(&["import", &archive.display().to_string(), "counter:1"])?;
        let cid = engine.bed.path("cid").display().to_string();
        let line = counter("0.1");
        engine.podman(&["run", "-d", "--cidfile", &cid, "--network", "none", "counter:1", "/bin/sh", "-c", &line])?;
        engine.id = fs::read_to_string(&cid)?.trim().to_owned();
        Ok(engine)
    }

    fn command(&self) -> Command {
        let mut podman = Command::new("podman");
        for (option, name) in
            [("--root", "storage"), ("--runroot", "run"), ("--tmpdir", "tmp"), ("--runtime", "runtime")]
        {
            podman.arg(option).arg(self.bed.path(name));
        }
        podman.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        podman
    }

    fn podman(&self, words: &[&str]) -> Result<Ran, Failed> {
        let mut podman = self.command();
        Running::start(podman.args(words))?.end(LIMIT)?.must_pass(&format!("podman {words:?}"))
    }

    /// The last number that podman has logged.
    fn logged(&self) -> Result<u64, Failed> {
        let said = self.podman(&["logs", "--tail", "1", &self.id])?.stdout;
        Ok(said.trim().parse()?)
    }

    /// It counts on.
    fn counts(&self) -> Outcome {
        let from = until("podman's container to count", SOON, || self.logged().ok())?;
        until("podman's container to count on", SOON, || self.logged().is_ok_and(|now| now > from + 1).then_some(()))
    }

    fn images(&self) -> PathBuf {
        self.bed.path("images")
    }

    fn dump(&self, more: &[&str]) -> Result<Ran, Failed> {
        let mut command = crr::command();
        command.args(["dump", "--container", &self.id, "--runtime-root"]).arg(self.bed.root());
        Running::start(command.args(more).arg("--dir").arg(self.images()))?.end(LIMIT)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(failed) = self.podman(&["rm", "--force", "--time", "0", "--all"]) {
            eprintln!("{}", failed.message().unwrap_or_default());
        }
    }
}

fn refused() -> Outcome {
    let engine = Engine::start()?;
    engine.counts()?;
    let said = engine.dump(&[])?.must_exit(79, "a dump that would end podman's container")?.stderr;
    for word in ["podman", "137", "--leave-running", "--below-engine"] {
        ensure!(said.contains(word), "{word} is not named: {said}");
    }
    ensure!(!engine.images().exists(), "a refused dump made its directory");
    engine.counts()?;
    engine.dump(&["--below-engine"])?.must_pass("crr dump --below-engine")?;
    // podman takes it for a failure of the program, as was said.
    let code = engine.podman(&["wait", &engine.id])?.stdout;
    ensure!(code.trim() == "137", "podman saw exit status {code}");
    Ok(())
}

fn copied() -> Outcome {
    let engine = Engine::start()?;
    until("podman's container to count", SOON, || engine.logged().is_ok_and(|now| now >= 3).then_some(()))?;
    let images = engine.images();
    engine.dump(&["--leave-running"])?.must_pass("crr dump --leave-running")?;
    let at_most = engine.logged()?;
    engine.counts()?;
    let output = Output::new()?;
    let mut command = crr::command();
    command.args(["restore", "-d", "--container", &engine.bed.id("copy"), "--runtime-root"]).arg(engine.bed.root());
    let ran = output.run(command.arg("--dir").arg(&images), LIMIT)?;
    ran.must_pass("crr restore of a copy")?;
    output.await_numbers(3)?;
    // Among them is the PID that crr prints.
    let first = output.numbers().into_iter().min().ok_or("no number")?;
    ensure!(
        first >= 3 && first <= at_most + 1,
        "the copy began at {first}; podman's container was dumped before {at_most}"
    );
    engine.counts()?;
    engine.bed.container("copy").obeys_its_runtime(&output)?;
    let mut command = crr::command();
    command.args(["rm", "--container", &engine.bed.id("copy"), "--runtime-root"]).arg(engine.bed.root());
    Running::start(&mut command)?.end(LIMIT)?.must_pass("crr rm of what the copy wrote")?;
    engine.counts()
}
