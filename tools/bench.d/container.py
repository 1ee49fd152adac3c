"""Containers: started by runc, dumped and restored by runc and by crr."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess

import process

BUSYBOX = "/bin/busybox"
COUNTER = "i=0; while true; do echo $i >/said; i=$(expr $i + 1); sleep 0.2; done"
TICKER = "exec /bin/ticker >/said"


class Runc:
    """runc, with a state directory of its own."""

    name = "runc"

    def __init__(self, binary, criu, scratch):
        self.binary, self.root, self.log = binary, scratch / "runc", scratch / "runc.log"
        # runc finds CRIU in PATH only; a long one costs both sides the same.
        self.environment = {"PATH": f"{pathlib.Path(criu).parent}:/usr/sbin:/usr/bin:/sbin:/bin"}
        os.environ["PATH"] = self.environment["PATH"]

    def words(self, *words):
        return [self.binary, "--root", self.root, *words]

    def call(self, *words):
        # All its streams are the container's too: a pipe would be held open, and runc cannot dump a file of the host.
        words = [str(word) for word in (self.binary, "--log", self.log, *self.words(*words)[1:])]
        done = subprocess.run(words, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            raise process.Failed(f"{' '.join(words)}: {self.log.read_text()[-2000:]}")

    def dump(self, container, directory, running=False):
        words = self.words("checkpoint", "--image-path", directory, "--work-path", f"{directory}.work")
        return words + ["--leave-running"] * running + [container.id]

    def restore(self, container, directory):
        return self.words("restore", "-d", "--bundle", container.bundle, "--image-path", directory,
                          "--work-path", f"{directory}.work", container.id)

    def state(self, container):
        try:
            return json.loads((self.root / container.id / "state.json").read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            # In the middle of being written.
            return {}


class Crr:
    """crr, with images of one kind."""

    def __init__(self, binary, runc, name, images, dump=(), restore=()):
        self.binary, self.runc, self.name, self.images = binary, runc, name, images
        self.dump_options, self.restore_options = list(dump), list(restore)

    def dump(self, container, directory, running=False):
        return self.dump_all([container], directory) + ["--leave-running"] * running

    def dump_all(self, containers, directory, jobs=()):
        words = [self.binary, "dump", "--runtime-root", self.runc.root, "--dir", directory, "--images", self.images, *jobs]
        return words + self.dump_options + [word for each in containers for word in ("--container", each.id)]

    def restore(self, container, directory):
        return self.restore_all([container], directory)

    def restore_all(self, containers, directory, jobs=()):
        words = [self.binary, "restore", "-d", "--runtime-root", self.runc.root, "--dir", directory, *jobs]
        return words + self.restore_options + [word for each in containers for word in ("--container", each.id)]


class Waiting(Crr):
    """crr, with a restore that is begun before the dump and waits for it."""

    def wait(self, container, directory):
        return self.restore(container, directory) + ["--wait=60"]


class Container:
    """A running container with a root file system of its own."""

    def __init__(self, runc, scratch, number, line, programs):
        self.runc, self.id = runc, f"bench{os.getpid()}-{number}"
        self.bundle = scratch / "bundles" / self.id
        make_bundle(runc, self.bundle, line, programs)
        self.said = self.bundle / "rootfs/said"

    def start(self):
        self.said.write_text("")
        self.runc.call("run", "-d", "--bundle", self.bundle, self.id)
        self.await_runs("")

    def await_runs(self, before=None):
        """It is there and goes on with what it did: it says more than `before`, by default than now."""
        before = self.said.read_text(errors="replace") if before is None else before
        process.await_true(lambda: self.runc.state(self) is not None, f"{self.id} has a state", 20)
        process.await_true(lambda: self.said.read_text(errors="replace") != before, f"{self.id} goes on", 20)

    def pid(self):
        return self.runc.state(self)["init_process_pid"]

    def await_gone(self):
        process.await_true(lambda: self.runc.state(self) is None, f"{self.id} is gone", 20)

    def gap_us(self):
        """What a ticker says is its longest gap since it was asked before."""
        size = self.said.stat().st_size
        os.kill(self.pid(), signal.SIGUSR1)
        process.await_true(lambda: self.said.read_text()[size:].endswith("\n"), "the ticker answers", 10)
        return int(self.said.read_text()[size:].split()[-1])

    def delete(self):
        with contextlib.suppress(process.Failed):
            self.runc.call("delete", "-f", self.id)


def make_bundle(runc, directory, line, programs):
    """busybox, a static ticker, and what `runc spec` says."""
    rootfs = directory / "rootfs"
    if directory.exists():
        return
    for name in ["bin", "dev", "etc", "proc", "sys", "tmp", "run", "root"]:
        (rootfs / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, rootfs / "bin/busybox")
    for name in ["sh", "expr", "sleep"]:
        (rootfs / "bin" / name).symlink_to("busybox")
    shutil.copy(programs / "ticker-static", rootfs / "bin/ticker")
    subprocess.run([runc.binary, "spec"], cwd=directory, check=True)
    config = json.loads((directory / "config.json").read_text())
    config["root"]["readonly"] = False
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/bin/sh", "-c", line]
    # Raising a hard limit needs CAP_SYS_RESOURCE, which not every machine gives.
    config["process"].pop("rlimits", None)
    (directory / "config.json").write_text(json.dumps(config))


class Containers:
    """Makes containers, and deletes them all."""

    def __init__(self, runc, scratch, programs):
        self.runc, self.scratch, self.programs, self.made = runc, scratch, programs, []

    def make(self, line=COUNTER):
        container = Container(self.runc, self.scratch, len(self.made), line, self.programs)
        self.made.append(container)
        return container

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for container in self.made:
            container.delete()
        shutil.rmtree(self.scratch / "bundles", ignore_errors=True)


def shell_loop(runc, verb, containers, directory):
    """What a user would run instead of one command for many: runc for each, two at a time."""
    if verb == "dump":
        one = f"{runc.binary} --root {runc.root} checkpoint --image-path {directory}/$1 --work-path {directory}/$1.work $1"
    else:
        one = (f"{runc.binary} --root {runc.root} restore -d --bundle {containers[0].bundle.parent}/$1 "
               f"--image-path {directory}/$1 --work-path {directory}/$1.work $1")
    ids = " ".join(each.id for each in containers)
    return ["/bin/sh", "-c", f"printf '%s\\n' {ids} | xargs -P 2 -n 1 sh -c '{one} </dev/null >/dev/null 2>&1' sh"]
