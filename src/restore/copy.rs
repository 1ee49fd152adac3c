//! A copy of a plain tree beside the original: what cannot be copied, and what a copy takes from the original.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::problem::{Problem, Remarks};
use super::subject::Subject;
use crate::checkpoint::{Difference, Manifest};
use crate::error::Result;
use crate::host::cgroup::{Layout, Membership, settle};
use crate::images::{Images, Object, RemapTarget};
use crate::request::{Parent, RestoreOptions, RestoreSwitch, Tcp};

/// One thing that stands against a copy. Nothing has been made when it is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyProblem {
    /// The tree brings namespaces of its own.
    OwnNamespaces,
    /// The tree is a job of a shell.
    ShellJob,
    /// An option says something else.
    Option(&'static str),
}

impl CopyProblem {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::OwnNamespaces => "leave out --new-pid-ns: the PIDs and mounts of such a tree are its own already",
            Self::ShellJob => "start it apart from the shell, as `crr run` does, and dump that",
            Self::Option(_) => "leave out the one or the other",
        }
    }
}

impl fmt::Display for CopyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnNamespaces => {
                f.write_str("the images are of a tree with namespaces of its own, not of plain processes")
            }
            Self::ShellJob => f.write_str("the tree is a job of a shell, whose session and terminal no copy can have"),
            Self::Option(option) => write!(f, "{option} contradicts --new-pid-ns"),
        }
    }
}

/// What of the caller's options contradicts a copy. Before the recorded ones are added.
pub(super) fn contradictions(given: &RestoreOptions) -> Vec<Problem> {
    let on = |switch| given.switches.contains(&switch);
    let table = [
        ("--tcp-established", given.tcp == Tcp::Established),
        ("--shell-job", on(RestoreSwitch::ShellJob)),
        ("--unprivileged", on(RestoreSwitch::Unprivileged)),
        ("--root", given.root.is_some()),
        ("--join-ns", !given.join.is_empty()),
        ("--empty-ns", !given.empty_ns.is_empty()),
        ("--exec-cmd", matches!(given.parent, Parent::Command(_))),
    ];
    let wrong = table.iter().filter(|(_, is)| *is);
    wrong.map(|(option, _)| Problem::Copy(CopyProblem::Option(option))).collect()
}

/// Makes the options of the tree those of its copy, or says what stands against it.
pub(super) fn adapt(options: &mut RestoreOptions, subject: &Subject, remarks: &mut Remarks) -> Vec<Problem> {
    let mut problems = Vec::new();
    if subject.own_pids || subject.own_mounts {
        problems.push(CopyProblem::OwnNamespaces);
    }
    if subject.is_shell_job() || options.switches.contains(&RestoreSwitch::ShellJob) {
        problems.push(CopyProblem::ShellJob);
    }
    if options.tcp != Tcp::Close && !subject.connections.is_empty() {
        let count = subject.connections.len();
        remarks.note(format!("{count} TCP connection(s) are the original's: the copy finds them closed"));
        options.tcp = Tcp::Close;
    } else if options.tcp == Tcp::Established {
        options.tcp = Tcp::Refuse;
    }
    problems.into_iter().map(Problem::Copy).collect()
}

/// The names that a copy takes from the original where the files are shared.
pub(super) fn warn_of_sharing(images: &Images, remarks: &mut Remarks) -> Result<()> {
    let mut paths: HashMap<u32, PathBuf> = HashMap::new();
    let (mut sockets, mut fifos) = (Vec::new(), Vec::new());
    for file in images.files()? {
        let file = file?;
        match file.object {
            Object::Regular(regular) => {
                paths.insert(file.id, regular.path);
            }
            Object::Unix(unix) => {
                let name = String::from_utf8_lossy(&unix.name).trim_end_matches('\0').to_owned();
                // An abstract name belongs to the network namespace, and one of a peer outside is nobody's here.
                if !name.is_empty() && !name.starts_with('\0') && !unix.external && !unix.deleted {
                    sockets.push(unix.directory.unwrap_or_default().join(name));
                }
            }
            Object::Fifo { path: Some(path), .. } => fifos.push(path),
            _ => {}
        }
    }
    let path = |file: &u32| paths.get(file).cloned();
    let remaps = images.remaps()?;
    let of = |wanted: fn(RemapTarget) -> bool| {
        remaps.iter().filter(|remap| wanted(remap.target)).filter_map(|remap| path(&remap.file)).collect::<Vec<_>>()
    };
    let kinds = [
        ("binds the unix socket", sockets, ": the original's clients reach the copy, and those it has lose it"),
        ("uses the named pipe", fifos.iter().filter_map(path).collect(), " of the original"),
        ("makes the deleted file", of(|target| matches!(target, RemapTarget::Ghost(_))), " for a moment"),
        ("makes the unlinked file", of(|target| matches!(target, RemapTarget::Link(_))), " for a moment"),
    ];
    for (what, mut names, then) in kinds {
        names.sort();
        names.dedup();
        names.iter().for_each(|name| remarks.warn(format!("the copy {what} `{}`{then}", name.display())));
    }
    Ok(())
}

