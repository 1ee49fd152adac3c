//! What containers have beside a process that counts, and what must be there again after a restore.

use std::fs;
use std::path::Path;

use libtest_mimic::Failed;
use serde_json::json;

use crate::ensure;

use super::bed::{Bed, Container};
use super::bundle::{Bundle, counter};

type Step = Result<(), Failed>;

/// One of them. Each step that is not needed does nothing.
#[derive(Clone, Copy)]
pub(crate) struct Situation {
    pub(crate) name: &'static str,
    /// Before the container is run.
    pub(crate) prepare: fn(&Bed, &mut Bundle) -> Step,
    /// While it runs.
    pub(crate) arrange: fn(&Container) -> Step,
    /// Between the dump and the restore.
    pub(crate) between: fn(&Bundle) -> Step,
    /// Before the dump, and again after the restore.
    pub(crate) check: fn(&Bed, &Container) -> Step,
}

const PLAIN: Situation =
    Situation { name: "plain", prepare: |_, _| Ok(()), arrange: |_| Ok(()), between: |_| Ok(()), check: |_, _| Ok(()) };

/// All of them.
pub(crate) const ALL: &[Situation] = &[
    Situation { name: "binds", prepare: binds, arrange: fill_binds, between: remove_targets, check: check_binds },
    Situation { name: "tmpfs", prepare: tmpfs, arrange: fill_tmpfs, check: check_tmpfs, ..PLAIN },
    Situation { name: "bind_on_tmpfs", prepare: bind_on_tmpfs, check: check_bind_on_tmpfs, ..PLAIN },
    Situation { name: "masked_paths", prepare: masked, check: check_masked, ..PLAIN },
    Situation { name: "devices", prepare: devices, check: check_devices, ..PLAIN },
    Situation { name: "read_only_root", prepare: read_only_root, check: check_read_only_root, ..PLAIN },
    Situation { name: "log_on_a_volume", prepare: volume_log, check: check_volume_log, ..PLAIN },
    Situation { name: "limits", prepare: limits, ..PLAIN },
    Situation { name: "cgroup_path", prepare: cgroup_path, ..PLAIN },
    Situation { name: "few_rights", prepare: few_rights, ..PLAIN },
    Situation { name: "seccomp", prepare: seccomp, ..PLAIN },
    Situation { name: "user_namespace", prepare: user_namespace, check: check_user_namespace, ..PLAIN },
    Situation { name: "host_network", prepare: host_network, ..PLAIN },
    Situation { name: "deleted_file", prepare: deleted_file, check: check_deleted_file, ..PLAIN },
];

/// The container's shell must say this.
fn must_say(container: &Container, line: &str, wanted: &str) -> Step {
    let said = container.sh(line)?;
    ensure!(said.trim() == wanted, "`{line}` said {said:?} instead of {wanted:?}");
    Ok(())
}

/// A file or directory of the host with something in it.
fn host_file(path: &Path, content: &str) -> Step {
    fs::create_dir_all(path.parent().ok_or("no parent")?)?;
    Ok(fs::write(path, content)?)
}

// ---- mounts ---------------------------------------------------------------------------------------------------------

fn binds(bed: &Bed, bundle: &mut Bundle) -> Step {
    host_file(&bed.path("volume/kept"), "kept\n")?;
    host_file(&bed.path("inner/kept"), "inner\n")?;
    host_file(&bed.path("note"), "note\n")?;
    bundle.bind(&bed.path("volume"), "/data/deep/volume", &["rw"])?;
    bundle.bind(&bed.path("note"), "/etc/conf/note", &["ro"])?;
    // Below another mount: its mount point is made in the volume.
    bundle.bind(&bed.path("inner"), "/data/deep/volume/below/inner", &["rw"])
}

fn fill_binds(container: &Container) -> Step {
    container.sh("echo inside > /data/deep/volume/new").map(drop)
}

/// A fresh root file system, as another host has it, lacks what was made for the first run.
fn remove_targets(bundle: &Bundle) -> Step {
    fs::remove_dir_all(bundle.inside("/data"))?;
    Ok(fs::remove_dir_all(bundle.inside("/etc/conf"))?)
}

fn check_binds(bed: &Bed, container: &Container) -> Step {
    must_say(
        container,
        "cd /data/deep/volume && cat kept new below/inner/kept /etc/conf/note",
        "kept\ninside\ninner\nnote",
    )?;
    must_say(container, "echo more >> /etc/conf/note && echo written; true", "")?;
    container.sh("echo seen > /data/deep/volume/below/inner/seen")?;
    ensure!(fs::read_to_string(bed.path("inner/seen"))? == "seen\n", "what is written does not come to the host");
    ensure!(fs::read_to_string(bed.path("note"))? == "note\n", "a read-only mount was written to");
    Ok(fs::remove_file(bed.path("inner/seen"))?)
}

