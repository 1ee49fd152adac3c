//! The process that is dumped and restored.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// How much memory it fills.
const MEMORY: usize = 1 << 20;

/// What it holds, and what must be as it was after the restore.
struct Specimen {
    memory: Vec<u8>,
    udp: UdpSocket,
    unix: (UnixStream, UnixStream),
    /// How often it was asked.
    asked: u32,
}

pub(super) fn run(address: &str) -> ExitCode {
    match serve(address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Answers each byte that arrives over the TCP connection with a line: `ok` and how often it was asked, or what is wrong.
fn serve(address: &str) -> io::Result<()> {
    nix::unistd::setsid()?;
    let mut tcp = TcpStream::connect(address)?;
    tcp.set_nodelay(true)?;
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    udp.connect(udp.local_addr()?)?;
    let memory = (0..MEMORY).map(pattern).collect();
    let mut specimen = Specimen { memory, udp, unix: UnixStream::pair()?, asked: 0 };
    let mut question = [0];
    while tcp.read(&mut question)? == 1 {
        let answer = match specimen.check() {
            Ok(()) => format!("ok {}\n", specimen.asked),
            Err(error) => format!("{error}\n"),
        };
        tcp.write_all(answer.as_bytes())?;
    }
    Ok(())
}

impl Specimen {
    fn check(&mut self) -> io::Result<()> {
        self.asked += 1;
        if let Some(at) = (0..MEMORY).find(|&at| self.memory[at] != pattern(at)) {
            return Err(io::Error::other(format!("byte {at} of its memory differs")));
        }
        let word = self.asked.to_ne_bytes();
        let mut back = [0; 4];
        self.udp.send(&word)?;
        if self.udp.recv(&mut back)? != word.len() || back != word {
            return Err(io::Error::other("its UDP socket garbles what it sends"));
        }
        self.unix.0.write_all(&word)?;
        self.unix.1.read_exact(&mut back)?;
        match back == word {
            true => Ok(()),
            false => Err(io::Error::other("its unix socket garbles what it sends")),
        }
    }
}

/// No two pages are the same.
fn pattern(at: usize) -> u8 {
    ((at % 251) ^ (at >> 12)) as u8
}
