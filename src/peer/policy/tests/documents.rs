//! serve.toml itself.

use std::time::Duration;

use super::*;
use crate::error::Error;
use crate::peer::{Configuration, Problem};

fn parse(text: &str) -> Result<Policies, String> {
    Policies::parse(text, "serve.toml".into()).map_err(|error| match error {
        Error::Peer(problem) => problem.to_string(),
        other => panic!("{other}"),
    })
}

fn peer(name: &str) -> Name {
    name.parse().expect("a name")
}

#[test]
fn what_is_not_understood_is_refused_with_its_place() {
    for (text, expected) in [
        ("[peer.b]\nuid = [1]", "line 2"),
        ("[peers.b]", "unknown field"),
        ("[peer.b]\nuids = [-1]", "line 2"),
        ("[peer.b]\nuids = \"all\"", "line 2"),
        ("[peer.b]\nopen = [\"etc\"]", "no absolute path"),
        ("[peer.b]\ncapabilities = [\"root\"]", "no capability"),
        ("[peer.b]\nnamespaces = [\"mnt\"]", "unknown variant"),
        ("[peer.b]\naddresses = [\"localhost\"]", "neither an address"),
        ("[peer.b]\nunrestricted = true\nuids = [1]", "would restrict it"),
        ("[peer.\"../b\"]", "no name for a peer"),
        ("[peer.b]\n[peer.b]", "duplicate key"),
        ("[stdio]\nunrestricted = 1", "line 2"),
    ] {
        let found = parse(text).expect_err(text);
        assert!(found.contains(expected), "{text}: {found}");
    }
}

#[test]
fn a_login_is_root_unless_a_section_restricts_it() {
    assert!(parse("").unwrap().of_stdio().is_unrestricted());
    let policies = parse("[stdio]\nuids = [1000]").unwrap();
    assert!(!policies.of_stdio().is_unrestricted() && !policies.of_stdio().is_nothing());
    assert_eq!(policies.of_stdio().section().to_string(), "[stdio]");
}

#[test]
fn a_peer_without_a_section_may_bring_nothing() {
    let policies =
        parse("[peer.a]\nunrestricted = true\nmax-seconds = 60\n[peer.c]\nmax-tasks = 5\n[peer.d]\nuids = [1]")
            .unwrap();
    assert!(policies.of_peer(&peer("a")).is_unrestricted());
    assert_eq!(policies.of_peer(&peer("a")).limits().time, Some(Duration::from_secs(60)));
    assert!(policies.of_peer(&peer("b")).is_nothing());
    assert!(policies.of_peer(&peer("c")).is_nothing());
    assert!(!policies.of_peer(&peer("d")).is_nothing());
}

#[test]
fn the_example_is_understood_and_has_every_line() {
    let example = include_str!("../../../../doc/serve.toml");
    let policies = parse(example).unwrap();
    assert!(policies.of_peer(&peer("a")).is_unrestricted());
    assert!(!policies.of_peer(&peer("b")).is_nothing() && !policies.of_peer(&peer("b")).is_unrestricted());
    for line in Line::ALL {
        assert!(example.lines().any(|text| text.split(' ').next() == Some(line.key())), "{}", line.key());
    }
}

#[test]
fn a_policy_that_others_may_write_is_not_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().expect("a directory");
    let configuration = Configuration::at(home.path().join("crr"));
    assert!(Policies::read(&configuration).unwrap().of_peer(&peer("b")).is_nothing());
    fs::create_dir(configuration.path()).expect("made");
    let file = configuration.path().join("serve.toml");
    fs::write(&file, "[peer.b]\nunrestricted = true").expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("set");
    assert!(Policies::read(&configuration).unwrap().of_peer(&peer("b")).is_unrestricted());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o664)).expect("set");
    let error = Policies::read(&configuration).expect_err("others may write it");
    assert!(matches!(error, Error::Peer(problem) if matches!(*problem, Problem::Untrusted { .. })));
}
