use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;

fn configuration() -> (tempfile::TempDir, Configuration) {
    let home = tempfile::tempdir().unwrap();
    let configuration = Configuration::at(home.path().join("crr"));
    (home, configuration)
}

fn peer(name: &str, key: &[u8]) -> Peer {
    Peer { name: name.parse().unwrap(), fingerprint: Fingerprint::of(key), address: None }
}

fn problem(result: Result<impl std::fmt::Debug>) -> Problem {
    match result {
        Err(Error::Peer(problem)) => *problem,
        other => panic!("{other:?}"),
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_is_made_once_and_read_from_then_on() {
    let (home, configuration) = configuration();
    assert!(HostKey::open(&configuration).unwrap().is_none());
    let (key, made) = HostKey::open_or_make(&configuration).unwrap();
    assert!(made);
    let (again, made) = HostKey::open_or_make(&configuration).unwrap();
    assert!(!made);
    assert_eq!(key.fingerprint(), again.fingerprint());
    let permissions = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(permissions(&home.path().join("crr/key.pem")), 0o600);
    assert_eq!(permissions(&home.path().join("crr")), 0o700);
}

#[test]
fn keys_of_two_hosts_differ() {
    let ((_one, one), (_two, two)) = (configuration(), configuration());
    let fingerprint = |configuration| HostKey::open_or_make(configuration).unwrap().0.fingerprint();
    assert_ne!(fingerprint(&one), fingerprint(&two));
}

#[test]
fn several_that_make_it_at_once_have_one_key() {
    let (_home, configuration) = configuration();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let configuration = configuration.clone();
            std::thread::spawn(move || HostKey::open_or_make(&configuration).unwrap())
        })
        .collect();
    let made: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(made.iter().filter(|(_, made)| *made).count(), 1);
    assert!(made.iter().all(|(key, _)| key.fingerprint() == made[0].0.fingerprint()));
}

#[test]
fn a_key_that_others_may_have_seen_or_put_there_is_refused_and_stays() {
    let (home, configuration) = configuration();
    HostKey::open_or_make(&configuration).unwrap();
    let (directory, key) = (home.path().join("crr"), home.path().join("crr/key.pem"));
    let content = fs::read(&key).unwrap();
    let refused = |what: &str| {
        let problem = problem(HostKey::open_or_make(&configuration));
        assert!(problem.to_string().contains(what), "{problem}");
        assert_eq!(fs::read(&key).unwrap(), content);
    };
    for readable in [0o640, 0o604, 0o610] {
        mode(&key, readable);
        refused("may be read by others");
    }
    mode(&key, 0o620);
    refused("may be written by others");
    mode(&key, 0o600);
    mode(&directory, 0o770);
    refused("may be written by others (mode 0770)");
    mode(&directory, 0o700);
    mode(home.path(), 0o777);
    refused("may be written by others (mode 0777)");
    mode(home.path(), 0o700);
    fs::hard_link(&key, directory.join("second")).unwrap();
    refused("2 names");
    fs::remove_file(directory.join("second")).unwrap();
    HostKey::open_or_make(&configuration).unwrap();
}