/// Makes files in the overlays what they were at the dump.
pub(super) fn mend(manifest: &Manifest, root: &Path, differences: &[Difference], remarks: &mut Remarks) -> Result<()> {
    for path in manifest.mend(root, differences)? {
        remarks.note(format!("`{}` has grown since the dump: the copy has it as long as it was", path.display()));
    }
    Ok(())
}

/// Moves the first process of a copy's namespaces to where CRIU is: it must not end with the cgroup that crr is in.
pub(super) fn follow(criu: i32, init: i32, remarks: &mut Remarks) {
    let settled = Membership::of(criu).and_then(|place| {
        let layout = Layout::read()?;
        Ok(settle(&layout, init, Some(&place), &format!("restore-{}", std::process::id())))
    });
    match settled {
        Ok(settled) if settled.failures.is_empty() => {}
        Ok(settled) => remarks.warn(format!("the copy ends with crr's own cgroup: {}", settled.failures.join("; "))),
        Err(error) => remarks.warn(format!("the copy ends with crr's own cgroup: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::tests::subject;
    use super::*;

    #[test]
    fn what_a_copy_cannot_have_is_named_all_at_once() {
        let mut given = RestoreOptions::new();
        assert_eq!(contradictions(&given), []);
        given.tcp = Tcp::Established;
        given.root = Some("/mnt".into());
        given.switches.insert(RestoreSwitch::ShellJob);
        let said: Vec<String> = contradictions(&given).iter().map(Problem::to_string).collect();
        let option = |name: &str| format!("{name} contradicts --new-pid-ns");
        assert_eq!(said, [option("--tcp-established"), option("--shell-job"), option("--root")]);
        given = RestoreOptions::new();
        given.tcp = Tcp::Close;
        assert_eq!(contradictions(&given), []);
    }
    #[test]
    fn a_tree_with_namespaces_of_its_own_and_a_shells_job_are_no_plain_trees() {
        let said = |own_pids, own_mounts, switches: &[RestoreSwitch]| {
            let subject = Subject { own_pids, own_mounts, ..subject() };
            let mut options = RestoreOptions::new();
            options.switches.extend(switches);
            adapt(&mut options, &subject, &mut Remarks::default())
        };
        assert_eq!(said(false, false, &[]), []);
        assert_eq!(said(true, false, &[]), [Problem::Copy(CopyProblem::OwnNamespaces)]);
        assert_eq!(said(false, true, &[]), [Problem::Copy(CopyProblem::OwnNamespaces)]);
        assert_eq!(said(false, false, &[RestoreSwitch::ShellJob]), [Problem::Copy(CopyProblem::ShellJob)]);
    }

    #[test]
    fn connections_of_a_copy_are_closed_whatever_the_dump_did() {
        let connection = crate::host::netlock::Connection {
            local: "127.0.0.1:80".parse().unwrap(),
            remote: "127.0.0.1:4711".parse().unwrap(),
        };
        for (connections, tcp, expected, notes) in [
            (vec![connection], Tcp::Established, Tcp::Close, 1),
            (vec![connection], Tcp::Refuse, Tcp::Close, 1),
            (vec![connection], Tcp::Close, Tcp::Close, 0),
            (vec![], Tcp::Established, Tcp::Refuse, 0),
        ] {
            let subject = Subject { connections, ..subject() };
            let (mut options, mut remarks) = (RestoreOptions::new(), Remarks::default());
            options.tcp = tcp;
            assert_eq!(adapt(&mut options, &subject, &mut remarks), []);
            assert_eq!((options.tcp, remarks.notes.len()), (expected, notes), "{tcp:?}");
        }
    }
}
