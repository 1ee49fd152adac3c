//! The options of a restore: those recorded, those that the images call for, and those that the caller gives, who wins.

use super::problem::Remarks;
use super::subject::Subject;
use crate::checkpoint::RecordedOptions;
use crate::request::{DumpSwitch, RestoreOptions, RestoreSwitch, Tcp};

/// Adds to the `given` options what is recorded (but for what comes from outside a container) or, without a record, what the images show to be needed. Says what was added,
/// and where the caller differs from the record.
pub(super) fn complete(
    given: &mut RestoreOptions,
    recorded: Option<&RecordedOptions>,
    subject: &Subject,
    of_container: bool,
    remarks: &mut Remarks,
) {
    match recorded {
        Some(recorded) => add_recorded(given, recorded, of_container, remarks),
        None => add_needed(given, subject, remarks),
    }
    if given.tcp == Tcp::Refuse && subject.tcp_close && !subject.connections.is_empty() {
        given.tcp = Tcp::Close;
        remarks.note("the dump dropped TCP connections: they are restored closed (--tcp-close)");
    }
}

/// What the images of a dump by the criu program call for.
fn add_needed(given: &mut RestoreOptions, subject: &Subject, remarks: &mut Remarks) {
    let needs = [
        (subject.is_shell_job(), RestoreSwitch::ShellJob, "the session's leader is not in the images"),
        (subject.external_unix, RestoreSwitch::ExtUnixSk, "a unix socket has its peer outside"),
        (subject.locks, RestoreSwitch::FileLocks, "the images hold file locks"),
        (subject.link_remaps, RestoreSwitch::LinkRemap, "the dump made names for unlinked files"),
    ];
    for (needed, switch, why) in needs {
        if needed && given.switches.insert(switch) {
            remarks.note(format!("turned on --{switch}: {why}"));
        }
    }
}

fn add_recorded(given: &mut RestoreOptions, recorded: &RecordedOptions, of_container: bool, remarks: &mut Remarks) {
    // Everything is named here, so that what is added to the record does not go unnoticed.
    let RecordedOptions {
        switches,
        tcp,
        network_lock: _,
        ghost_limit_bytes: _,
        external,
        irmap_scan_paths: _,
        skip_mnt,
        enable_fs: _,
        empty_ns,
        manage_cgroups,
        cgroup_roots: _,
        cgroup_dump_controllers: _,
        cgroup_props: _,
        cpu,
        afterwards: _,
    } = recorded;
    given.switches.extend(switches.iter().copied().filter_map(counterpart));
    match (given.tcp, *tcp) {
        (Tcp::Refuse, recorded) => given.tcp = recorded,
        (given, Tcp::Refuse) => remarks.note(format!("the dump had no option for TCP; {} was given", word(given))),
        (given, recorded) if given != recorded => {
            remarks.note(format!("the dump used {}; {} was given and wins", word(recorded), word(given)));
        }
        _ => {}
    }
    // A container's are answered from its images and its bundle.
    let outside = if of_container { &[][..] } else { external.as_slice() };
    for resource in outside {
        let Some(resource) = at_restore(resource) else {
            remarks.warn(format!(
                "the dump left out `{resource}`, which the restore must be given (--inherit-fd, --external)"
            ));
            continue;
        };
        if !given.external.iter().any(|own| key(own) == key(&resource)) {
            given.external.push(resource);
        } else if !given.external.contains(&resource) {
            remarks.note(format!("`--external {}` is recorded; another value was given and wins", key(&resource)));
        }
    }
    for mount in skip_mnt {
        if !given.skip_mnt.contains(mount) {
            given.skip_mnt.push(mount.clone());
        }
    }
    // CRIU refuses one beside a network namespace to be joined.
    if given.empty_ns.is_empty() && !given.join.iter().any(|namespace| namespace.kind == "net") {
        given.empty_ns.clone_from(empty_ns);
    }
    match (given.cgroups.mode, *manage_cgroups) {
        (None, recorded) => given.cgroups.mode = recorded,
        (Some(given), Some(recorded)) if given != recorded => {
            let (recorded, given) = (spelled(&recorded), spelled(&given));
            remarks.note(format!("the dump used --manage-cgroups={recorded}; {given} was given and wins"));
        }
        _ => {}
    }
    match (given.cpu, *cpu) {
        (None, recorded) => given.cpu = recorded,
        (Some(given), Some(recorded)) if given != recorded => {
            let (recorded, given) = (spelled(&recorded), spelled(&given));
            remarks.note(format!("the dump used --cpu-cap {recorded}; {given} was given and wins"));
        }
        _ => {}
    }
}

/// What a switch of the dump asks of the restore.
fn counterpart(switch: DumpSwitch) -> Option<RestoreSwitch> {
    match switch {
        DumpSwitch::ShellJob => Some(RestoreSwitch::ShellJob),
        DumpSwitch::ExtUnixSk => Some(RestoreSwitch::ExtUnixSk),
        DumpSwitch::FileLocks => Some(RestoreSwitch::FileLocks),
        DumpSwitch::LinkRemap => Some(RestoreSwitch::LinkRemap),
        DumpSwitch::Unprivileged => Some(RestoreSwitch::Unprivileged),
        DumpSwitch::SkipInFlight
        | DumpSwitch::EvasiveDevices
        | DumpSwitch::OrphanPtsMaster
        | DumpSwitch::TrackMem
        | DumpSwitch::AutoDedup
        | DumpSwitch::ForceIrmap
        | DumpSwitch::LazyPages => None,
    }
}