fn tmpfs(_: &Bed, bundle: &mut Bundle) -> Step {
    bundle.mount("tmpfs", "tmpfs", "/scratch", &["nosuid", "noexec", "mode=0750", "size=1m"])?;
    bundle.mount("tmpfs", "tmpfs", "/scratch/below", &["ro", "size=64k"])
}

fn fill_tmpfs(container: &Container) -> Step {
    container.sh("cd /scratch && mkdir -m 700 dir && echo content > dir/file && chmod 640 dir/file && ln -s dir/file link && mkfifo fifo && seq 20000 > big && echo shm > /dev/shm/kept").map(drop)
}

fn check_tmpfs(_: &Bed, container: &Container) -> Step {
    must_say(
        container,
        "cd /scratch && cat link && stat -c %a dir dir/file && [ -p fifo ] && tail -n 1 big && cat /dev/shm/kept",
        "content\n700\n640\n20000\nshm",
    )?;
    must_say(container, "grep -c '/scratch tmpfs rw,nosuid,noexec,.*size=1024k,mode=750' /proc/mounts", "1")?;
    must_say(
        container,
        "grep -c '/scratch/below tmpfs ro' /proc/mounts; touch /scratch/below/x 2>/dev/null && echo written; true",
        "1",
    )
}

fn bind_on_tmpfs(bed: &Bed, bundle: &mut Bundle) -> Step {
    host_file(&bed.path("note"), "note\n")?;
    host_file(&bed.path("volume/kept"), "kept\n")?;
    bundle.mount("tmpfs", "tmpfs", "/scratch", &["size=1m"])?;
    bundle.bind(&bed.path("note"), "/scratch/deep/note", &["ro"])?;
    bundle.bind(&bed.path("volume"), "/scratch/volume", &["rw"])
}

fn check_bind_on_tmpfs(_: &Bed, container: &Container) -> Step {
    must_say(container, "cat /scratch/deep/note /scratch/volume/kept", "note\nkept")
}

fn masked(_: &Bed, bundle: &mut Bundle) -> Step {
    host_file(&bundle.inside("/etc/secret"), "secret\n")?;
    host_file(&bundle.inside("/secrets/one"), "secret\n")?;
    host_file(&bundle.inside("/fixed/one"), "fixed\n")?;
    bundle.list("/linux/maskedPaths")?.extend(["/etc/secret".into(), "/secrets".into(), "/not/there".into()]);
    bundle.list("/linux/readonlyPaths")?.push("/fixed".into());
    Ok(())
}

fn check_masked(_: &Bed, container: &Container) -> Step {
    must_say(container, "cat /etc/secret /proc/keys; ls /secrets", "")?;
    must_say(container, "cat /fixed/one; (echo more >> /fixed/one) 2>/dev/null; cat /fixed/one", "fixed\nfixed")?;
    must_say(container, "(echo 1 > /proc/sys/kernel/printk) 2>/dev/null && echo written; true", "")
}

fn devices(_: &Bed, bundle: &mut Bundle) -> Step {
    let device =
        json!({ "path": "/dev/extra", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 0, "gid": 0 });
    bundle.list("/linux/devices")?.push(device);
    let rule = json!({ "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rw" });
    bundle.list("/linux/resources/devices")?.push(rule);
    bundle.shell(&format!("exec 5<>/dev/extra; {}", counter("0.1")));
    Ok(())
}

fn check_devices(_: &Bed, container: &Container) -> Step {
    must_say(container, "stat -c %t:%T:%a /dev/extra; head -c 2 /dev/extra | od -An -tx1", "1:5:640\n 00 00")?;
    must_say(container, "readlink /proc/1/fd/5; head -c 1 /proc/1/fd/5 | od -An -tx1", "/dev/extra\n 00")?;
    must_say(container, "echo gone > /dev/null && head -c 1 /dev/null | wc -c", "0")
}

fn read_only_root(_: &Bed, bundle: &mut Bundle) -> Step {
    bundle.config["root"]["readonly"] = json!(true);
    Ok(())
}

fn check_read_only_root(_: &Bed, container: &Container) -> Step {
    must_say(container, "touch /written 2>/dev/null && echo written; true", "")
}

