//! Namespaces that do not come with the images: those that the bundle names by a path, and those to be joined.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};

use super::super::scene::can_be_joined;
use super::{Join, JoinTarget};
use crate::error::{Error, Result};
use crate::host::netlink::{link_up, loopback_up};
use crate::oci::{Configuration, NamespaceKind};
use crate::request::{InheritedFd, JoinNamespace};
use crate::restore::ContainerProblem;

/// runc's and crun's name for a network namespace that is not in the images.
pub(super) const OUTSIDE_NET: &str = "extRootNetNS";
/// Their name for such a PID namespace.
const OUTSIDE_PID: &str = "extRootPidNS";

/// What CRIU is given.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) inherited: Vec<InheritedFd>,
    pub(super) join: Vec<JoinNamespace>,
}

impl Given {
    /// The PID namespace, where it comes from outside.
    pub(super) fn pid_namespace(&self) -> Option<&OwnedFd> {
        self.inherited.iter().find(|given| given.key == OUTSIDE_PID).map(|given| &given.descriptor)
    }
}

/// What the images have of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// It is the host's.
    Host,
    /// It comes from outside, under the name of [`OUTSIDE_NET`].
    Outside,
    /// It is restored empty.
    Empty,
    /// It is in the images.
    Dumped,
}

/// Finds each of them. `private` asks for a new network namespace in place of the one that the bundle names.
pub(super) fn find(
    configuration: &Configuration,
    network: Network,
    joins: &[Join],
    private: bool,
    find_container: impl Fn(&str) -> Option<i32>,
    problems: &mut Vec<ContainerProblem>,
) -> Result<Given> {
    let mut given = Given::default();
    let mut joined_net = false;
    for join in joins {
        let path = match &join.target {
            JoinTarget::File(path) => path.clone(),
            JoinTarget::Pid(pid) => proc_path(*pid, &join.kind),
            JoinTarget::Container(id) => match find_container(id) {
                Some(pid) => proc_path(pid, &join.kind),
                None => {
                    let why = format!("no container `{id}` runs");
                    problems.push(ContainerProblem::Option { option: "--join-ns", why });
                    continue;
                }
            },
        };
        let why = match join.kind.as_str() {
            "net" if network == Network::Host => "the container is in the host's network namespace",
            "mnt" => {
                "the container's mounts come with the images, and CRIU makes them in a mount namespace of their own"
            }
            "user" => "CRIU cannot make a container's other namespaces in a user namespace that is there already",
            _ => "",
        };
        if !why.is_empty() {
            problems.push(ContainerProblem::Option { option: "--join-ns", why: why.to_owned() });
            continue;
        }
        let Some(file) = open(&join.kind, &path, problems) else { continue };
        joined_net |= join.kind == "net";
        if join.kind == "net" && network == Network::Outside {
            given.inherited.push(InheritedFd { key: OUTSIDE_NET.into(), descriptor: file });
        } else {
            let file = path.to_string_lossy().into_owned();
            given.join.push(JoinNamespace { kind: join.kind.clone(), file, extra: join.extra.clone() });
        }
    }
    for namespace in &configuration.namespaces {
        let Some(path) = &namespace.path else { continue };
        let kind = namespace.kind;
        match kind {
            NamespaceKind::Network if joined_net || private => {}
            NamespaceKind::Network | NamespaceKind::Pid => {
                let Some(descriptor) = open(kind.in_proc(), path, problems) else { continue };
                let key = if kind == NamespaceKind::Network { OUTSIDE_NET } else { OUTSIDE_PID };
                given.inherited.push(InheritedFd { key: key.into(), descriptor });
            }
            _ if joins.iter().any(|join| join.kind == kind.in_proc()) => {}
            _ if !can_be_joined(kind) => {
                let (kind, path) = (kind.in_config().into(), path.clone());
                let why =
                    "CRIU cannot restore into one that is there already; the bundle's config.json names it".into();
                problems.push(ContainerProblem::Namespace { kind, path, why });
            }
            _ => {
                if open(kind.in_proc(), path, problems).is_some() {
                    let file = path.to_string_lossy().into_owned();
                    given.join.push(JoinNamespace { kind: kind.in_proc().into(), file, extra: None });
                }
            }
        }
    }
    if private && !joined_net && network == Network::Outside {
        given.inherited.push(InheritedFd { key: OUTSIDE_NET.into(), descriptor: new_network()? });
    }
    Ok(given)
}

fn proc_path(pid: i32, kind: &str) -> PathBuf {
    format!("/proc/{pid}/ns/{kind}").into()
}

/// Whether a namespace is of a kind that can be joined. The kernel refuses it as another before it looks at anything else.
fn is_of_kind(namespace: &File, kind: &str) -> bool {
    let flag = match kind {
        "net" => CloneFlags::CLONE_NEWNET,
        "ipc" => CloneFlags::CLONE_NEWIPC,
        "uts" => CloneFlags::CLONE_NEWUTS,
        "pid" => CloneFlags::CLONE_NEWPID,
        "time" => CloneFlags::from_bits_retain(libc::CLONE_NEWTIME),
        _ => return true,
    };
    let entered = in_thread("enter a namespace", || Ok(setns(namespace, flag)));
    !matches!(entered, Ok(Err(nix::errno::Errno::EINVAL)))
}