/// An external resource of the dump in the form of the restore; `None` for one that only a descriptor can stand for.
fn at_restore(resource: &str) -> Option<String> {
    let (kind, rest) = resource.split_once('[')?;
    let (inside, name) = rest.split_once(']')?;
    let name = name.strip_prefix(':').unwrap_or_default();
    match kind {
        // Automatic external mounts, with their flags.
        "mnt" if inside.is_empty() => Some(resource.to_owned()),
        "mnt" if name.is_empty() => Some(format!("mnt[{inside}]:{inside}")),
        "mnt" => Some(format!("mnt[{name}]:{inside}")),
        "unix" => Some(resource.to_owned()),
        _ => None,
    }
}

/// What a resource is about: all but its value.
fn key(resource: &str) -> &str {
    resource.split_once(']').map_or(resource, |(key, _)| key)
}

/// A value as crr.json and the command line spell it.
fn spelled(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}

fn word(tcp: Tcp) -> &'static str {
    match tcp {
        Tcp::Refuse => "no option for TCP",
        Tcp::Established => "--tcp-established",
        Tcp::Close => "--tcp-close",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::request::{CgroupMode, CpuCapabilities};

    pub(in crate::restore) fn subject() -> Subject {
        Subject {
            tasks: Vec::new(),
            own_pids: false,
            own_mounts: false,
            run_id: None,
            tcp_close: false,
            connections: Vec::new(),
            local: Vec::new(),
            listening: Vec::new(),
            inet: false,
            external_unix: false,
            locks: false,
            link_remaps: false,
            outside_terminal: false,
            cgroups: None,
            parent_death_signal: None,
        }
    }

    fn merge(mut given: RestoreOptions, recorded: &RecordedOptions) -> (RestoreOptions, Remarks) {
        let mut remarks = Remarks::default();
        complete(&mut given, Some(recorded), &subject(), false, &mut remarks);
        (given, remarks)
    }

    #[test]
    fn recorded_options_need_not_be_given() {
        let recorded = RecordedOptions {
            switches: [DumpSwitch::ShellJob, DumpSwitch::FileLocks, DumpSwitch::TrackMem].into(),
            tcp: Tcp::Established,
            external: vec!["mnt[/data]:data".into(), "mnt[]:m".into(), "unix[7]".into()],
            skip_mnt: vec!["/skip".into()],
            manage_cgroups: Some(CgroupMode::Soft),
            cpu: Some(CpuCapabilities::None),
            ..RecordedOptions::default()
        };
        let (options, remarks) = merge(RestoreOptions::new(), &recorded);
        assert_eq!(options.switches, [RestoreSwitch::ShellJob, RestoreSwitch::FileLocks].into());
        assert_eq!(options.tcp, Tcp::Established);
        assert_eq!(options.external, ["mnt[data]:/data", "mnt[]:m", "unix[7]"]);
        assert_eq!(options.skip_mnt, ["/skip"]);
        assert_eq!(options.cgroups.mode, Some(CgroupMode::Soft));
        assert_eq!(options.cpu, Some(CpuCapabilities::None));
        assert_eq!(remarks, Remarks::default());
    }

    #[test]
    fn an_option_that_repeats_the_record_is_accepted_in_silence() {
        let recorded = RecordedOptions {
            switches: [DumpSwitch::ShellJob].into(),
            tcp: Tcp::Established,
            external: vec!["mnt[/data]:data".into()],
            ..RecordedOptions::default()
        };
        let mut given = RestoreOptions::new();
        given.switches.insert(RestoreSwitch::ShellJob);
        given.tcp = Tcp::Established;
        given.external = vec!["mnt[data]:/data".into()];
        let (options, remarks) = merge(given, &recorded);
        assert_eq!(options.external, ["mnt[data]:/data"]);
        assert_eq!(remarks, Remarks::default());
    }

    #[test]
    fn an_option_that_differs_wins_and_is_said() {
        let recorded = RecordedOptions {
            tcp: Tcp::Established,
            external: vec!["mnt[/data]:data".into()],
            manage_cgroups: Some(CgroupMode::Full),
            ..RecordedOptions::default()
        };
        let mut given = RestoreOptions::new();
        given.tcp = Tcp::Close;
        given.external = vec!["mnt[data]:/other".into()];
        given.cgroups.mode = Some(CgroupMode::Ignore);
        let (options, remarks) = merge(given, &recorded);
        assert_eq!(options.tcp, Tcp::Close);
        assert_eq!(options.external, ["mnt[data]:/other"]);
        assert_eq!(options.cgroups.mode, Some(CgroupMode::Ignore));
        assert_eq!(remarks.notes.len(), 3, "{remarks:?}");
        assert!(remarks.notes[0].contains("--tcp-established"), "{remarks:?}");
    }

    #[test]
    fn what_only_a_descriptor_can_replace_is_asked_for() {
        let recorded = RecordedOptions { external: vec!["tty[1:2]".into()], ..RecordedOptions::default() };
        let (options, remarks) = merge(RestoreOptions::new(), &recorded);
        assert!(options.external.is_empty());
        assert!(remarks.warnings[0].contains("tty[1:2]"), "{remarks:?}");
    }

    #[test]
    fn without_a_record_the_images_say_what_is_needed() {
        let subject = Subject { locks: true, link_remaps: true, tcp_close: true, ..subject() };
        let mut options = RestoreOptions::new();
        let mut remarks = Remarks::default();
        complete(&mut options, None, &subject, false, &mut remarks);
        assert_eq!(options.switches, [RestoreSwitch::FileLocks, RestoreSwitch::LinkRemap].into());
        assert_eq!(remarks.notes.len(), 2);
        assert_eq!(options.tcp, Tcp::Refuse, "there is no connection");
    }
}
