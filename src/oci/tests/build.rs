use super::*;

use serde_json::Value;

/// What is nothing to Go is as good as absent.
fn without_nothing(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().map(|(name, value)| (name.clone(), without_nothing(value)));
            let nothing =
                [Value::Null, 0.into(), false.into(), "".into(), Value::Array(Vec::new()), serde_json::json!({})];
            Value::Object(kept.filter(|(_, value)| !nothing.contains(value)).collect())
        }
        Value::Array(items) => items.iter().map(without_nothing).collect(),
        other => other.clone(),
    }
}

/// Where two values differ.
fn compare(built: &Value, real: &Value, at: String, different: &mut Vec<String>) {
    match (built, real) {
        (Value::Object(one), Value::Object(other)) => {
            for name in one.keys().chain(other.keys().filter(|name| !one.contains_key(*name))) {
                compare(&built[name], &real[name], format!("{at}/{name}"), different);
            }
        }
        (one, other) if one != other => different.push(format!("{at}: {one} instead of {other}")),
        _ => {}
    }
}

/// A bundle at a place of its own, as if it lay in /srv/bundle.
fn bundle(config: &str) -> (tempfile::TempDir, Bundle) {
    let home = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(home.path().join("rootfs")).expect("made");
    std::fs::write(home.path().join("config.json"), config).expect("written");
    let bundle = Bundle::open(home.path()).expect("a bundle");
    (home, bundle)
}

#[test]
fn a_state_that_is_built_says_the_same_as_runcs_own() {
    for sample in &SAMPLES {
        let real = state(sample);
        let (_home, bundle) = bundle(sample.config);
        let here = bundle.path().to_str().expect("UTF-8").to_owned();
        let live = Live {
            id: real.id().parse().expect("an id"),
            init: real.init(),
            created: UNIX_EPOCH,
            bundle: bundle.path().into(),
            rootfs: bundle.rootfs().into(),
            cgroup_paths: real.cgroup_paths().clone(),
            cgroup: PathBuf::new(),
            time_namespace: sample.time_namespace,
            descriptors: real.descriptors().expect("descriptors"),
        };
        let built = State::build(&bundle, &live).expect(sample.what).to_json().replace(&here, "/srv/bundle");
        let mut built: Value = serde_json::from_str(&built).expect("JSON");
        let mut real: Value = serde_json::from_str(sample.state).expect("JSON");
        for each in [&mut built, &mut real] {
            // The moment; the release's own OCI version; a number by a formula of the release's own; an option of seccomp's
            // that 1.3.6 adds where there is none.
            each["created"] = Value::Null;
            each["config"]["version"] = Value::Null;
            each["config"]["cgroups"]["cpu_weight"] = Value::Null;
            if !each["config"]["seccomp"].is_null() {
                each["config"]["seccomp"]["flags"] = Value::Null;
            }
            // 1.1.5 knows neither domain names nor which flags an option takes away.
            if !sample.time_namespace {
                each["config"]["domainname"] = Value::Null;
            }
            for mount in each["config"]["mounts"].as_array_mut().expect("mounts") {
                mount["cleared_flags"] = Value::Null;
            }
            // Annotations come from a map.
            let labels = each["config"]["labels"].as_array_mut().expect("labels");
            labels.sort_by_key(Value::to_string);
        }
        let mut different = Vec::new();
        compare(&without_nothing(&built), &without_nothing(&real), String::new(), &mut different);
        assert!(different.is_empty(), "{}: {different:#?}", sample.what);
    }
}

#[test]
fn flags_that_an_option_takes_away_are_as_runc_1_3_has_them() {
    let sample = &SAMPLES[3];
    let (_home, bundle) = bundle(sample.config);
    let built: Value = serde_json::from_str(&State::build(&bundle, &live()).expect("built").to_json()).expect("JSON");
    let real: Value = serde_json::from_str(sample.state).expect("JSON");
    let cleared = |state: &Value| -> Vec<Value> {
        let mounts = state["config"]["mounts"].as_array().expect("mounts");
        mounts.iter().map(|mount| mount["cleared_flags"].clone()).collect()
    };
    assert_eq!(cleared(&built), cleared(&real));
}

