use super::*;

use std::collections::BTreeSet;

#[test]
fn the_state_of_each_runc_says_what_its_bundle_says() {
    for sample in &SAMPLES {
        let state = state(sample);
        let mut from_state = state.configuration();
        let mut from_spec = spec(sample.config).configuration(Path::new("/srv/bundle"));
        // Go's maps have no order.
        from_state.annotations.sort();
        from_spec.annotations.sort();
        assert_eq!(from_state, from_spec, "{}", sample.what);
        assert_eq!(state.bundle(), Some(Path::new("/srv/bundle")), "{}", sample.what);
        assert_eq!(state.rootfs(), Path::new("/srv/bundle/rootfs"), "{}", sample.what);
        assert!(!state.rootless() && !state.systemd_cgroup(), "{}", sample.what);
        assert_eq!(state.networks().collect::<Vec<_>>(), ["loopback"], "{}", sample.what);
        let namespaces = state.namespace_paths();
        let network = format!("/proc/{}/ns/net", state.init().pid);
        assert_eq!(namespaces["NEWNET"], Path::new(&network), "{}", sample.what);
        assert_eq!(namespaces.contains_key("NEWTIME"), sample.time_namespace, "{}", sample.what);
        let freezer = &state.cgroup_paths()["freezer"];
        assert!(freezer.starts_with("/sys/fs/cgroup/freezer"), "{}", sample.what);
        assert!(state.descriptors().is_some(), "{}", sample.what);
    }
}

#[test]
fn a_configuration_has_what_a_dump_asks_for() {
    let state = state(&SAMPLES[3]);
    assert_eq!((state.id(), state.init()), ("oci-r1", Init { pid: 9671, start: 1_279_236 }));
    assert_eq!(state.created(), "2026-11-20T13:10:57.324632071Z");
    assert_eq!((state.label("org.example.a"), state.label("none")), (Some("1"), None));
    let configuration = state.configuration();
    let kinds = |wanted: MountKind| -> Vec<&Path> {
        let mounts = configuration.mounts.iter().filter(|mount| mount.kind == wanted);
        mounts.map(|mount| mount.destination.as_path()).collect()
    };
    assert_eq!(kinds(MountKind::Bind), [Path::new("/data"), Path::new("/rel")]);
    assert_eq!(kinds(MountKind::Tmpfs), [Path::new("/dev"), Path::new("/dev/shm"), Path::new("/scratch")]);
    assert_eq!(kinds(MountKind::Cgroup), [Path::new("/sys/fs/cgroup")]);
    assert_eq!(kinds(MountKind::Other("proc".into())), [Path::new("/proc")]);
    let relative = configuration.mounts.last().expect("mounts");
    assert_eq!((relative.source.as_path(), relative.read_only()), (Path::new("/srv/bundle/vol"), true));
    assert_eq!(configuration.devices.last(), Some(&PathBuf::from("/dev/fuse")));
    assert_eq!(configuration.devices.len(), 7);
    assert!(configuration.masked_paths.contains(&PathBuf::from("/proc/keys")));
    assert!(configuration.seccomp);
    let kinds: BTreeSet<_> = configuration.namespaces.iter().map(|namespace| namespace.kind).collect();
    assert!(kinds.contains(&NamespaceKind::Cgroup) && !kinds.contains(&NamespaceKind::User));
    assert_eq!(configuration.namespace(NamespaceKind::Network).map(|found| found.path.is_some()), Some(false));
}

#[test]
fn a_config_has_what_a_restore_asks_for() {
    let spec = spec(RICH);
    assert_eq!(spec.cgroups_path(), Some(Path::new("/oci-rich")));
    assert_eq!((spec.annotation("org.criu.config"), spec.annotation("none")), (Some(""), None));
    assert!(!spec.terminal() && !spec.rootfs_read_only());
    let hooks = spec.hooks();
    let [prestart] = &hooks.prestart[..] else { panic!("one hook") };
    assert_eq!(prestart.args, ["true", "a"]);
    assert_eq!((prestart.env.as_slice(), prestart.timeout), (&["A=1".to_owned()][..], Some(Duration::from_secs(5))));
    assert_eq!(hooks.create_runtime.len(), 1);
    assert_eq!(spec.bytes(), RICH.as_bytes());
}

#[test]
fn joined_namespaces_and_user_namespaces_are_read() {
    let mut config: serde_json::Value = serde_json::from_str(PLAIN).expect("JSON");
    config["linux"]["namespaces"] = serde_json::json!([
        { "type": "network", "path": "/run/netns/a" }, { "type": "user" }, { "type": "time", "path": "" }
    ]);
    config["linux"]["uidMappings"] = serde_json::json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    let read = spec(&config.to_string()).configuration(Path::new("/b"));
    let namespace = read.namespace(NamespaceKind::Network).expect("a namespace");
    assert_eq!(namespace.path.as_deref(), Some(Path::new("/run/netns/a")));
    assert_eq!(read.namespace(NamespaceKind::Time).expect("a namespace").path, None);
    assert_eq!(read.uid_mappings, [IdMapping { container: 0, host: 100_000, size: 65_536 }]);
}

#[test]
fn the_status_of_each_crun_is_read() {
    for (what, text) in CRUN {
        let status = status(text);
        assert!(status.init().pid > 0 && status.init().start > 0, "{what}");
        assert!(status.cgroup().starts_with("/"), "{what}");
        assert_eq!(
            (status.bundle(), status.rootfs().as_path()),
            (Path::new("/srv/bundle"), Path::new("/srv/bundle/rootfs"))
        );
        let streams = Descriptors(["/dev/null".into(), "/dev/null".into(), "/srv/err.log".into()]);
        assert_eq!(status.descriptors(), Some(&streams), "{what}");
        assert!(!status.systemd_cgroup() && status.created().ends_with('Z'), "{what}");
    }
}
