//! /proc/PID/status: credentials, tracer, pending signals, memory in use.

use serde::Serialize;

use super::lines::{decimal, hexadecimal, words};

/// Whose rights a task or thread has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Credentials {
    /// Real, effective, saved and filesystem UID.
    pub uids: [u32; 4],
    /// Real, effective, saved and filesystem GID.
    pub gids: [u32; 4],
    /// Effective capabilities, a bit for each.
    pub effective_capabilities: u64,
    /// The bounding set.
    pub bounding_capabilities: u64,
    /// Whether no_new_privs is set.
    pub no_new_privileges: bool,
    /// 0 none, 1 strict, 2 filters.
    pub seccomp: u8,
}

/// What /proc/PID/status says and /proc/PID/stat does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The PID of the tracer; 0 without one.
    pub tracer: i32,
    /// The PID in each PID namespace, from crr's to the innermost.
    pub namespace_pids: Vec<i32>,
    /// The session ID in each PID namespace; 0 where its leader is outside.
    pub namespace_sids: Vec<i32>,
    /// Its credentials.
    pub credentials: Credentials,
    /// Signals pending for the thread.
    pub pending: u64,
    /// Signals pending for the process.
    pub shared_pending: u64,
    /// Anonymous memory in RAM.
    pub anonymous_bytes: u64,
    /// Shared memory in RAM that this task maps.
    pub shmem_bytes: u64,
    /// Anonymous memory in swap.
    pub swap_bytes: u64,
    /// The CPUs it may run on, as the kernel lists them: `0-3,8`.
    pub cpus: String,
    /// Whether it has an address space: false of kernel threads, zombies and a task on its way out.
    pub has_memory: bool,
}

impl Status {
    /// Takes one line of the file; lines that are not needed or not understood are passed over.
    pub fn take(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let kilobytes = || words(value).next().and_then(decimal::<u64>).unwrap_or(0).saturating_mul(1024);
        match name {
            b"TracerPid" => self.tracer = decimal(value).unwrap_or(0),
            b"Uid" => four(value, &mut self.credentials.uids),
            b"Gid" => four(value, &mut self.credentials.gids),
            b"NSpid" => self.namespace_pids = words(value).filter_map(decimal).collect(),
            b"NSsid" => self.namespace_sids = words(value).filter_map(decimal).collect(),
            b"RssAnon" => {
                self.anonymous_bytes = kilobytes();
                self.has_memory = true;
            }
            b"RssShmem" => self.shmem_bytes = kilobytes(),
            b"VmSwap" => self.swap_bytes = kilobytes(),
            b"SigPnd" => self.pending = hexadecimal(value).unwrap_or(0),
            b"ShdPnd" => self.shared_pending = hexadecimal(value).unwrap_or(0),
            b"CapEff" => self.credentials.effective_capabilities = hexadecimal(value).unwrap_or(0),
            b"CapBnd" => self.credentials.bounding_capabilities = hexadecimal(value).unwrap_or(0),
            b"NoNewPrivs" => self.credentials.no_new_privileges = decimal::<u8>(value) == Some(1),
            b"Seccomp" => self.credentials.seccomp = decimal(value).unwrap_or(0),
            b"Cpus_allowed_list" => self.cpus = String::from_utf8_lossy(value.trim_ascii()).into_owned(),
            _ => {}
        }
    }
}

fn four(value: &[u8], into: &mut [u32; 4]) {
    for (slot, number) in into.iter_mut().zip(words(value).filter_map(decimal)) {
        *slot = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &[u8]) -> Status {
        let mut status = Status::default();
        text.split(|byte| *byte == b'\n').for_each(|line| status.take(line));
        status
    }

    #[test]
    fn what_a_dump_depends_on_is_read() {
        let status = parse(
            b"Name:\tx\nState:\tS (sleeping)\nTracerPid:\t77\nUid:\t1000\t0\t1000\t1000\nGid:\t5\t6\t7\t8\nNSpid:\t812\t1\nNSsid:\t812\t1\n\
              VmSwap:\t      4 kB\nRssAnon:\t     128 kB\nRssShmem:\t      8 kB\nSigPnd:\t0000000000000010\nShdPnd:\t0000000000000000\n\
              CapEff:\t000001fffeffffff\nCapBnd:\t000001fffeffffff\nNoNewPrivs:\t1\nSeccomp:\t2\nCpus_allowed_list:\t0-1\n",
        );
        assert_eq!(status.tracer, 77);
        assert_eq!(status.namespace_pids, [812, 1]);
        assert_eq!(status.credentials.uids, [1000, 0, 1000, 1000]);
        assert_eq!(status.credentials.gids, [5, 6, 7, 8]);
        assert_eq!(status.credentials.effective_capabilities, 0x1ff_feff_ffff);
        assert!(status.credentials.no_new_privileges);
        assert_eq!(status.credentials.seccomp, 2);
        assert_eq!((status.anonymous_bytes, status.shmem_bytes, status.swap_bytes), (131_072, 8192, 4096));
        assert_eq!((status.pending, status.shared_pending), (0x10, 0));
        assert_eq!(status.cpus, "0-1");
        assert!(status.has_memory);
    }

    #[test]
    fn a_zombie_has_no_memory() {
        assert!(!parse(b"Name:\tx\nState:\tZ (zombie)\nTracerPid:\t0\n").has_memory);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(Uid|Gid|NSpid|RssAnon|SigPnd|Seccomp|x)?:?[\\PC\t ]{0,40}") {
            let _ = parse(text.as_bytes());
        }
    }
}