#[test]
fn a_restored_container_keeps_all_but_what_belongs_to_one_life() {
    for sample in &SAMPLES {
        let restored = state(sample).restored(&live()).expect(sample.what);
        let mut new: Value = serde_json::from_str(&restored.to_json()).expect("JSON");
        let mut old: Value = serde_json::from_str(sample.state).expect("JSON");
        assert_eq!((restored.id(), restored.init()), ("again", Init { pid: 4242, start: 77 }));
        assert_eq!(restored.created(), "1970-01-01T00:00:01.5Z");
        assert_eq!(
            (restored.bundle(), restored.rootfs()),
            (Some(Path::new("/srv/copy")), Path::new("/srv/copy/rootfs"))
        );
        assert_eq!(restored.cgroup_paths(), &live().cgroup_paths);
        assert_eq!(restored.namespace_paths()["NEWNS"], Path::new("/proc/4242/ns/mnt"));
        assert_eq!(restored.namespace_paths().len(), state(sample).namespace_paths().len());
        assert_eq!(restored.descriptors(), Some(live().descriptors));
        let annotation = |state: &State| state.label("org.example.b").map(str::to_owned);
        assert_eq!(annotation(&restored), annotation(&state(sample)));
        for each in [&mut new, &mut old] {
            for name in ["id", "created", "init_process_pid", "init_process_start"] {
                each[name] = Value::Null;
            }
            for name in ["cgroup_paths", "namespace_paths", "external_descriptors"] {
                each[name] = Value::Null;
            }
            each["config"]["rootfs"] = Value::Null;
            each["config"]["labels"] = Value::Null;
        }
        assert_eq!(new, old, "{}", sample.what);
    }
}

#[test]
fn what_crr_does_not_know_survives_a_restore() {
    let mut value: Value = serde_json::from_str(SAMPLES[0].state).expect("JSON");
    value["of_a_later_runc"] = serde_json::json!({ "a": [1, 2.5, null] });
    value["config"]["of_a_later_runc"] = "kept".into();
    // Larger than a signed number.
    value["config"]["seccomp"] = serde_json::json!({ "value": u64::MAX });
    let state = State::parse(value.to_string().as_bytes(), Path::new("state.json")).expect("read");
    let restored: Value = serde_json::from_str(&state.restored(&live()).expect("patched").to_json()).expect("JSON");
    for pointer in ["/of_a_later_runc", "/config/of_a_later_runc", "/config/seccomp/value"] {
        assert_eq!(restored.pointer(pointer), value.pointer(pointer), "{pointer}");
    }
}

#[test]
fn a_path_that_json_cannot_hold_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let strange = PathBuf::from(std::ffi::OsStr::from_bytes(b"/srv/\xff"));
    for life in [Live { bundle: strange.clone(), ..live() }, Live { rootfs: strange.clone(), ..live() }] {
        assert!(state(&SAMPLES[0]).restored(&life).is_err());
        assert!(status(CRUN[0].1).restored(&life).is_err());
    }
}

#[test]
fn a_status_is_patched_and_built() {
    for (what, text) in CRUN {
        let restored = status(text).restored(&live()).expect(what);
        let built = Status::build(&live()).expect("built");
        for each in [&restored, &built] {
            assert_eq!(each.init(), Init { pid: 4242, start: 77 }, "{what}");
            assert_eq!(each.rootfs(), Path::new("/srv/copy/rootfs"), "{what}");
            assert_eq!(each.cgroup(), Path::new("/again"), "{what}");
            assert_eq!(each.descriptors(), Some(&live().descriptors), "{what}");
        }
        // The names of its fields are crun's, and none of crun's is missing but one that only 1.21 has.
        let fields = |text: &str| -> Vec<String> {
            let value: Value = serde_json::from_str(text).expect("JSON");
            value.as_object().expect("an object").keys().filter(|name| *name != "intelrdt").cloned().collect()
        };
        assert_eq!(fields(&built.to_json()), fields(text), "{what}");
    }
}

#[test]
fn what_runcs_state_cannot_say_is_refused_by_name() {
    for (pointer, value, named) in [
        ("/linux/seccomp/defaultAction", "SCMP_ACT_NEW", "linux.seccomp"),
        ("/linux/rootfsPropagation", "sideways", "linux.rootfsPropagation"),
    ] {
        let mut config: Value = serde_json::from_str(RICH).expect("JSON");
        *config.pointer_mut(pointer).expect("there") = value.into();
        let home = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(home.path().join("rootfs")).expect("made");
        std::fs::write(home.path().join("config.json"), config.to_string()).expect("written");
        let error = Bundle::open(home.path()).and_then(|bundle| State::build(&bundle, &live())).expect_err(pointer);
        let text = format!("{error} {}", error.hint().unwrap_or_default());
        assert!(text.contains("config.json") && (text.contains(named) || text.contains(value)), "{text}");
    }
}
