use super::*;

use proptest::prelude::*;
use serde_json::Value;

/// Every way in which these bytes can be understood: a value or an error, with a cure.
fn understand(bytes: &[u8]) {
    let path = Path::new("x");
    let mut errors = Vec::new();
    match State::parse(bytes, path) {
        Ok(state) => {
            state.configuration();
            errors.extend(state.restored(&live()).err());
        }
        Err(error) => errors.push(error),
    }
    match Status::parse(bytes, path) {
        Ok(status) => errors.extend(status.restored(&live()).err()),
        Err(error) => errors.push(error),
    }
    match Spec::parse(bytes.to_vec(), path) {
        Ok(spec) => {
            spec.configuration(path);
            errors.extend(super::super::build::config(&spec, path, "x").err().map(|_| crate::Error::Bug { what: "" }));
        }
        Err(error) => errors.push(error),
    }
    errors.extend(Descriptors::parse(bytes, path).err());
    for error in errors {
        assert!(error.hint().is_some() || matches!(error, crate::Error::Bug { .. }), "{error}");
    }
}

/// Some ends of a text, the last ones among them: all would take half a minute.
fn ends(text: &str) -> impl Iterator<Item = usize> {
    let length = text.trim_end().len();
    (0..length).step_by(37).chain(length - 50..length)
}

#[test]
fn a_prefix_of_a_good_file_is_an_error() {
    let path = Path::new("x");
    for sample in &SAMPLES {
        let text = sample.state.as_bytes();
        assert!(ends(sample.state).all(|end| State::parse(&text[..end], path).is_err()), "{}", sample.what);
    }
    for config in [PLAIN, RICH] {
        let text = config.as_bytes();
        assert!(ends(config).all(|end| Spec::parse(text[..end].to_vec(), path).is_err()));
    }
    for (what, text) in CRUN {
        assert!(ends(text).all(|end| Status::parse(&text.as_bytes()[..end], path).is_err()), "{what}");
    }
}

#[test]
fn arrays_in_the_place_of_objects_are_errors() {
    for text in ["[]", "[[]]", "null", "3", r#"{"id":"a","config":[]}"#, r#"["a",1,1,"",["/"],false,{},{}]"#] {
        understand(text.as_bytes());
        assert!(State::parse(text.as_bytes(), Path::new("x")).is_err(), "{text}");
        assert!(Status::parse(text.as_bytes(), Path::new("x")).is_err(), "{text}");
    }
    understand("[".repeat(100_000).as_bytes());
}

#[test]
fn what_no_container_can_be_made_of_is_named() {
    for (pointer, value, named) in [
        ("/ociVersion", Value::from("2.0.0"), "ociVersion is \"2.0.0\""),
        ("/ociVersion", Value::Null, ""),
        ("/root/path", Value::from(""), "root.path"),
        ("/root", Value::Null, "root.path"),
        ("/linux", Value::Null, "its linux"),
        ("/mounts/0/destination", Value::from(""), "mounts[0].destination"),
        ("/mounts", Value::from("none"), "malformed"),
        ("/linux/namespaces/1/type", Value::from("pid"), "pid namespace twice"),
        ("/linux/namespaces/1/type", Value::from("flat"), "malformed"),
        ("/linux/namespaces/1/path", Value::from("net"), "not absolute"),
        ("/hooks/prestart/0/path", Value::from("true"), "hooks.prestart"),
    ] {
        let mut config: Value = serde_json::from_str(RICH).expect("JSON");
        config["linux"]["namespaces"][1]["path"] = Value::Null;
        *config.pointer_mut(pointer).expect(pointer) = value;
        let error = Spec::parse(config.to_string().into_bytes(), Path::new("/b/config.json")).expect_err(pointer);
        let text = error.to_string();
        assert!(text.contains("/b/config.json") && text.contains(named), "{pointer}: {text}");
    }
}

#[test]
fn a_state_that_would_mislead_is_named() {
    for (pointer, value, named) in [
        ("/id", Value::from(""), "id is empty"),
        ("/init_process_pid", Value::from(-1), "init_process_pid"),
        ("/config/rootfs", Value::from("rootfs"), "config.rootfs"),
        ("/config/namespaces/0/type", Value::from("NEWTHING"), "NEWTHING"),
        ("/config/mounts", Value::from(3), "malformed"),
        ("/external_descriptors", serde_json::json!(["a"]), "external_descriptors"),
        ("/config/uid_mappings", serde_json::json!([{ "container_id": -1, "host_id": 0, "size": 1 }]), "uid_mappings"),
    ] {
        let mut value_of: Value = serde_json::from_str(SAMPLES[0].state).expect("JSON");
        *value_of.pointer_mut(pointer).expect(pointer) = value;
        let error = State::parse(value_of.to_string().as_bytes(), Path::new("/r/state.json")).expect_err(pointer);
        assert!(error.to_string().contains(named), "{pointer}: {error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        understand(&bytes);
    }

    /// One value anywhere in a good file becomes another.
    #[test]
    fn no_value_is_a_panic(file in 0..7usize, at in any::<prop::sample::Index>(), with in 0..9usize) {
        let texts: Vec<&str> =
            SAMPLES.iter().map(|sample| sample.state).chain([PLAIN, RICH, CRUN[0].1]).collect();
        let mut value: Value = serde_json::from_str(texts[file]).expect("JSON");
        let mut pointers = Vec::new();
        collect(&value, String::new(), &mut pointers);
        let replacement = [
            Value::Null, Value::from(-1), Value::from(u64::MAX), Value::from(1.5), Value::from("x"), Value::from(""),
            Value::from(true), serde_json::json!([]), serde_json::json!({}),
        ][with].clone();
        *value.pointer_mut(at.get(&pointers[..]).as_str()).expect("there") = replacement;
        understand(value.to_string().as_bytes());
    }
}

fn collect(value: &Value, pointer: String, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                collect(field, format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")), into);
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                collect(item, format!("{pointer}/{number}"), into);
            }
        }
        _ => {}
    }
    into.push(pointer);
}
