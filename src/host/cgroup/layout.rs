//! Which hierarchies of cgroups there are, and where they are mounted.

use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};

const MOUNTS: &str = "/proc/self/mountinfo";

/// How cgroups are set up on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// No hierarchy is mounted.
    None,
    /// Version 1 only.
    V1,
    /// Version 1 with controllers, and version 2 beside it.
    Hybrid,
    /// Version 2 only.
    Unified,
}

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hierarchy {
    /// As in `/proc/PID/cgroup`: controllers, `name=…`, or nothing for version 2.
    pub name: String,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The cgroup that is seen there: `/`, except in a container.
    pub root: String,
}

impl Hierarchy {
    /// The directory of the cgroup `path`; `None` if it is not below what is mounted here, or not a plain path.
    pub fn directory(&self, path: &str) -> Option<PathBuf> {
        let below = Path::new(path).strip_prefix(&self.root).ok()?;
        // `..` is how the kernel shows a cgroup outside of a cgroup namespace, and what a forged record would use.
        let plain = below.components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir));
        plain.then(|| self.mount.join(below.strip_prefix("/").unwrap_or(below)))
    }

    /// Whether it is version 2.
    pub fn is_unified(&self) -> bool {
        self.name.is_empty()
    }
}

/// The hierarchies that are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// One for each hierarchy, at its first mount point that can be seen.
    pub hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Reads the mount table of this process.
    ///
    /// # Errors
    /// [`Error::Io`] if /proc is not mounted.
    pub fn read() -> Result<Self> {
        let text = std::fs::read(MOUNTS).map_err(Error::io("read", MOUNTS))?;
        let own = super::Membership::of(std::process::id() as i32)?;
        // Another file system may be mounted on one, or above it.
        let is_visible = |mount: &Path| mount.join("cgroup.procs").exists();
        Ok(Self::parse(&String::from_utf8_lossy(&text), own.0.keys().map(String::as_str), is_visible))
    }

    /// From the text of a mountinfo. `names` are the hierarchies of `/proc/PID/cgroup`: a mount names its controllers among
    /// other options, in any order.
    fn parse<'a>(
        mountinfo: &str,
        names: impl Iterator<Item = &'a str> + Clone,
        is_visible: impl Fn(&Path) -> bool,
    ) -> Self {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.lines() {
            let Some((front, back)) = line.split_once(" - ") else { continue };
            let mut front = front.split(' ').skip(3);
            let (Some(root), Some(mount)) = (front.next(), front.next()) else { continue };
            let mut back = back.split(' ');
            let name = match back.next() {
                Some("cgroup2") => Some(""),
                Some("cgroup") => {
                    let options: Vec<&str> = back.nth(1).unwrap_or_default().split(',').collect();
                    names.clone().find(|name| !name.is_empty() && name.split(',').all(|part| options.contains(&part)))
                }
                _ => None,
            };
            let Some(name) = name else { continue };
            let mount = PathBuf::from(unescape(mount));
            if hierarchies.iter().all(|known| known.name != name) && is_visible(&mount) {
                hierarchies.push(Hierarchy { name: name.to_owned(), mount, root: unescape(root) });
            }
        }
        Self { hierarchies }
    }

    /// How cgroups are set up.
    pub fn kind(&self) -> Kind {
        let unified = self.hierarchies.iter().filter(|hierarchy| hierarchy.is_unified()).count();
        match (unified, self.hierarchies.len() - unified) {
            (0, 0) => Kind::None,
            (0, _) => Kind::V1,
            (_, 0) => Kind::Unified,
            (_, _) => Kind::Hybrid,
        }
    }

    /// The hierarchy of that name.
    pub fn hierarchy(&self, name: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.name == name)
    }
}

/// Undoes the kernel's `\040` for a space and the like.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                out.push(byte);
                rest = &tail[3..];
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:2 - cgroup cgroup rw,cpuacct,cpu
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 24 0:27 / /mnt/again rw - cgroup cgroup rw,cpu,cpuacct
";

    #[test]
    fn a_hybrid_layout_is_read_with_its_first_mount_points() {
        let layout = Layout::parse(HYBRID, ["name=systemd", "cpu,cpuacct", "memory", ""].into_iter(), |_| true);
        assert_eq!(layout.kind(), Kind::Hybrid);
        let mount = |name: &str| layout.hierarchy(name).map(|hierarchy| hierarchy.mount.to_string_lossy().into_owned());
        assert_eq!(mount("cpu,cpuacct").as_deref(), Some("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(mount("name=systemd").as_deref(), Some("/sys/fs/cgroup/systemd"));
        assert_eq!(mount("").as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mount("memory"), None);
    }

    #[test]
    fn a_mount_that_cannot_be_seen_is_passed_over() {
        let again = |mount: &Path| mount == Path::new("/mnt/again");
        let layout = Layout::parse(HYBRID, ["cpu,cpuacct", ""].into_iter(), again);
        let mounts: Vec<_> = layout.hierarchies.iter().map(|hierarchy| hierarchy.mount.clone()).collect();
        assert_eq!(mounts, [PathBuf::from("/mnt/again")]);
    }

    #[test]
    fn kinds_are_told_apart() {
        let unified = "30 24 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(Layout::parse(unified, [""].into_iter(), |_| true).kind(), Kind::Unified);
        assert_eq!(Layout::parse("", [""].into_iter(), |_| true).kind(), Kind::None);
        let v1 = "31 30 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        assert_eq!(Layout::parse(v1, ["pids"].into_iter(), |_| true).kind(), Kind::V1);
    }

    #[test]
    fn a_path_stays_below_the_mount_point() {
        let hierarchy = |root: &str| Hierarchy { name: String::new(), mount: "/cg".into(), root: root.into() };
        assert_eq!(hierarchy("/").directory("/a/b"), Some("/cg/a/b".into()));
        assert_eq!(hierarchy("/").directory("/"), Some("/cg".into()));
        assert_eq!(hierarchy("/docker/1").directory("/docker/1/a"), Some("/cg/a".into()));
        assert_eq!(hierarchy("/docker/1").directory("/docker/2"), None);
        assert_eq!(hierarchy("/").directory("/../a"), None);
        assert_eq!(hierarchy("/").directory("a"), None);
    }

    #[test]
    fn escapes_of_the_mount_table_are_undone() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/a\04"), r"/a\04");
    }
}
