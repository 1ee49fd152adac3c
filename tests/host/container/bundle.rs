//! An OCI bundle around a busybox.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::crr::Running;
use crate::until::SOON;

use super::runtime::Runtime;

/// Where Debian's busybox-static puts it.
const BUSYBOX: &str = "/bin/busybox";

/// Why there is no busybox that runs where no library is.
pub(crate) fn no_busybox() -> Option<String> {
    match fs::read(BUSYBOX) {
        Err(error) => Some(format!("it needs busybox-static: {BUSYBOX}: {error}")),
        // The name of a loader stands near the start of a program that needs one.
        Ok(program) => program[..program.len().min(4096)]
            .windows(9)
            .any(|text| text == b"/ld-linux")
            .then(|| format!("it needs busybox-static: {BUSYBOX} needs libraries")),
    }
}

/// A shell loop that counts from 0, and forks `expr` and `sleep` for each number.
pub(crate) fn counter(pause_s: &str) -> String {
    format!("i=0; while true; do echo $i; i=$(expr $i + 1); sleep {pause_s}; done")
}

/// A directory with a root file system and a config.json. What is changed counts when the bundle is next run or
/// [written](Bundle::write).
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    directory: PathBuf,
    /// config.json.
    pub(crate) config: Value,
}

impl Bundle {
    /// Makes a bundle at a path where nothing is yet. Its command is a counter, ten numbers a second; it has what the runtime's
    /// `spec` says, but a root file system that can be written to, no terminal and no limits of its own.
    pub(crate) fn create(directory: PathBuf, runtime: Runtime) -> Result<Self, Failed> {
        let rootfs = directory.join("rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp", "run", "root", "mnt"] {
            fs::create_dir_all(rootfs.join(name))?;
        }
        // Its inode is in the images: each bundle has a copy.
        fs::copy(BUSYBOX, rootfs.join("bin/busybox"))?;
        let applets = Running::start(Command::new(BUSYBOX).arg("--list"))?.end(SOON)?.must_pass("busybox --list")?;
        for applet in applets.stdout.lines().filter(|name| *name != "busybox") {
            symlink("busybox", rootfs.join("bin").join(applet))?;
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
        Running::start(runtime.command().arg("spec").current_dir(&directory))?.end(SOON)?.must_pass("spec")?;
        let config = serde_json::from_slice(&fs::read(directory.join("config.json"))?)?;
        let mut bundle = Self { directory, config };
        bundle.config["root"]["readonly"] = json!(false);
        bundle.config["process"]["terminal"] = json!(false);
        // Raising a hard limit needs CAP_SYS_RESOURCE, which not every machine gives.
        bundle.object("/process")?.remove("rlimits");
        bundle.shell(&counter("0.1"));
        Ok(bundle)
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    /// A path of the root file system, as seen from outside.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        self.directory.join("rootfs").join(path.trim_start_matches('/'))
    }

    /// Writes config.json.
    pub(crate) fn write(&self) -> Result<(), Failed> {
        Ok(fs::write(self.directory.join("config.json"), serde_json::to_vec_pretty(&self.config)?)?)
    }

    /// What is run in the container.
    pub(crate) fn command(&mut self, words: &[&str]) {
        self.config["process"]["args"] = json!(words);
    }

    /// A shell's command line that is run in the container.
    pub(crate) fn shell(&mut self, line: &str) {
        self.command(&["/bin/sh", "-c", line]);
    }

    /// Puts a program into the root file system.
    pub(crate) fn install(&self, program: &Path, at: &str) -> Result<(), Failed> {
        let to = self.inside(at);
        fs::copy(program, &to)?;
        Ok(fs::set_permissions(&to, Permissions::from_mode(0o755))?)
    }

    /// The root file system, and the way to it, become usable for a user other than root.
    pub(crate) fn own_rootfs(&self, owner: u32) -> Result<(), Failed> {
        let mut command = Command::new("chown");
        command.args(["-R", "-h", &format!("{owner}:{owner}")]).arg(self.inside("/"));
        Running::start(&mut command)?.end(SOON)?.must_pass("chown of a root file system")?;
        for directory in self.directory.ancestors().take(2) {
            fs::set_permissions(directory, Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// The container has the host's namespace of this kind (`network`, `pid`, …).
    pub(crate) fn share_namespace(&mut self, kind: &str) -> Result<(), Failed> {
        self.list("/linux/namespaces")?.retain(|namespace| namespace["type"] != kind);
        Ok(())
    }

    /// The container joins this namespace, or has one of its own.
    pub(crate) fn namespace(&mut self, kind: &str, path: Option<&Path>) -> Result<(), Failed> {
        self.share_namespace(kind)?;
        self.list("/linux/namespaces")?.push(match path {
            Some(path) => json!({ "type": kind, "path": path }),
            None => json!({ "type": kind }),
        });
        Ok(())
    }

    /// Where its cgroups are, from the root of each hierarchy.
    pub(crate) fn cgroup(&mut self, path: &str) {
        self.config["linux"]["cgroupsPath"] = json!(path);
    }

    /// Limits and the like, as config.json has them, beside those that it has: `resources("pids", json!({"limit": 7}))`.
    pub(crate) fn resources(&mut self, section: &str, limits: Value) {
        let place = &mut self.config["linux"]["resources"][section];
        match (place.as_object_mut(), limits) {
            (Some(there), Value::Object(more)) => there.extend(more),
            (_, limits) => *place = limits,
        }
    }

    pub(crate) fn annotate(&mut self, name: &str, value: &str) {
        self.config["annotations"][name] = json!(value);
    }

    /// One more mount, after all that are there.
    pub(crate) fn mount(&mut self, kind: &str, source: &str, at: &str, options: &[&str]) -> Result<(), Failed> {
        let mount = json!({ "destination": at, "type": kind, "source": source, "options": options });
        self.list("/mounts")?.push(mount);
        Ok(())
    }

    /// Something of the host in the container.
    pub(crate) fn bind(&mut self, source: &Path, at: &str, options: &[&str]) -> Result<(), Failed> {
        let source = source.to_str().ok_or("no UTF-8")?;
        self.mount("bind", source, at, &[&["rbind"], options].concat())
    }

    /// A list of config.json, which is made where there is none: `list("/linux/maskedPaths")`.
    pub(crate) fn list(&mut self, pointer: &str) -> Result<&mut Vec<Value>, Failed> {
        let (parent, name) = pointer.rsplit_once('/').ok_or("not a pointer")?;
        let parent = self.object(parent)?;
        let list = parent.entry(name).or_insert_with(|| json!([])).as_array_mut();
        list.ok_or_else(|| format!("{pointer} of config.json is not a list").into())
    }

    /// An object of config.json.
    pub(crate) fn object(&mut self, pointer: &str) -> Result<&mut serde_json::Map<String, Value>, Failed> {
        let object = self.config.pointer_mut(pointer).and_then(Value::as_object_mut);
        object.ok_or_else(|| format!("config.json has no {pointer}").into())
    }
}
