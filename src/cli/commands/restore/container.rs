//! `crr restore --container ID`: the options, and what they mean.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use crr::container::restore::{Join, JoinTarget, Rootfs, Stdio, Veth, Wanted};
use crr::request::JoinNamespace;

use super::super::super::exit::Code;
use super::super::super::failure::Failure;

/// Where runc has its containers.
const RUNC: &str = "/run/runc";

/// What belongs to a restore as a container.
#[derive(Debug, Args)]
#[command(next_help_heading = "As a container")]
pub(super) struct ContainerArgs {
    /// Restore as a container of this name, which is its runtime's afterwards. Several come from DIR/ID each
    #[arg(long, value_name = "ID")]
    pub(super) container: Vec<String>,
    /// How many containers are restored at the same time [default: the number of processors]
    #[arg(long, value_name = "N", requires = "container", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) jobs: Option<u16>,
    /// Its bundle [default: the recorded one]
    #[arg(long, short = 'b', value_name = "DIR", requires = "container")]
    bundle: Option<PathBuf>,
    /// Where its runtime keeps its containers [default: /run/runc]
    #[arg(long, value_name = "DIR", requires = "container")]
    runtime_root: Option<PathBuf>,
    /// Where its standard streams lead: those of crr, the recorded files, or nowhere
    #[arg(long, value_enum, value_name = "WHERE", requires = "container")]
    stdio: Option<StdioArg>,
    /// The socket that takes the other end of its terminal
    #[arg(long, value_name = "SOCKET", requires = "container")]
    console_socket: Option<PathBuf>,
    /// The name of a veth's other end on the host, and a bridge for it [default: as recorded]
    #[arg(long, value_name = "IN=OUT[@BRIDGE]", value_parser = veth, requires = "container")]
    veth: Vec<Veth>,
    /// Its root file system: an overlay over the bundle's, a copy, or the bundle's own
    /// [default: shared, or an overlay where another container uses the bundle's]
    #[arg(long, value_enum, value_name = "HOW", requires = "container")]
    rootfs: Option<RootfsArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StdioArg {
    Inherit,
    Recorded,
    Null,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RootfsArg {
    Overlay,
    Copy,
    Shared,
}

impl ContainerArgs {
    /// What of these options is for one container only.
    pub(super) fn for_one(&self) -> [(&'static str, bool); 3] {
        let Self { bundle, console_socket, veth, .. } = self;
        [("--bundle", bundle.is_some()), ("--console-socket", console_socket.is_some()), ("--veth", !veth.is_empty())]
    }

    /// Where the states of the runtime's containers are.
    pub(super) fn runtime_root(&self, before: Option<&PathBuf>) -> PathBuf {
        self.runtime_root.as_ref().or(before).cloned().unwrap_or_else(|| RUNC.into())
    }

    /// The container that is wanted, if one is. It takes what `--join-ns` says.
    pub(super) fn wanted(
        self,
        root: Option<&PathBuf>,
        join: &mut Vec<JoinNamespace>,
    ) -> Result<Option<Wanted>, Failure> {
        let runtime_root = self.runtime_root(root);
        let Self { container, jobs: _, bundle, runtime_root: _, stdio, console_socket, veth, rootfs } = self;
        let Some(id) = container.first() else { return Ok(None) };
        let joins: Vec<Join> = std::mem::take(join).into_iter().map(joined).collect();
        Ok(Some(Wanted {
            id: id.parse()?,
            runtime_root,
            bundle,
            stdio: match stdio {
                None | Some(StdioArg::Inherit) => Stdio::Inherit,
                Some(StdioArg::Recorded) => Stdio::Recorded,
                Some(StdioArg::Null) => Stdio::Null,
            },
            console: console_socket,
            veths: veth,
            joins,
            rootfs: rootfs.map(|how| match how {
                RootfsArg::Overlay => Rootfs::Overlay,
                RootfsArg::Copy => Rootfs::Copy,
                RootfsArg::Shared => Rootfs::Shared,
            }),
        }))
    }
}

/// A number is a PID, a name with a slash a file, anything else a container.
fn joined(namespace: JoinNamespace) -> Join {
    let JoinNamespace { kind, file, extra } = namespace;
    let target = match file.parse() {
        Ok(pid) => JoinTarget::Pid(pid),
        Err(_) if file.contains('/') => JoinTarget::File(file.into()),
        Err(_) => JoinTarget::Container(file),
    };
    Join { kind, target, extra }
}

/// `IN=OUT[@BRIDGE]`
fn veth(text: &str) -> Result<Veth, String> {
    let bad = || format!("`{text}` is not IN=OUT or IN=OUT@BRIDGE, such as eth0=veth7@br0");
    let (inside, rest) = text.split_once('=').ok_or_else(bad)?;
    let (outside, bridge) = match rest.split_once('@') {
        Some((outside, bridge)) => (outside, Some(bridge)),
        None => (rest, None),
    };
    // As the kernel has it; CRIU gets the names in a syntax of its own.
    let is_name = |name: &str| {
        !name.is_empty() && name.len() <= 15 && !name.contains(|c: char| c.is_whitespace() || "/:@[]=".contains(c))
    };
    match is_name(inside) && is_name(outside) && bridge.is_none_or(is_name) {
        true => Ok(Veth { inside: inside.into(), outside: outside.into(), bridge: bridge.map(Into::into) }),
        false => Err(bad()),
    }
}

/// How long the parts of a restore took, for a person.
pub(super) fn times(prepare: Duration, copy: Duration, restore: Duration) -> String {
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
    format!("prepared in {}, copied in {}, restored in {}", ms(prepare), ms(copy), ms(restore))
}

/// That a tree of processes takes none of a container's options is the parser's to say; this is the reverse.
pub(super) fn refuse_with_container(given: &[(&'static str, bool)]) -> Result<(), Failure> {
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(Failure::new(Code::Usage, format!("{option} does not go with --container"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_veth_has_two_names_and_perhaps_a_bridge() {
        let of = |inside: &str, outside: &str, bridge: Option<&str>| Veth {
            inside: inside.into(),
            outside: outside.into(),
            bridge: bridge.map(Into::into),
        };
        assert_eq!(veth("eth0=v1"), Ok(of("eth0", "v1", None)));
        assert_eq!(veth("eth0=v1@br0"), Ok(of("eth0", "v1", Some("br0"))));
        for bad in ["eth0", "=v", "eth0=", "eth0=v@", "a=b@c@d", "a=b]:c", "a=sixteencharacter"] {
            assert!(veth(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn whose_namespace_is_told_by_its_form() {
        let join = |file: &str| joined(JoinNamespace { kind: "net".into(), file: file.into(), extra: None }).target;
        assert_eq!(join("17"), JoinTarget::Pid(17));
        assert_eq!(join("/run/netns/a"), JoinTarget::File("/run/netns/a".into()));
        assert_eq!(join("web"), JoinTarget::Container("web".into()));
    }
}
