//! One edit a case.

use protobuf::EnumOrUnknown;

use super::edits::{bytes, message};
use super::*;
use crate::proto::images::core::{Seccomp_mode, Task_kobj_ids_entry};
use crate::proto::images::pstree::Pstree_entry;

/// An edit, and the line by which it is refused, with a part of what is told.
pub(super) struct Case {
    name: &'static str,
    edit: fn(&mut Set),
    pub(super) line: Line,
    told: &'static str,
}

macro_rules! cases {
    ($($line:ident $told:literal $name:ident: $edit:expr;)*) => {
        pub(super) const CASES: &[Case] = &[$(
            Case { name: stringify!($name), edit: $edit, line: Line::$line, told: $told },
        )*];
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )*
    };
}

fn check(name: &str) {
    let case = CASES.iter().find(|case| case.name == name).expect("a case");
    let mut set = Set::new();
    assert!(set.judge().is_empty(), "accepted before the edit");
    (case.edit)(&mut set);
    let found = set.judge();
    assert!(found.iter().any(|violation| violation.to_string().contains(case.told)), "not told: {}", texts(&found));
    // What cannot be read is missed elsewhere, too, but every violation is of this line.
    assert!(found.iter().all(|violation| violation.line == case.line), "{}", texts(&found));
}

/// Bits of capabilities.
const NET_RAW: u32 = 1 << 13;
const SYS_ADMIN: u32 = 1 << 21;
/// What every file has: whom it signals.
const FOWN: [(u32, u64); 5] = [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0)];