#[test]
fn a_key_is_no_link_and_no_other_kind_of_key() {
    let (home, configuration) = configuration();
    HostKey::open_or_make(&configuration).unwrap();
    let key = home.path().join("crr/key.pem");
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    for content in ["", "-----BEGIN PRIVATE KEY-----\n", &other, &"x".repeat(5000)] {
        fs::write(&key, content).unwrap();
        assert!(matches!(problem(HostKey::open_or_make(&configuration)), Problem::Damaged { .. }), "{content}");
    }
    fs::rename(&key, home.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(home.path().join("elsewhere"), &key).unwrap();
    assert!(HostKey::open_or_make(&configuration).is_err());
}

#[test]
fn what_is_enrolled_is_found_by_name_and_by_key_until_it_is_removed() {
    let (_home, configuration) = configuration();
    let enrolled = Enrolled::new(configuration);
    assert!(enrolled.all().unwrap().peers.is_empty());
    let (mut a, b) = (peer("a", b"a"), peer("b", b"b"));
    a.address = Some("a.example:7420".parse().unwrap());
    enrolled.add(&b).unwrap();
    enrolled.add(&a).unwrap();
    assert_eq!(enrolled.all().unwrap().peers, [a.clone(), b.clone()]);
    assert_eq!(enrolled.named(&a.name).unwrap(), a);
    assert_eq!(enrolled.with(&b.fingerprint).unwrap(), Some(b.clone()));
    assert!(enrolled.still(&b));
    enrolled.remove(&b.name).unwrap();
    assert!(!enrolled.still(&b));
    assert_eq!(enrolled.with(&b.fingerprint).unwrap(), None);
    assert!(matches!(problem(enrolled.named(&b.name)), Problem::NoSuchPeer { .. }));
    assert!(matches!(problem(enrolled.remove(&b.name)), Problem::NoSuchPeer { .. }));
    assert!(enrolled.still(&a));
}

#[test]
fn a_name_with_another_key_is_not_the_same_peer_still() {
    let (_home, configuration) = configuration();
    let enrolled = Enrolled::new(configuration);
    let before = peer("a", b"before");
    enrolled.add(&before).unwrap();
    enrolled.remove(&before.name).unwrap();
    enrolled.add(&peer("a", b"after")).unwrap();
    assert!(!enrolled.still(&before));
}

#[test]
fn names_and_keys_are_enrolled_once() {
    let (_home, configuration) = configuration();
    let enrolled = Enrolled::new(configuration.clone());
    enrolled.add(&peer("a", b"a")).unwrap();
    assert!(matches!(problem(enrolled.add(&peer("a", b"other"))), Problem::NameTaken { .. }));
    assert!(matches!(problem(enrolled.add(&peer("b", b"a"))), Problem::FingerprintTaken { .. }));
    let own = HostKey::open_or_make(&configuration).unwrap().0.fingerprint();
    let own = Peer { fingerprint: own, ..peer("c", b"") };
    assert!(matches!(problem(enrolled.add(&own)), Problem::Own { .. }));
    assert_eq!(enrolled.all().unwrap().peers, [peer("a", b"a")]);
}

#[test]
fn a_file_that_is_wrong_lets_nobody_in_and_is_told() {
    let (home, configuration) = configuration();
    let enrolled = Enrolled::new(configuration);
    let (a, b) = (peer("a", b"a"), peer("b", b"b"));
    enrolled.add(&a).unwrap();
    enrolled.add(&b).unwrap();
    let file = home.path().join("crr/peers/b.toml");
    let good = fs::read_to_string(&file).unwrap();
    for wrong in [
        "",
        "fingerprint = 1",
        "fingerprint = \"SHA256:x\"",
        &format!("{good}admin = true\n"),
        "\u{0}",
        "address = \"b:1\"",
    ] {
        fs::write(&file, wrong).unwrap();
        let Listing { peers, unread } = enrolled.all().unwrap();
        assert_eq!((peers.as_slice(), unread.len()), ([a.clone()].as_slice(), 1), "{wrong}");
        assert!(!enrolled.still(&b), "{wrong}");
        assert_eq!(enrolled.with(&b.fingerprint).unwrap(), None);
        // Whose key it holds nobody knows.
        assert!(matches!(problem(enrolled.add(&peer("c", b"c"))), Problem::Damaged { .. }));
    }
    fs::write(&file, &good).unwrap();
    mode(&file, 0o666);
    assert!(!enrolled.still(&b));
    mode(&file, 0o600);
    assert!(enrolled.still(&b));
    // Two names for one key, by hand.
    fs::copy(&file, home.path().join("crr/peers/c.toml")).unwrap();
    assert!(matches!(problem(enrolled.with(&b.fingerprint)), Problem::FingerprintTaken { .. }));
    enrolled.remove(&"c".parse().unwrap()).unwrap();
    mode(&home.path().join("crr/peers"), 0o777);
    assert!(!enrolled.still(&a));
}
