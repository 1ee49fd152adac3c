//! TCP sockets in repair mode: what a CRIU that dies in the middle of a dump leaves of a tree's connections.
//!
//! CRIU puts the sockets of established connections into repair mode (`TCP_REPAIR`) for as long as it holds the tree. If it is
//! killed there they stay so: the program gets EPERM from the next `recv`, and nothing is sent.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::{fs, io};

use nix::sys::socket::sockopt::{ReuseAddr, TcpRepair};
use nix::sys::socket::{getsockopt, setsockopt};
use serde::{Deserialize, Serialize};

use super::aftermath::Expected;
use super::foreign;
use super::socket::{Socket, TcpState, Transport};

/// `getsockopt`: the number by which the kernel knows a socket, of 8 bytes.
const SO_COOKIE: i32 = 57;

/// The TCP connections of a tree before its dump. They can be written down: the kernel knows its sockets by the same numbers
/// until it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Connections(HashMap<u64, Before>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    /// Repair mode changes it, and its end does not bring it back.
    reuse: bool,
}

/// What [`Connections::end_repair`] has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// The sockets that are out of repair mode now.
    pub ended: usize,
    /// Why others are not.
    pub failures: Vec<String>,
}

/// Puts every TCP socket of the tasks but the listening ones into repair mode, and gives their number: a task that is killed
/// then says goodbye to no peer. Only for a tree that stands still and will never run again.
///
/// # Errors
/// What the kernel says of those for which it refuses; the others are in it all the same.
pub fn silence(tasks: &[Expected]) -> Result<usize, Vec<String>> {
    let (mut silent, mut failures) = (0, Vec::new());
    each(tasks, |_, socket, twin| {
        if matches!(socket.transport, Transport::Tcp { state: TcpState::Listening, .. }) {
            return;
        }
        match setsockopt(twin, TcpRepair, &1) {
            Ok(()) => silent += 1,
            Err(errno) => {
                let (pid, fd) = (socket.pid, socket.fd);
                failures.push(format!("descriptor {fd} of PID {pid} cannot be put into repair mode: {errno}"));
            }
        }
    });
    if failures.is_empty() { Ok(silent) } else { Err(failures) }
}

impl Connections {
    /// Looks at the sockets of all tasks.
    pub fn of(tasks: &[Expected]) -> Self {
        let mut connections = HashMap::new();
        each(tasks, |cookie, socket, twin| {
            let Transport::Tcp { state, .. } = socket.transport else { return };
            if state != TcpState::Listening {
                let reuse = getsockopt(twin, ReuseAddr).unwrap_or(false);
                connections.insert(cookie, Before { local: socket.local, remote: socket.peer, reuse });
            }
        });
        Self(connections)
    }

    /// The addresses of each: its own, and its peer's.
    pub fn addresses(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        self.0.values().filter_map(|before| Some((before.local?, before.remote?)))
    }

    /// Takes every socket of the tasks that is in repair mode out of it. Only for a tree that is to run on.
    pub fn end_repair(&self, tasks: &[Expected]) -> Repaired {
        let mut repaired = Repaired::default();
        each(tasks, |cookie, socket, twin| {
            if !matches!(getsockopt(twin, TcpRepair), Ok(1)) {
                return;
            }
            let reuse = self.0.get(&cookie).is_some_and(|before| before.reuse);
            let ended = setsockopt(twin, TcpRepair, &0).and_then(|()| setsockopt(twin, ReuseAddr, &reuse));
            match ended {
                Ok(()) => repaired.ended += 1,
                Err(errno) => {
                    let (pid, fd) = (socket.pid, socket.fd);
                    repaired.failures.push(format!("descriptor {fd} of PID {pid} stays in repair mode: {errno}"));
                }
            }
        });
        repaired
    }
}

/// Gives each TCP socket of the tasks to `look`, once.
fn each(tasks: &[Expected], mut look: impl FnMut(u64, &Socket, &OwnedFd)) {
    let mut seen = HashSet::new();
    for task in tasks {
        // A task that has gone, or another one under its number, has none.
        let Ok(process) = foreign::open_process(task.pid) else { continue };
        if Expected::now(task.pid) != Some(*task) {
            continue;
        }
        for fd in sockets_of(task.pid).unwrap_or_default() {
            let Ok(twin) = foreign::duplicate(&process, fd) else { continue };
            let Ok((cookie, _)) = foreign::socket_option::<8>(&twin, libc::SOL_SOCKET, SO_COOKIE) else { continue };
            let cookie = u64::from_ne_bytes(cookie);
            let Some(socket) = Socket::look(&twin, 0, task.pid, fd) else { continue };
            if matches!(socket.transport, Transport::Tcp { .. }) && seen.insert(cookie) {
                look(cookie, &socket, &twin);
            }
        }
    }
}

/// The descriptors of a process that are sockets.
fn sockets_of(pid: i32) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let is_socket = fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().starts_with("socket:"));
        let number = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        found.extend(number.filter(|_| is_socket));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_is_found_with_its_addresses_and_a_listener_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let client = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
        let own = Expected::now(std::process::id() as i32).expect("this process");
        let connections = Connections::of(&[own]);
        let (local, remote) = (client.local_addr().expect("an address"), client.peer_addr().expect("an address"));
        assert!(connections.addresses().any(|found| found == (local, remote)));
        assert!(
            !connections.0.values().any(|before| before.local == listener.local_addr().ok() && before.remote.is_none())
        );
        assert_eq!(connections.end_repair(&[own]), Repaired::default());
        let json = serde_json::to_string(&connections).expect("JSON");
        assert_eq!(serde_json::from_str::<Connections>(&json).expect("read back"), connections);
    }

    #[test]
    fn another_task_under_the_same_number_is_left_alone() {
        let _listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let own = Expected::now(std::process::id() as i32).expect("this process");
        let other = Expected { start_time_ticks: own.start_time_ticks + 1, ..own };
        let mut found = 0;
        each(&[other], |_, _, _| found += 1);
        assert_eq!(found, 0);
    }
}
