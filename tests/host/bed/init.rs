//! The first process of a host: makes its root, and reaps orphans from then on.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crr::host::cgroup::Layout;
use libtest_mimic::Failed;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{chdir, pivot_root, sethostname};
use serde_json::Value;

/// The first word of its command line.
pub(super) const ROLE: &str = "bed-init";

/// What each host has for itself, empty.
pub(super) const OWN: [&str; 3] = ["/run", "/tmp", "/dev/shm"];

const NONE: Option<&str> = None;
const CGROUPS: &str = "/sys/fs/cgroup";

pub(super) fn main(own: &str) -> ExitCode {
    match make(own) {
        // Of the outer namespace, as /proc was its when it was asked.
        Ok(pid) => println!("{pid}"),
        Err(failed) => {
            println!("{}", failed.message().unwrap_or_default());
            return ExitCode::FAILURE;
        }
    }
    let awaited = SigSet::from_iter([Signal::SIGCHLD]);
    if awaited.thread_block().is_err() {
        return ExitCode::FAILURE;
    }
    loop {
        while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(_)) {}
        // Only a signal that cannot be waited for gives an error.
        if awaited.wait().is_err() {
            return ExitCode::FAILURE;
        }
    }
}

fn make(own: &str) -> Result<String, Failed> {
    let own: Value = serde_json::from_str(own)?;
    let word = |name: &str| own[name].as_str().ok_or_else(|| format!("no {name}"));
    let outer = fs::read_link("/proc/self")?.to_string_lossy().into_owned();
    let layout = Layout::read()?;
    let others = others()?;
    let shares: Vec<&str> = own["shares"].as_array().ok_or("no shares")?.iter().filter_map(Value::as_str).collect();
    // Held open: what is mounted below may hide them.
    let shared = shares.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;

    let place = Path::new(word("root")?);
    mount(Some("host"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    let [upper, work, root] = ["upper", "work", "root"].map(|name| place.join(name));
    for directory in [&upper, &work, &root] {
        fs::create_dir(directory)?;
    }
    let data = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("host"), &root, Some("overlay"), MsFlags::empty(), Some(data.as_str()))?;
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    for path in others {
        // It may be gone since it was listed: other tests mount and unmount.
        let _ = mount(Some(path.as_str()), &at(&path), NONE, MsFlags::MS_BIND, NONE);
    }
    mount(Some("/dev"), &at("/dev"), NONE, MsFlags::MS_BIND, NONE)?;
    fs::create_dir_all(at("/dev/pts"))?;
    let pts = Some("newinstance,ptmxmode=666,mode=620");
    mount(Some("devpts"), &at("/dev/pts"), Some("devpts"), MsFlags::empty(), pts)?;
    mount(Some("proc"), &at("/proc"), Some("proc"), MsFlags::empty(), NONE)?;
    mount(Some("sysfs"), &at("/sys"), Some("sysfs"), MsFlags::empty(), NONE)?;
    for (path, mode) in OWN.iter().zip(["mode=755", "mode=1777", "mode=1777"]) {
        fs::create_dir_all(at(path))?;
        mount(Some("tmpfs"), &at(path), Some("tmpfs"), MsFlags::empty(), Some(mode))?;
    }
    hierarchies(&layout, at)?;
    for (path, file) in shares.iter().zip(&shared) {
        let target = at(path);
        fs::create_dir_all(&target)?;
        let from = format!("/proc/self/fd/{}", file.as_raw_fd());
        mount(Some(from.as_str()), &target, NONE, MsFlags::MS_BIND, NONE)?;
    }
    drop(shared);

    chdir(&root)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    sethostname(word("name")?)?;
    let number = own["number"].as_u64().ok_or("no number")?;
    fs::write("/proc/sys/kernel/ns_last_pid", (number * 1000 - 1).to_string())?;
    Ok(outer)
}

/// Mounts each hierarchy where the machine has it: of the cgroup namespace, which begins at the host's own cgroup.
fn hierarchies(layout: &Layout, at: impl Fn(&str) -> PathBuf) -> Result<(), Failed> {
    let is_one = layout.hierarchies.iter().any(|hierarchy| hierarchy.mount == Path::new(CGROUPS));
    if !is_one {
        mount(Some("tmpfs"), &at(CGROUPS), Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    }
    for hierarchy in &layout.hierarchies {
        let Some(mount_point) = hierarchy.mount.to_str().filter(|path| path.starts_with(CGROUPS)) else { continue };
        let target = at(mount_point);
        fs::create_dir_all(&target)?;
        let (kind, options) = match hierarchy.name.as_str() {
            "" => ("cgroup2", None),
            name if name.starts_with("name=") => ("cgroup", Some(format!("none,{name}"))),
            name => ("cgroup", Some(name.to_owned())),
        };
        mount(Some(kind), &target, Some(kind), MsFlags::empty(), options.as_deref())?;
    }
    Ok(())
}

/// The machine's mounts that hold files, beside its root.
fn others() -> Result<Vec<String>, Failed> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    let own = ["/proc", "/sys", "/dev"].into_iter().chain(OWN);
    let is_own = |point: &str| own.clone().any(|own| Path::new(point).starts_with(own));
    Ok(points.filter(|point| *point != "/" && !is_own(point)).map(str::to_owned).collect())
}

fn open(path: &str) -> Result<File, Failed> {
    let mut options = File::options();
    let opened = options.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path);
    opened.map_err(|error| format!("cannot open {path}: {error}").into())
}
