//! The fake CRIU: plays a script, one step a line, and writes down what it saw.
//!
//! Steps: `recv` waits for a packet and writes it down as `got HEX`, or `eof`; `ack` is the same for an answer to an event and
//! writes `ack true` or `ack false`; `send HEX` sends a packet; `stderr TEXT` writes there; `log NAME TEXT` appends to a file in
//! the image directory named in the last request; `self` writes down the own state; `exit N`, `kill` and `hang` end it;
//! `grow NAME MS` makes a file in the image directory grow for so long before going on.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv, send};

/// Plays the script. Never returns.
pub(crate) fn play(script: &str, seen: &str, socket: RawFd) -> ! {
    let script = std::fs::read_to_string(script).expect("the script");
    let mut seen = OpenOptions::new().append(true).create(true).open(seen).expect("the record");
    let mut images: RawFd = -1;
    let client = std::os::unix::process::parent_id();
    for line in script.lines() {
        let (step, rest) = line.split_once(' ').unwrap_or((line, ""));
        match step {
            "recv" | "ack" => {
                let packet = receive(socket);
                if packet.is_empty() {
                    writeln!(seen, "eof").expect("record");
                } else if step == "recv" {
                    if let Some(fd) = images_dir_fd(&packet) {
                        images = fd;
                    }
                    writeln!(seen, "got {}", hex(&packet)).expect("record");
                } else {
                    writeln!(seen, "ack {}", acknowledged(&packet)).expect("record");
                }
            }
            "send" => {
                // The client may be gone: that is part of some scripts.
                let _ = send(socket, &unhex(rest), MsgFlags::MSG_NOSIGNAL);
            }
            "stderr" => eprintln!("{rest}"),
            "log" => {
                let (name, text) = rest.split_once(' ').expect("a name and a text");
                let path = format!("/proc/{client}/fd/{images}/{name}");
                let mut log = OpenOptions::new().append(true).create(true).open(path).expect("the log");
                writeln!(log, "{text}").expect("the log");
            }
            "grow" => {
                let (name, ms) = rest.split_once(' ').expect("a name and a time");
                let mut file = File::create(format!("/proc/{client}/fd/{images}/{name}")).expect("the file");
                let end = Instant::now() + Duration::from_millis(ms.parse().expect("a time"));
                while Instant::now() < end {
                    file.write_all(&[0; 512]).expect("the file");
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
            "self" => write!(seen, "{}", own_state(socket)).expect("record"),
            "exit" => std::process::exit(rest.parse().expect("a status")),
            "kill" => nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).expect("kill"),
            "hang" => loop {
                std::thread::park();
            },
            other => panic!("no step `{other}`"),
        }
    }
    std::process::exit(0)
}

fn receive(socket: RawFd) -> Vec<u8> {
    let mut packet = vec![0; 1 << 20];
    let size = recv(socket, &mut packet, MsgFlags::empty()).unwrap_or(0);
    packet.truncate(size);
    packet
}

/// What a child of crr must look like: descriptors, signals, group, umask, environment, working directory.
fn own_state(socket: RawFd) -> String {
    let mut text = String::new();
    let mut fds: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .expect("own descriptors")
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let target = std::fs::read_link(entry.path()).ok()?.display().to_string();
            // The directory that is being read, and the record.
            let own = target.starts_with("/proc/") || target.ends_with("/seen");
            let kind = if name == socket.to_string() { "socket".into() } else { target };
            (!own).then(|| format!("{}={kind}", if kind == "socket" { "N".into() } else { name }))
        })
        .collect();
    fds.sort();
    text += &format!("fds {}\n", fds.join(" "));
    let status = std::fs::read_to_string("/proc/self/status").expect("own status");
    for line in status.lines().filter(|line| ["SigBlk:", "SigIgn:", "Umask:"].iter().any(|name| line.starts_with(name)))
    {
        text += &format!("{}\n", line.replace('\t', " "));
    }
    let own = std::process::id().to_string();
    let group = nix::unistd::getpgrp().to_string();
    text += &format!("group {}\n", if own == group { "own" } else { "other" });
    let mut names: Vec<String> =
        std::env::vars().map(|(name, _)| name).filter(|name| !name.starts_with("CRR_FAKE")).collect();
    names.sort();
    text + &format!("environment {}\n", names.join(" "))
}

/// Field 2 (opts) of a request, field 1 (images_dir_fd) of that.
fn images_dir_fd(request: &[u8]) -> Option<RawFd> {
    let opts = crate::wire::fields(request).into_iter().find(|(number, _)| *number == 2)?.1;
    let crate::wire::Value::Bytes(opts) = opts else { return None };
    match crate::wire::fields(&opts).into_iter().find(|(number, _)| *number == 1)?.1 {
        crate::wire::Value::Number(fd) => RawFd::try_from(fd).ok(),
        crate::wire::Value::Bytes(_) => None,
    }
}

/// Field 3 (notify_success) of an answer.
fn acknowledged(request: &[u8]) -> bool {
    crate::wire::fields(request).contains(&(3, crate::wire::Value::Number(1)))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex")).collect()
}