fn volume_log(bed: &Bed, bundle: &mut Bundle) -> Step {
    host_file(&bed.path("volume/log"), "")?;
    bundle.bind(&bed.path("volume"), "/data", &["rw"])?;
    // Its descriptor stays open, at a position of its own.
    bundle.shell("exec 5>/data/log; i=0; while true; do echo $i; echo $i >&5; i=$(expr $i + 1); sleep 0.1; done");
    Ok(())
}

fn check_volume_log(bed: &Bed, _: &Container) -> Step {
    let log = || fs::read_to_string(bed.path("volume/log"));
    let before = log()?.lines().count();
    crate::until::until("more lines in the log", crate::until::SOON, || {
        (log().ok()?.lines().count() > before + 1).then_some(())
    })?;
    let lines = log()?;
    // The last may not be whole.
    let whole = lines.rsplit_once('\n').map_or("", |(whole, _)| whole);
    ensure!(whole.lines().enumerate().all(|(at, line)| line == at.to_string()), "the log is {lines:?}");
    Ok(())
}

fn deleted_file(_: &Bed, bundle: &mut Bundle) -> Step {
    bundle.shell(&format!("echo ghost > /tmp/ghost; exec 5</tmp/ghost; rm /tmp/ghost; {}", counter("0.1")));
    Ok(())
}

fn check_deleted_file(_: &Bed, container: &Container) -> Step {
    must_say(container, "cat /proc/1/fd/5; ls /tmp", "ghost")
}

// ---- cgroups --------------------------------------------------------------------------------------------------------

fn limits(_: &Bed, bundle: &mut Bundle) -> Step {
    limit(bundle, "memory", json!({ "limit": 64 << 20 }));
    limit(bundle, "pids", json!({ "limit": 77 }));
    limit(bundle, "cpu", json!({ "shares": 512, "quota": 50_000, "period": 100_000 }));
    limit(bundle, "cpuset", json!({ "cpus": "0" }));
    if Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
        limit(bundle, "hugetlb", json!([{ "pageSize": "2MB", "limit": 64 << 20 }]));
    }
    Ok(())
}

fn cgroup_path(bed: &Bed, bundle: &mut Bundle) -> Step {
    bundle.cgroup(&format!("/group{tag}/deeper/one", tag = bed.tag()));
    limit(bundle, "pids", json!({ "limit": 78 }));
    Ok(())
}

/// Sets limits of a controller, where there is one: a unified hierarchy beside those of v1 has what they left over.
fn limit(bundle: &mut Bundle, controller: &str, limits: serde_json::Value) {
    let unified = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    let is_there = match &unified {
        Ok(controllers) => controllers.split_whitespace().any(|name| name == controller),
        Err(_) => Path::new("/sys/fs/cgroup").join(controller).exists(),
    };
    if is_there {
        let section = match controller {
            "cpuset" => "cpu",
            "hugetlb" => "hugepageLimits",
            other => other,
        };
        bundle.resources(section, limits);
    }
}

// ---- rights and namespaces ------------------------------------------------------------------------------------------

fn few_rights(_: &Bed, bundle: &mut Bundle) -> Step {
    // Another user than root needs CAP_SYS_RESOURCE of CRIU, or a user namespace.
    bundle.config["process"]["user"] = json!({ "uid": 0, "gid": 0, "additionalGids": [33, 44] });
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_NET_BIND_SERVICE"]);
    }
    bundle.config["process"]["oomScoreAdj"] = json!(123);
    Ok(())
}

fn seccomp(_: &Bed, bundle: &mut Bundle) -> Step {
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["sethostname"], "action": "SCMP_ACT_ERRNO" }],
    });
    Ok(())
}

fn user_namespace(_: &Bed, bundle: &mut Bundle) -> Step {
    const SHIFT: u32 = 100_000;
    bundle.namespace("user", None)?;
    for kind in ["uidMappings", "gidMappings"] {
        bundle.config["linux"][kind] = json!([{ "containerID": 0, "hostID": SHIFT, "size": 65_536 }]);
    }
    bundle.own_rootfs(SHIFT)
}

fn check_user_namespace(_: &Bed, container: &Container) -> Step {
    must_say(
        container,
        "id -u; awk '{ print $1, $2, $3 }' /proc/1/uid_map; touch /tmp/mine && stat -c %u /tmp/mine",
        "0\n0 100000 65536\n0",
    )
}

fn host_network(_: &Bed, bundle: &mut Bundle) -> Step {
    bundle.share_namespace("network")?;
    // A sysfs of a network namespace that is not the user namespace's own cannot be mounted; and none is needed.
    Ok(())
}