cases! {
    // Who.
    Uids "its uid is 0" a_task_of_root: |set| set.credentials(|credentials| credentials.set_uid(0));
    Uids "its fsuid is 1001" a_task_that_opens_files_as_another: |set| set.credentials(|credentials| credentials.set_fsuid(1001));
    Uids "login is that of user 0" a_login_of_root: |set| set.task(|task| task.set_loginuid(0));
    Uids "made is of user 0" a_deleted_file_of_root: |set| set.ghost(|ghost| ghost.set_uid(0));
    Uids "memory that would be made is of user 0" a_memfd_of_root: |set| {
        set.edit::<Memfd_inode_entry>("memfd.img", |memfds| memfds[0].set_uid(0));
    };
    Uids "signals of a file are sent as user 0" signals_sent_as_root: |set| {
        let pid = set.root().trim_start_matches("core-").trim_end_matches(".img").parse().expect("a number");
        set.path("regular", |file| {
            let owner = file.fown.as_mut().expect("an owner");
            owner.set_uid(0);
            owner.set_euid(1000);
            owner.set_pid(pid);
        });
    };
    Gids "in the group 0" a_group_of_root: |set| set.credentials(|credentials| credentials.groups.push(0));
    Gids "its sgid is 42" a_saved_group: |set| set.credentials(|credentials| credentials.set_sgid(42));
    Gids "made is of group 0" a_deleted_file_of_roots_group: |set| set.ghost(|ghost| ghost.set_gid(0));
    // What it may.
    Capabilities "effective set has sys_admin" sys_admin: |set| set.credentials(|credentials| credentials.cap_eff[0] = SYS_ADMIN);
    Capabilities "inheritable set has net_raw" a_capability_for_programs: |set| {
        set.credentials(|credentials| credentials.cap_inh[0] = NET_RAW);
    };
    Capabilities "permitted set has number 63" a_capability_of_no_name: |set| {
        set.credentials(|credentials| credentials.cap_prm[1] = 1 << 31);
    };
    Capabilities "more than 64 bits" a_set_of_three_words: |set| set.credentials(|credentials| credentials.cap_amb = vec![0, 0, 1]);
    Capabilities "securebits are 0x1" securebits: |set| set.credentials(|credentials| credentials.set_secbits(1));
    Capabilities "nice value is -5" a_negative_nice_value: |set| set.thread(|thread| thread.set_sched_nice(-5));
    Capabilities "scheduling policy is 1" real_time: |set| set.thread(|thread| thread.set_sched_policy(1));
    Capabilities "OOM score is lowered by 500" an_oom_score: |set| set.task(|task| task.set_oom_score_adj(-500));
    Capabilities "no_new_privs is not set" a_filter_that_setuid_programs_inherit: |set| {
        set.thread(|thread| thread.seccomp_mode = Some(EnumOrUnknown::new(Seccomp_mode::filter)));
    };
    Capabilities "flags 0x8" a_filter_with_a_listener: |set| {
        set.add("seccomp.img", &[bytes(1, &[bytes(1, b"filter"), message(&[(3, 8)])].concat())]);
    };
    Capabilities "a raw socket" a_raw_socket: |set| set.listener(|socket| socket.set_type(3));
    Capabilities "takes net_raw" a_packet_socket: |set| {
        let mut packet = message(&[(2, 3), (3, 3), (4, 2), (5, 0)]);
        packet.extend(bytes(6, &message(&FOWN)));
        packet.extend(bytes(7, &message(&[(1, 1), (2, 1), (3, 0), (4, 0), (5, 0), (6, 0)])));
        packet.extend(message(&[(8, 1), (9, 0), (10, 0), (11, 0), (12, 0), (13, 0), (14, 0), (15, 0)]));
        set.instead(10, 6, packet);
    };
    // Files.
    Open "/etc/shadow`: it is not listed" a_file_elsewhere: |set| {
        set.moved("regular", "/etc/shadow");
        set.path("shadow", |file| file.set_flags(0));
    };
    Open "without `.` and `..`" a_path_with_a_detour: |set| {
        let path = set.file("home/../../../etc/shadow");
        set.moved("regular", path);
        set.path("shadow", |file| file.set_flags(0));
    };
    Open "symbolic link" a_symbolic_link_at_the_end: |set| {
        std::os::unix::fs::symlink("/etc/passwd", set.file("link")).expect("made");
        set.moved("/dev/null", set.file("link"));
    };
    Open "symbolic link" a_symbolic_link_on_the_way: |set| {
        std::os::unix::fs::symlink("/etc", set.file("etc")).expect("made");
        set.moved("/dev/null", set.file("etc/passwd"));
    };
    Open "set-user-ID" a_set_user_id_file: |set| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::write(set.file("program"), "").expect("written");
        fs::set_permissions(set.file("program"), fs::Permissions::from_mode(0o4755)).expect("set");
        set.moved("/dev/null", set.file("program"));
    };
    Open "it is not there" a_file_that_is_not_there: |set| set.moved("/dev/null", set.file("nothing"));
    Open "it is a socket" a_socket_as_a_file: |set| {
        drop(std::os::unix::net::UnixListener::bind(set.file("s")).expect("bound"));
        set.moved("/dev/null", set.file("s"));
    };
    Open "it is a device" a_device: |set| {
        set.policy = set.policy.replace("\"/dev/null\"", "\"/dev\"");
        set.moved("/dev/null", "/dev/tty");
    };
    Open "`/etc`: it is not listed" a_current_directory_elsewhere: |set| {
        let fs_image = set.root().replace("core", "fs");
        let id = Images::open(set.images()).and_then(|images| images.directories(fs_image[3..fs_image.len() - 4].parse().expect("a number")));
        let id = id.expect("readable").current;
        set.files(|files| {
            let file = files.iter_mut().find(|file| file.id() == id).and_then(|file| file.reg.as_mut()).expect("a directory");
            file.set_name(b"/etc".to_vec());
        });
    };
    Write "/dev/null`: it is not listed" a_file_opened_for_writing: |set| set.path("/dev/null", |file| file.set_flags(2));
    Write "/dev/null`: it is not listed" a_file_cut_when_opened: |set| set.path("/dev/null", |file| file.set_flags(0o1000));
    Write "lib/shared`: it is not listed" a_file_written_by_way_of_memory: |set| {
        let files = set.file("").display().to_string();
        let files = files.trim_end_matches('/');
        let only = format!("write = [\"{files}/out\", \"{files}/home\"]");
        set.policy = set.policy.replace(&format!("write = [\"{files}\"]"), &only).replace("map = [", &format!("map = [\"{files}/lib\", "));
        fs::create_dir(set.file("lib")).expect("made");
        fs::write(set.file("lib/shared"), "").expect("written");
        let there = set.file("lib/shared").to_str().expect("UTF-8").as_bytes().to_vec();
        set.files(|entries| {
            let shared = entries.iter_mut().filter_map(|entry| entry.reg.as_mut());
            for file in shared.filter(|file| file.name().ends_with(b"home/shared")) {
                file.set_name(there.clone());
                file.set_flags(0);
            }
        });
        set.memory(|memory| {
            for mapping in memory.vmas.iter_mut().filter(|mapping| mapping.status() & (1 << 7) != 0) {
                mapping.set_prot(3);
            }
        });
    };
    Write "victim`: it is not listed" a_program_cut_when_mapped: |set| {
        let files = set.file("").display().to_string();
        let files = files.trim_end_matches('/');
        let only = format!("write = [\"{files}/out\", \"{files}/home\"]");
        set.policy = set.policy.replace(&format!("write = [\"{files}\"]"), &only);
        set.memory(|memory| {
            for mapping in memory.vmas.iter_mut().filter(|mapping| mapping.status() & (1 << 6) != 0) {
                mapping.set_fdflags(0o1000);
            }
        });
    };
    Map "it is not listed" another_executable: |set| set.moved("/victim", "/bin/sh");
    Create "no plain file" a_device_that_would_be_made: |set| set.ghost(|ghost| ghost.set_mode(0o020_666));
    Create "set-user-ID" a_set_user_id_file_that_would_be_made: |set| set.ghost(|ghost| ghost.set_mode(0o104_755));
    Create "mode 0o4755" memory_that_is_set_user_id: |set| {
        set.edit::<Memfd_inode_entry>("memfd.img", |memfds| {
            let unknown = memfds[0].special_fields.mut_unknown_fields();
            unknown.remove(9);
            unknown.add_varint(9, 0o4755);
        });
    };
    Create "`/var/lib/deleted`: it is not listed" a_file_made_elsewhere: |set| {
        set.policy = set.policy.replace("write = [", "write = [\"/var/lib\", ");
        set.moved("deleted", "/var/lib/deleted");
    };
    Create "`/run/dbus/socket`: it is not listed" a_socket_made_elsewhere: |set| {
        set.files(|files| {
            let socket = files.iter_mut().find_map(|file| file.usk.as_mut()).expect("a socket");
            socket.name = Some(b"/run/dbus/socket\0".to_vec());
        });
    };
    Create "is there and no socket" a_file_taken_away_by_a_socket: |set| {
        let path = set.file("home/regular");
        set.files(|files| {
            let socket = files.iter_mut().find_map(|file| file.usk.as_mut()).expect("a socket");
            socket.name = Some([path.to_str().expect("UTF-8").as_bytes(), b"\0"].concat());
        });
    };
    // Cgroups.
    Cgroups "`/system.slice`" another_cgroup: |set| {
        let member = [bytes(1, b"memory"), bytes(2, b"/system.slice")].concat();
        set.add("cgroup.img", &[bytes(1, &[message(&[(1, 1)]), bytes(2, &member)].concat())]);
    };
    Cgroups "`/crr/../system.slice`" a_cgroup_by_a_detour: |set| {
        let member = [bytes(1, b""), bytes(2, b"/crr/../system.slice")].concat();
        set.add("cgroup.img", &[bytes(1, &[message(&[(1, 1)]), bytes(2, &member)].concat())]);
    };
    Cgroups "`/` would be made or set" a_property_of_the_root: |set| {
        let directory = [bytes(1, b""), bytes(3, &[bytes(1, b"memory.max"), bytes(2, b"0")].concat())].concat();
        set.add("cgroup.img", &[bytes(2, &[bytes(1, b"memory"), bytes(2, &directory)].concat())]);
    };
    // Sockets.
    Addresses "bound to 10.9.9.9" another_address: |set| set.listener(|socket| socket.src_addr = vec![u32::from_le_bytes([10, 9, 9, 9])]);
    Addresses "bound to 0.0.0.0" every_address: |set| set.listener(|socket| socket.src_addr = vec![0]);
    Ports "port 22" another_port: |set| set.listener(|socket| socket.set_src_port(22));
    Remotes "8.8.8.8 port 53" a_connection_elsewhere: |set| set.listener(|socket| {
        socket.dst_addr = vec![u32::from_le_bytes([8, 8, 8, 8])];
        socket.set_dst_port(53);
    });
    // Namespaces.
    Namespaces "a mount namespace of its own" a_mount_namespace: |set| {
        let ids = set.root().replace("core", "ids");
        set.edit::<Task_kobj_ids_entry>(&ids, |all| all[0].set_mnt_ns_id(4_000_000));
    };
    Namespaces "of its own" no_namespaces_of_the_host: |set| set.inventory(|inventory| inventory.root_ids.as_mut().expect("ids").clear_net_ns_id());
    Namespaces "(uts)" a_host_name: |set| set.add("utsns-9.img", &[[bytes(1, b"x"), bytes(2, b"y")].concat()]);
    // Smaller things.
    Terminals "is a terminal" a_terminal: |set| {
        set.instead(11, 19, [message(&[(2, 1), (3, 2)]), bytes(4, &message(&FOWN))].concat());
    };
    Terminals "of the type 2" a_console: |set| {
        set.allow("terminals = true");
        set.add("tty-info.img", &[message(&[(1, 1), (2, 2), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0)])]);
    };
    Watches "inotify" a_watch: |set| set.instead(8, 13, [message(&[(2, 0)]), bytes(4, &message(&FOWN))].concat());
    Profiles "`other-profile`" a_profile: |set| set.credentials(|credentials| credentials.lsm_profile = Some(b"other-profile".to_vec()));
    NoNewPrivileges "no_new_privs is not set" setuid_programs: |set| set.allow("no-new-privileges = true");
    MaxTasks "5 tasks and threads are more than 4" a_thread_more: |set| {
        set.edit::<Pstree_entry>("pstree.img", |tasks| tasks[0].threads.push(999_999));
    };
    MaxBytes "bytes are more than 1048576" a_larger_memory: |set| {
        let pages = set.named("pages-").remove(0);
        let file = fs::OpenOptions::new().write(true).open(set.images().join(pages)).expect("there");
        file.set_len(2 << 20).expect("grown");
    };
    // What only an unrestricted peer may.
    Unrestricted "no image of this name" an_image_of_unknown_name: |set| fs::write(set.images().join("magic-1.img"), "x").expect("written");
    Unrestricted "no image of this name" a_second_spelling: |set| {
        fs::write(set.images().join("core-01.img"), "x").expect("written");
    };
    Unrestricted "format of old" an_image_of_old: |set| fs::write(set.images().join("reg-files.img"), "x").expect("written");
    Unrestricted "mount any device" mounts: |set| fs::write(set.images().join("mountpoints-12.img"), "x").expect("written");
    Unrestricted "run as root" firewall_rules: |set| fs::write(set.images().join("nftables-9.img"), "x").expect("written");
    Unrestricted "what the kernel runs" binfmt_misc: |set| fs::write(set.images().join("binfmt-misc.img"), "x").expect("written");
    Unrestricted "profiles into the kernel" apparmor: |set| fs::write(set.images().join("apparmor.img"), "x").expect("written");
    Unrestricted "maps" a_user_namespace: |set| fs::write(set.images().join("userns-8.img"), "x").expect("written");
    Unrestricted "judged, too" parent_images: |set| {
        std::os::unix::fs::symlink("..", set.images().join("parent")).expect("made");
    };
    Unrestricted "cannot read the image" an_image_that_is_a_link: |set| {
        let name = set.named("pages-").remove(0);
        fs::rename(set.images().join(&name), set.file("pages")).expect("moved");
        std::os::unix::fs::symlink(set.file("pages"), set.images().join(name)).expect("made");
    };
    Unrestricted "does not know" an_unknown_field: |set| {
        set.credentials(|credentials| credentials.special_fields.mut_unknown_fields().add_varint(60, 1));
    };
    Unrestricted "comes twice" a_field_that_comes_twice: |set| {
        let path = set.images().join("filelocks.img");
        let all = fs::read(&path).expect("readable");
        let record = [&all[12..], &message(&[(1, 1)])].concat();
        fs::write(path, [&all[..8], &(record.len() as u32).to_le_bytes(), &record].concat()).expect("written");
    };
    Unrestricted "NUL byte" a_path_that_c_reads_otherwise: |set| {
        let path = [set.file("out").to_str().expect("UTF-8").as_bytes(), b"\0/x"].concat();
        set.path("/out", |file| file.set_name(path));
    };
    Unrestricted "cannot read the image" a_cut_image: |set| {
        let path = set.images().join("filelocks.img");
        let bytes = fs::read(&path).expect("readable");
        fs::write(path, &bytes[..bytes.len() - 1]).expect("written");
    };
    Unrestricted "comes from outside" a_file_from_outside: |set| set.path("/out", |file| file.set_ext(true));
    Unrestricted "unknown type" a_file_of_an_unknown_type: |set| set.files(|files| {
        let file = files.iter_mut().find(|file| file.isk.is_some()).expect("a socket");
        file.type_ = Some(EnumOrUnknown::from_i32(99));
    });
    Unrestricted "not what its type says" a_file_of_two_types: |set| set.files(|files| {
        let path = files.iter().find(|file| file.reg.is_some()).expect("a path").reg.clone();
        files.iter_mut().find(|file| file.isk.is_some()).expect("a socket").reg = path;
    });
    Unrestricted "not what its type says" a_file_with_another_number_inside: |set| {
        set.listener(|socket| socket.set_id(77_777));
    };
    Unrestricted "that of two files" two_files_of_one_number: |set| set.files(|files| {
        let file = files.iter().find(|file| file.isk.is_some()).expect("a socket").clone();
        files.push(file);
    });
    Unrestricted "an open namespace" an_open_namespace: |set| set.instead(14, 5, message(&[(2, 1), (3, 0x4000_0000), (4, 0)]));
    Unrestricted "a plugin" what_a_plugin_dumped: |set| set.instead(16, 15, bytes(5, &message(&FOWN)));
    Unrestricted "load the plugin amdgpu" plugins: |set| set.inventory(|inventory| {
        inventory.plugins_entry.mut_or_insert_default().plugins.push(b"amdgpu".to_vec());
    });
    Unrestricted "is no name of a dump" a_command_to_nft: |set| {
        set.inventory(|inventory| inventory.dump_criu_run_id = Some(b"x { }; flush ruleset".to_vec()));
    };
    Unrestricted "uprobes" uprobes: |set| set.inventory(|inventory| inventory.allow_uprobes = Some(true));
    Unrestricted "a kind that is not judged" a_mapping_of_a_socket: |set| set.memory(|memory| {
        let status = memory.vmas[0].status() | 1 << 11;
        memory.vmas[0].set_status(status);
    });
    Unrestricted "has no path" an_executable_without_a_file: |set| set.memory(|memory| memory.set_exe_file_id(77_777));
    Unrestricted "other end is outside" a_socket_of_the_host: |set| set.files(|files| {
        files.iter_mut().find_map(|file| file.usk.as_mut()).expect("a socket").set_uflags(1);
    });
    Unrestricted "in a way that is not judged" a_file_of_a_process_that_ended: |set| set.remaps(|remaps| {
        remaps[0].remap_type = Some(EnumOrUnknown::from_i32(2));
        // Its path is now as any other's.
        fs::write(set.file("home/deleted"), "").expect("written");
    });
    Unrestricted "not of the tree" signals_to_others: |set| set.path("regular", |file| {
        let owner = file.fown.as_mut().expect("an owner");
        owner.set_uid(1000);
        owner.set_euid(1000);
        owner.set_pid(1);
    });
    Unrestricted "release_agent" a_program_of_a_cgroup: |set| {
        let property = bytes(3, &[bytes(1, b"release_agent"), bytes(2, b"/tmp/x")].concat());
        let directory = [bytes(1, b"/crr"), property].concat();
        set.add("cgroup.img", &[bytes(2, &[bytes(1, b"memory"), bytes(2, &directory)].concat())]);
    };
    Unrestricted "not there, so nothing can be judged" no_inventory: |set| {
        fs::remove_file(set.images().join("inventory.img")).expect("removed");
    };
}
