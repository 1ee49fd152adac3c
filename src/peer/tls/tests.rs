use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Instant;

use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::verify::{Allowed, Verifier};
use super::*;
use crate::error::{Error, Result};
use crate::peer::{Configuration, Enrolled, HostKey, Peer, Problem};

/// What a client of TLS 1.2 says first (OpenSSL 3.0, maximum version TLS 1.2).
const HELLO_OF_1_2: &str = "160301009d0100009903033b8397d83c5d54d6eb36907dd67f29ac8cf2ac3844bf695aa0dd22a31eec942b00001ec02cc030c02bc02fcca9cca8c024c028c023c027009f009e006b006700ff01000052000b000403000102000a000c000a001d0017001e001900180023000000160000001700\
    00000d002a0028040305030603080708080809080a080b080408050806040105010601030303010302040205020602";

/// A host with a key.
struct Host {
    _home: tempfile::TempDir,
    key: HostKey,
    enrolled: Enrolled,
}

impl Host {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let configuration = Configuration::at(home.path().join("crr"));
        let (key, _) = HostKey::open_or_make(&configuration).unwrap();
        Self { _home: home, key, enrolled: Enrolled::new(configuration) }
    }

    fn called(&self, name: &str) -> Peer {
        Peer { name: name.parse().unwrap(), fingerprint: self.key.fingerprint(), address: None }
    }

    fn caller(&self) -> Caller<'_> {
        Caller { key: &self.key, enrolled: &self.enrolled }
    }

    fn dials<'a>(&'a self, peer: &'a Peer) -> Dialled<'a> {
        Dialled { key: &self.key, peer, migration: None }
    }
}