/// Opens the namespace of a kind, as /proc/PID/ns calls it.
fn open(kind: &str, path: &Path, problems: &mut Vec<ContainerProblem>) -> Option<OwnedFd> {
    let opened = File::open(path).and_then(|file| {
        // What a namespace's file is, wherever it is bound.
        if rustix::fs::fstatfs(&file)?.f_type != 0x6e73_6673 {
            return Err(io::Error::other("it is no namespace"));
        }
        match is_of_kind(&file, kind) {
            true => Ok(file.into()),
            false => Err(io::Error::other("it is a namespace of another kind")),
        }
    });
    opened
        .map_err(|error| {
            let problem = ContainerProblem::Namespace { kind: kind.into(), path: path.into(), why: error.to_string() };
            problems.push(problem);
        })
        .ok()
}

/// A network namespace with nothing but a loopback interface that is up.
fn new_network() -> Result<OwnedFd> {
    let attempt = "make a network namespace";
    in_thread(attempt, || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        loopback_up()?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    })
}

/// Takes the loopback interface of a process's network namespace up: runc's fresh containers have it up, and CRIU leaves that
/// of an empty namespace down.
pub(super) fn take_loopback_up(pid: i32) -> Result<()> {
    in_thread("take the loopback interface of the container up", || {
        let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        loopback_up()
    })
}

/// Takes the host's end of a veth up.
pub(super) fn take_link_up(name: &str) -> Result<()> {
    link_up(name).map_err(|source| Error::system(format!("take the interface `{name}` up"), source))
}

/// Runs something in a thread that ends with it: the namespaces of the others stay what they are.
fn in_thread<R: Send>(attempt: &str, run: impl FnOnce() -> io::Result<R> + Send) -> Result<R> {
    let ran = std::thread::scope(|scope| match std::thread::Builder::new().spawn_scoped(scope, run) {
        Ok(thread) => thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked"))),
        Err(error) => Err(error),
    });
    ran.map_err(|source| Error::system(attempt, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Namespace;

    fn configuration(kind: NamespaceKind, path: &str) -> Configuration {
        Configuration { namespaces: vec![Namespace { kind, path: Some(path.into()) }], ..Configuration::default() }
    }

    #[test]
    fn a_namespace_that_is_gone_is_named() {
        let mut problems = Vec::new();
        for (kind, path) in [(NamespaceKind::Network, "/no/such/netns"), (NamespaceKind::Ipc, "/dev/null")] {
            let configuration = configuration(kind, path);
            find(&configuration, Network::Outside, &[], false, |_| None, &mut problems).unwrap();
        }
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].to_string().contains("/no/such/netns"), "{}", problems[0]);
        assert!(problems[1].to_string().contains("no namespace"), "{}", problems[1]);
    }

    #[test]
    fn a_network_by_path_is_inherited_and_others_are_joined() {
        let mut problems = Vec::new();
        let net = configuration(NamespaceKind::Network, "/proc/self/ns/net");
        let given = find(&net, Network::Outside, &[], false, |_| None, &mut problems).unwrap();
        assert_eq!((given.inherited.len(), given.join.len()), (1, 0));
        assert_eq!(given.inherited[0].key, OUTSIDE_NET);
        let ipc = configuration(NamespaceKind::Ipc, "/proc/self/ns/ipc");
        let given = find(&ipc, Network::Host, &[], false, |_| None, &mut problems).unwrap();
        assert_eq!(given.join[0].kind, "ipc");
        assert!(problems.is_empty());
    }

    #[test]
    fn what_cannot_be_joined_is_named() {
        let mut problems = Vec::new();
        for (kind, path) in [(NamespaceKind::Cgroup, "/proc/self/ns/cgroup"), (NamespaceKind::Uts, "/proc/self/ns/ipc")]
        {
            find(&configuration(kind, path), Network::Host, &[], false, |_| None, &mut problems).unwrap();
        }
        let target = || JoinTarget::Pid(std::process::id() as i32);
        let joins = ["mnt", "user"].map(|kind| Join { kind: kind.into(), target: target(), extra: None });
        find(&Configuration::default(), Network::Host, &joins, false, |_| None, &mut problems).unwrap();
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        for (said, word) in said.iter().zip(["cgroup", "another kind", "mounts", "user namespace"]) {
            assert!(said.contains(word), "{said}");
        }
        assert_eq!(said.len(), 4, "{said:?}");
    }

    #[test]
    fn a_container_that_does_not_run_cannot_be_joined() {
        let mut problems = Vec::new();
        let join = Join { kind: "net".into(), target: JoinTarget::Container("gone".into()), extra: None };
        find(&Configuration::default(), Network::Empty, &[join], false, |_| None, &mut problems).unwrap();
        assert!(problems[0].to_string().contains("gone"), "{problems:?}");
    }
}
