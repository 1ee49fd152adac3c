//! Which devices a cgroup of version 2 may use: a small program for the kernel, as version 2 has no file for it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::limits::DeviceRule;

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of cgroups above are asked as well.
const ALLOW_MULTI: u32 = 2;
const ACCESS: [(char, i32); 3] = [('m', 1), ('r', 2), ('w', 4)];
const ALL: i32 = 7;
/// A kernel takes 4096 instructions of such a program; a rule takes eight at most.
const RULES_LIMIT: usize = 500;

/// One instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    value: i32,
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xbc;
const MOVE_VALUE: u8 = 0xb4;
const JUMP_UNLESS_VALUE: u8 = 0x55;
const JUMP_UNLESS: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// Lets the cgroup at `directory` use what the rules allow. Without rules nothing is changed.
///
/// # Errors
/// What the kernel says, `EPERM` or `EINVAL` where it was built without CONFIG_CGROUP_BPF.
pub(super) fn attach(directory: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    let directory = File::open(directory)?;
    let program = load(&program(rules)?)?;
    let mut attr = [0u32; 8];
    attr[0] = directory.as_raw_fd().unsigned_abs();
    attr[1] = program.as_raw_fd().unsigned_abs();
    attr[2] = ATTACH_CGROUP_DEVICE;
    attr[3] = ALLOW_MULTI;
    // SAFETY: `attr` is the part of union bpf_attr that this command reads, its rest zero, and lives during the call; both
    // descriptors are open.
    let done = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, attr.as_ptr(), size_of_val(&attr)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        rest: [u64; 5],
    }
    let license = c"Apache-2.0";
    let load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        rest: [0; 5],
    };
    // SAFETY: the beginning of union bpf_attr as this command reads it, its rest zero; the instructions and the license that it
    // points to live during the call, and the kernel checks every instruction.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &load, size_of::<Load>()) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The last rule that is about a device decides, so it is asked first.
fn program(rules: &[DeviceRule]) -> io::Result<Vec<Instruction>> {
    if rules.len() > RULES_LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("more than {RULES_LIMIT} rules about devices"),
        ));
    }
    let instruction =
        |code, to: u8, from: u8, offset, value| Instruction { code, registers: to | (from << 4), offset, value };
    // Register 1 points to access and kind in one word, major, minor.
    let mut program = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE, 3, 2, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    let mut otherwise = false;
    for rule in rules.iter().rev() {
        let mut tests: Vec<Vec<Instruction>> = Vec::new();
        let access = ACCESS.iter().filter(|(letter, _)| rule.access.contains(*letter)).map(|(_, bit)| bit).sum::<i32>();
        let any = rule.kind == 'a' && rule.major.is_none() && rule.minor.is_none() && access == ALL;
        if any {
            otherwise = rule.allow;
            break;
        }
        if rule.kind != 'a' {
            tests.push(vec![instruction(JUMP_UNLESS_VALUE, 2, 0, 0, if rule.kind == 'b' { 1 } else { 2 })]);
        }
        if access != ALL {
            tests.push(vec![
                instruction(MOVE, 1, 3, 0, 0),
                instruction(AND, 1, 0, 0, access),
                instruction(JUMP_UNLESS, 1, 3, 0, 0),
            ]);
        }
        for (register, number) in [(4, rule.major), (5, rule.minor)] {
            if let Some(number) = number.and_then(|number| i32::try_from(number).ok()) {
                tests.push(vec![instruction(JUMP_UNLESS_VALUE, register, 0, 0, number)]);
            }
        }
        let verdict = [instruction(MOVE_VALUE, 0, 0, 0, i32::from(rule.allow)), instruction(EXIT, 0, 0, 0, 0)];
        let mut block: Vec<Instruction> = tests.into_iter().flatten().chain(verdict).collect();
        let length = block.len();
        for (at, instruction) in block.iter_mut().enumerate() {
            if matches!(instruction.code, JUMP_UNLESS_VALUE | JUMP_UNLESS) {
                instruction.offset = i16::try_from(length - at - 1).map_err(io::Error::other)?;
            }
        }
        program.extend(block);
    }
    program.push(instruction(MOVE_VALUE, 0, 0, 0, i32::from(otherwise)));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does what the kernel would do.
    fn run(program: &[Instruction], kind: char, major: u32, minor: u32, access: i32) -> bool {
        let context = [(access << 16) | if kind == 'b' { 1 } else { 2 }, major as i32, minor as i32];
        let mut registers = [0i32; 6];
        let mut at = 0;
        loop {
            let Instruction { code, registers: names, offset, value } = program[at];
            let (to, from) = (usize::from(names & 15), usize::from(names >> 4));
            at += 1;
            match code {
                LOAD_WORD => registers[to] = context[usize::try_from(offset / 4).unwrap()],
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                MOVE => registers[to] = registers[from],
                MOVE_VALUE => registers[to] = value,
                JUMP_UNLESS_VALUE if registers[to] != value => at += usize::try_from(offset).unwrap(),
                JUMP_UNLESS if registers[to] != registers[from] => at += usize::try_from(offset).unwrap(),
                EXIT => return registers[0] == 1,
                _ => {}
            }
        }
    }

    fn rule(text: &str, allow: bool) -> DeviceRule {
        let mut words = text.split(' ');
        let kind = words.next().unwrap().chars().next().unwrap();
        let (major, minor) = words.next().unwrap().split_once(':').unwrap();
        DeviceRule {
            kind,
            major: major.parse().ok(),
            minor: minor.parse().ok(),
            access: words.next().unwrap().into(),
            allow,
        }
    }

    #[test]
    fn the_last_rule_about_a_device_decides() {
        let rules = [rule("a *:* rwm", false), rule("c *:* m", true), rule("c 1:3 rwm", true), rule("c 1:3 w", false)];
        let program = program(&rules).unwrap();
        assert!(run(&program, 'c', 1, 3, 2), "read");
        assert!(!run(&program, 'c', 1, 3, 4), "write");
        assert!(run(&program, 'c', 9, 9, 1), "mknod");
        assert!(!run(&program, 'c', 9, 9, 3), "mknod and read");
        assert!(!run(&program, 'b', 1, 3, 2), "another kind");
    }

    #[test]
    fn what_no_rule_is_about_is_forbidden_unless_all_is_allowed() {
        assert!(!run(&program(&[rule("c 1:3 rwm", true)]).unwrap(), 'c', 1, 5, 2));
        assert!(run(&program(&[rule("a *:* rwm", true)]).unwrap(), 'b', 8, 0, 7));
    }

    #[test]
    fn too_many_rules_are_refused() {
        assert!(program(&vec![rule("c 1:3 rwm", true); RULES_LIMIT + 1]).is_err());
    }
}
