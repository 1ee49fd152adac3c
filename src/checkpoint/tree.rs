//! The tree as it was dumped: who was whose child, and in which cgroups.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::error::{Error, Result};
use crate::images::Images;

/// One task. Its numbers are those of its own PID namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedTask {
    /// Its PID.
    pub pid: u32,
    /// The PID of its parent; 0 for the root of the tree.
    pub ppid: u32,
    /// Its process group.
    pub pgid: u32,
    /// Its session.
    pub sid: u32,
    /// Its name, what is no UTF-8 replaced.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comm: String,
    /// Its threads, itself among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub threads: Vec<u32>,
    /// The place of its cgroups in [`Record::cgroups`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroups: Option<usize>,
}

/// The cgroup of a task in one hierarchy: a line of /proc/PID/cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedCgroup {
    /// The number of the hierarchy; 0 is cgroup v2.
    pub hierarchy: u32,
    /// The controllers, comma-separated, or `name=…`; empty for v2.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub controllers: String,
    /// The path in the hierarchy, as seen from crr's cgroup namespace.
    #[serde(with = "super::text")]
    pub path: PathBuf,
}

impl RecordedTask {
    /// Every task of the images, the root first.
    ///
    /// # Errors
    /// [`Error::Image`] if an image cannot be read.
    pub fn all(images: &Images) -> Result<Vec<Self>> {
        let task = |task: crate::images::Task| {
            let core = images.core(task.pid)?;
            Ok(Self {
                pid: task.pid,
                ppid: task.ppid,
                pgid: task.pgid,
                sid: task.sid,
                comm: core.comm().unwrap_or_default().to_string_lossy().into_owned(),
                threads: task.threads,
                cgroups: None,
            })
        };
        images.tasks()?.into_iter().map(task).collect()
    }
}

impl RecordedCgroup {
    /// The cgroups of a live task.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no such task.
    pub fn of(pid: u32) -> Result<Vec<Self>> {
        let path = format!("/proc/{pid}/cgroup");
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        Ok(parse(&bytes))
    }
}

fn has_ended(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn parse(bytes: &[u8]) -> Vec<RecordedCgroup> {
    let line = |line: &[u8]| {
        let mut parts = line.splitn(3, |&byte| byte == b':');
        let hierarchy = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let controllers = String::from_utf8(parts.next()?.to_vec()).ok()?;
        let path = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(parts.next()?).into();
        Some(RecordedCgroup { hierarchy, controllers, path })
    };
    bytes.split(|&byte| byte == b'\n').filter_map(line).collect()
}

impl Record {
    /// Notes the cgroups of each task of [`Record::tree`]. `host_pid` gives the PID by which crr sees a task. One that has ended
    /// since the dump has none.
    ///
    /// # Errors
    /// [`Error::Io`] if /proc cannot be read.
    pub fn collect_cgroups(&mut self, host_pid: impl Fn(u32) -> u32) -> Result<()> {
        for task in &mut self.tree {
            let cgroups = match RecordedCgroup::of(host_pid(task.pid)) {
                Err(Error::Io { source, .. }) if has_ended(&source) => continue,
                cgroups => cgroups?,
            };
            let known = self.cgroups.iter().position(|set| *set == cgroups);
            task.cgroups = Some(known.unwrap_or_else(|| {
                self.cgroups.push(cgroups);
                self.cgroups.len() - 1
            }));
        }
        Ok(())
    }

    /// The cgroups of a task.
    pub fn cgroups_of(&self, task: &RecordedTask) -> &[RecordedCgroup] {
        task.cgroups.and_then(|set| self.cgroups.get(set)).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hierarchy_is_read_and_a_colon_belongs_to_the_path() {
        let cgroups = parse(b"4:cpu,cpuacct:/a:b\n1:name=systemd:/\n0::/user.slice\nnonsense\n");
        let shown: Vec<_> = cgroups.iter().map(|c| (c.hierarchy, &*c.controllers, c.path.to_str().unwrap())).collect();
        assert_eq!(shown, [(4, "cpu,cpuacct", "/a:b"), (1, "name=systemd", "/"), (0, "", "/user.slice")]);
    }

    #[test]
    fn tasks_in_the_same_cgroups_share_one_set() {
        let me = std::process::id();
        let task = RecordedTask { pid: me, ..Default::default() };
        let mut record = Record { tree: vec![task.clone(), task], ..Record::default() };
        record.collect_cgroups(|pid| pid).unwrap();
        assert_eq!(record.cgroups.len(), 1);
        assert!(!record.cgroups_of(&record.tree[1]).is_empty());
        record.collect_cgroups(|_| u32::MAX).unwrap();
    }
}