/// Two hosts that know each other.
fn friends() -> (Host, Host) {
    let (a, b) = (Host::new(), Host::new());
    a.enrolled.add(&b.called("b")).unwrap();
    b.enrolled.add(&a.called("a")).unwrap();
    (a, b)
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (dialled, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

/// `from` calls `peer`; `to` answers.
async fn meet(from: &Host, peer: &Peer, to: &Host) -> (Result<Session<TcpStream>>, Result<Session<TcpStream>>) {
    let (dialled, accepted) = sockets().await;
    tokio::join!(connect(dialled, from.dials(peer), HANDSHAKE_LIMIT), accept(accepted, to.caller(), HANDSHAKE_LIMIT))
}

fn problem<T>(result: Result<T>) -> Problem {
    match result.err() {
        Some(Error::Peer(problem)) => *problem,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn peers_that_know_each_other_talk() {
    let (a, b) = friends();
    let (at_a, at_b) = meet(&a, &b.called("b"), &b).await;
    let (mut at_a, mut at_b) = (at_a.unwrap(), at_b.unwrap());
    assert_eq!((at_a.peer().name.as_str(), at_b.peer().name.as_str()), ("b", "a"));
    at_a.write_all(b"question").await.unwrap();
    at_a.flush().await.unwrap();
    let mut read = [0; 8];
    at_b.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"question");
    assert!(at_a.is_bound(&at_b.binding()));
}

#[tokio::test]
async fn bulk_data_is_bound_to_one_session_and_flows_in_threads() {
    let (a, b) = friends();
    let (first, _) = meet(&a, &b.called("b"), &b).await;
    let (at_a, at_b) = meet(&a, &b.called("b"), &b).await;
    let (at_a, at_b) = (at_a.unwrap(), at_b.unwrap());
    assert!(!first.unwrap().is_bound(&at_a.binding()), "another session of the same two");
    let (mut at_a, mut at_b) = (at_a.into_blocking().unwrap(), at_b.into_blocking().unwrap());
    let data: Vec<u8> = (0..5_000_000_u32).map(|place| (place % 251) as u8).collect();
    let copy = data.clone();
    let writer = std::thread::spawn(move || {
        at_a.write_all(&copy).unwrap();
        at_a.finish().unwrap();
        let mut answer = [0; 2];
        at_a.read_exact(&mut answer).unwrap();
        answer
    });
    let mut read = Vec::new();
    at_b.read_to_end(&mut read).unwrap();
    assert!(read == data);
    at_b.write_all(b"ok").unwrap();
    at_b.flush().unwrap();
    assert_eq!(&writer.join().unwrap(), b"ok");
}

#[tokio::test]
async fn an_end_that_was_not_announced_is_an_error() {
    let (a, b) = friends();
    let (at_a, at_b) = meet(&a, &b.called("b"), &b).await;
    let (mut at_a, mut at_b) = (at_a.unwrap().into_blocking().unwrap(), at_b.unwrap().into_blocking().unwrap());
    at_a.write_all(b"cut").unwrap();
    at_a.flush().unwrap();
    drop(at_a);
    let error = at_b.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_key_that_is_not_enrolled_is_not_let_in_and_both_are_told_the_command() {
    let (a, b) = (Host::new(), Host::new());
    let (at_a, at_b) = meet(&a, &b.called("b"), &b).await;
    let (at_a, at_b) = (problem(at_a), problem(at_b));
    let own = a.key.fingerprint().to_string();
    assert!(matches!(at_b, Problem::Unknown { .. }) && at_b.to_string().contains(&own), "{at_b}");
    assert!(at_b.hint().unwrap().contains(&format!("crr peer add NAME {own}")), "{at_b:?}");
    assert!(matches!(at_a, Problem::NotLetIn { .. }), "{at_a}");
    assert!(at_a.hint().unwrap().contains(&format!("crr peer add NAME {own}")), "{at_a:?}");
}

#[tokio::test]
async fn another_key_than_the_expected_is_refused_before_anything_is_told() {
    let (a, b) = friends();
    let impostor = Host::new();
    impostor.enrolled.add(&a.called("a")).unwrap();
    let (at_a, at_impostor) = meet(&a, &b.called("b"), &impostor).await;
    let at_a = problem(at_a);
    let Problem::Wrong { shown, expected, .. } = &at_a else { panic!("{at_a:?}") };
    assert_eq!((*shown, *expected), (impostor.key.fingerprint(), b.key.fingerprint()));
    let text = at_a.to_string();
    assert!(text.contains(&shown.to_string()) && text.contains(&expected.to_string()), "{text}");
    assert!(at_a.hint().unwrap().contains(&format!("crr peer add b {shown}")), "{at_a:?}");
    assert!(at_impostor.is_err());
}

#[tokio::test]
async fn a_peer_that_is_removed_is_not_let_in_again_and_its_connection_starts_nothing() {
    let (a, b) = friends();
    let (_at_a, at_b) = meet(&a, &b.called("b"), &b).await;
    let at_b = at_b.unwrap();
    assert!(b.enrolled.still(at_b.peer()));
    b.enrolled.remove(&"a".parse().unwrap()).unwrap();
    assert!(!b.enrolled.still(at_b.peer()));
    let (at_a, at_b) = meet(&a, &b.called("b"), &b).await;
    assert!(matches!(problem(at_a), Problem::NotLetIn { .. }));
    assert!(matches!(problem(at_b), Problem::Unknown { .. }));
}

/// Another's certificate with one's own key: what somebody has who has seen a handshake.
#[derive(Debug)]
struct Copied(Arc<CertifiedKey>);

impl Copied {
    fn of(other: &Host, own: &Host) -> Arc<Self> {
        let key = rustls::crypto::ring::sign::any_supported_type(&own.key.private()).unwrap();
        Arc::new(Self(Arc::new(CertifiedKey::new(vec![other.key.certificate()], key))))
    }
}

impl rustls::client::ResolvesClientCert for Copied {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Copied {
    fn resolve(&self, _hello: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[tokio::test]
async fn a_copied_certificate_without_its_key_lets_nobody_in() {
    let ((a, b), thief) = (friends(), Host::new());
    let verifier = Arc::new(Verifier::new(Allowed::Only(b.called("b")), provider()));
    let mut config = super::handshake::client(&thief.key, provider(), verifier).unwrap();
    config.client_auth_cert_resolver = Copied::of(&a, &thief);
    let (dialled, accepted) = sockets().await;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let calling = async {
        let mut stream = connector.connect("crr".try_into().unwrap(), dialled).await?;
        stream.read_u8().await
    };
    let (at_thief, at_b) = tokio::join!(calling, accept(accepted, b.caller(), HANDSHAKE_LIMIT));
    assert!(at_thief.is_err());
    assert!(matches!(problem(at_b), Problem::Handshake { .. }));
}

#[tokio::test]
async fn a_copied_certificate_without_its_key_answers_for_nobody() {
    let ((a, b), thief) = (friends(), Host::new());
    let verifier = Arc::new(Verifier::new(Allowed::Enrolled(b.enrolled.clone()), provider()));
    let mut config = super::handshake::server(&thief.key, provider(), verifier).unwrap();
    config.cert_resolver = Copied::of(&b, &thief);
    let (dialled, accepted) = sockets().await;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let peer = b.called("b");
    let (at_a, at_thief) = tokio::join!(connect(dialled, a.dials(&peer), HANDSHAKE_LIMIT), acceptor.accept(accepted));
    assert!(matches!(problem(at_a), Problem::Handshake { .. }));
    assert!(at_thief.is_err());
}

proptest::proptest! {
    #[test]
    fn no_first_bytes_make_the_router_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let framed = [&[0x16, 3, 1, 0, bytes.len().min(255) as u8, 1, 0, 0][..], &bytes].concat();
        let _ = (wanted(&bytes), wanted(&framed));
    }
}

#[tokio::test]
async fn another_protocol_and_none_are_refused() {
    let (a, b) = friends();
    for protocols in [vec![], vec![b"crr/2".to_vec()], vec![b"h2".to_vec()]] {
        let verifier = Arc::new(Verifier::new(Allowed::Only(b.called("b")), provider()));
        let mut config = super::handshake::client(&a.key, provider(), verifier).unwrap();
        config.alpn_protocols = protocols;
        let (dialled, accepted) = sockets().await;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let calling = connector.connect("crr".try_into().unwrap(), dialled);
        let (_dialled, at_b) = tokio::join!(calling, accept(accepted, b.caller(), HANDSHAKE_LIMIT));
        assert!(matches!(problem(at_b), Problem::Handshake { .. }));
    }
}

/// `bytes` and nothing more to a host that answers; what it says back.
async fn shout(bytes: &[u8]) -> (Problem, Vec<u8>) {
    let host = Host::new();
    let (mut dialled, accepted) = sockets().await;
    dialled.write_all(bytes).await.unwrap();
    let outcome = accept(accepted, host.caller(), HANDSHAKE_LIMIT).await;
    let mut answer = Vec::new();
    // Unread bytes make a reset of the end.
    let _ = dialled.read_to_end(&mut answer).await;
    (problem(outcome), answer)
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let hello = data_encoding::HEXLOWER.decode(HELLO_OF_1_2.as_bytes()).unwrap();
    let (problem, answer) = shout(&hello).await;
    assert!(matches!(problem, Problem::Handshake { .. }), "{problem}");
    // An alert, fatal, protocol_version.
    assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 70]);
}

#[tokio::test]
async fn garbage_is_refused() {
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0xff; 5], &[0x16, 3, 1, 0xff, 0xff, 1, 0, 0]] {
        let (problem, _) = shout(garbage).await;
        assert!(matches!(problem, Problem::Handshake { .. }), "{problem}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_tls_is_refused() {
    let (a, b) = friends();
    for answer in [&[0x15, 3, 3, 0, 2, 2, 70][..], b"SSH-2.0-OpenSSH_9.2\r\n", b""] {
        let (dialled, mut accepted) = sockets().await;
        accepted.write_all(answer).await.unwrap();
        accepted.shutdown().await.unwrap();
        let outcome = connect(dialled, a.dials(&b.called("b")), HANDSHAKE_LIMIT).await;
        assert!(matches!(problem(outcome), Problem::Handshake { .. }));
    }
}

#[tokio::test]
async fn one_that_stops_in_the_middle_is_given_up_at_the_limit() {
    let host = Host::new();
    let hello = data_encoding::HEXLOWER.decode(HELLO_OF_1_2.as_bytes()).unwrap();
    let limit = std::time::Duration::from_millis(100);
    for sent in [0, 1, 5, 40] {
        let (mut dialled, accepted) = sockets().await;
        dialled.write_all(&hello[..sent]).await.unwrap();
        let begun = Instant::now();
        let outcome = accept(accepted, host.caller(), limit).await;
        assert!(matches!(problem(outcome), Problem::Late { .. }), "{sent}");
        assert!(begun.elapsed() >= limit);
        assert_eq!(dialled.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed");
    }
}

#[tokio::test]
async fn a_stream_may_be_anything() {
    let (a, b) = friends();
    let (dialled, accepted) = tokio::io::duplex(1 << 16);
    let peer = b.called("b");
    let (at_a, at_b) =
        tokio::join!(connect(dialled, a.dials(&peer), HANDSHAKE_LIMIT), accept(accepted, b.caller(), HANDSHAKE_LIMIT));
    assert_eq!(at_a.unwrap().binding(), at_b.unwrap().binding());
}

#[tokio::test]
async fn the_migration_is_known_before_anything_is_read() {
    let (a, b) = friends();
    let peer = b.called("b");
    let id = "0123456789abcdef0123456789abcdef";
    for (migration, expected) in [(None, Wanted::New), (Some(id), Wanted::Migration(id.into()))] {
        let (dialled, mut accepted) = sockets().await;
        let hello = async {
            let mut hello = vec![0; 4096];
            let count = accepted.read(&mut hello).await.unwrap();
            hello.truncate(count);
            drop(accepted);
            hello
        };
        let dialling = Dialled { migration, ..a.dials(&peer) };
        let (_, hello) = tokio::join!(connect(dialled, dialling, HANDSHAKE_LIMIT), hello);
        assert_eq!(wanted(&hello), expected);
        for cut in 0..hello.len() {
            assert_eq!(wanted(&hello[..cut]), Wanted::Unknown, "{cut}");
        }
    }
    assert_eq!(wanted(b"GET / HTTP/1.1\r\n\r\n"), Wanted::Garbage);
}
