"""Memory on its way to another process: CRIU's own page server, and crr's relay and store."""

import contextlib
import os
import pathlib
import signal
import subprocess
import threading
import time

import process


class Server:
    """CRIU's page server, over TCP, into a fresh directory."""

    name = "criu"

    def __init__(self, criu, example, scratch):
        self.criu, self.example, self.scratch = criu, example, scratch

    def frozen_ms(self, victim, directory, peaks=None):
        """How long the victim stands still in a dump that it survives."""
        directory.mkdir()
        local, port = directory / "local", free_port()
        local.mkdir()
        words = [self.criu, "page-server", "-D", directory, "-o", "server.log", "-v2", "--address", "127.0.0.1", "--port", port]
        pid = process.spawn(words, self.scratch / "server.out")
        with ended(pid, words, self.scratch / "server.out"):
            process.await_true(lambda: is_listening(port), "CRIU's page server listens", 10)
            words = [self.criu, "dump", "-t", victim.pid, "-D", local, "-o", "dump.log", "-v2", "-R"]
            words += ["--page-server", "--address", "127.0.0.1", "--port", port]
            process.run(words, self.scratch / "tool.out")
        return frozen_ms(self.example, local)


class Relay:
    """crr's relay in one process, its store in another."""

    def __init__(self, name, criu, example, scratch, is_touched, is_tcp=False, has_tls=False):
        self.name, self.criu, self.example, self.scratch = name, criu, example, scratch
        self.is_touched, self.is_tcp, self.has_tls = is_touched, is_tcp, has_tls

    def frozen_ms(self, victim, directory, peaks=None):
        """As of the page server. `peaks` gets the most anonymous memory that store and relay have."""
        directory.mkdir()
        local = directory / "local"
        local.mkdir()
        link = f"127.0.0.1:{free_port()}" if self.is_tcp else directory.parent / "link"
        tls = ["--tls", directory.parent / "certificate"] * self.has_tls
        words = [self.example, "store", link, directory, *tls]
        if self.is_touched:
            words += ["--expect", f"{victim.pid}:{anonymous_bytes(victim.pid)}"]
        output = self.scratch / "store.out"
        pid = process.spawn(words, output)
        with ended(pid, words, output):
            process.await_true(lambda: "ready" in output.read_text(), "the store listens", 60)
            words = [self.example, "dump", link, local, "--pid", victim.pid, "--criu", self.criu, *tls]
            if peaks is None:
                process.run(words, self.scratch / "tool.out")
            else:
                with watched(pid, peaks):
                    peaks.append(process.peak_memory(words, self.scratch / "tool.out")[0])
        return frozen_ms(self.example, local)


@contextlib.contextmanager
def ended(pid, words, output):
    """A process that ends by itself when all went well."""
    try:
        yield
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    status = os.waitpid(pid, 0)[1]
    if status != 0:
        raise process.refused(words, output, status)


@contextlib.contextmanager
def watched(pid, peaks):
    """Looks at the anonymous memory of a process."""
    over, peak = threading.Event(), [0]

    def look():
        while not over.wait(0.001):
            with contextlib.suppress(OSError, IndexError):
                status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
                peak[0] = max(peak[0], int(status.split("RssAnon:")[1].split()[0]) * 1024)

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()
    peaks.append(peak[0])


def anonymous_bytes(pid):
    """What a dump of a process holds, about."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


def frozen_ms(example, directory):
    said = subprocess.run([example, "frozen", directory], check=True, capture_output=True, text=True)
    return int(said.stdout) / 1000


PORTS = iter(range(17000 + os.getpid() % 1000, 29000))


def free_port():
    """A port that nobody listens on."""
    return next(port for port in PORTS if not is_listening(port))


def is_listening(port):
    # Looking must not connect: CRIU takes one connection.
    lines = pathlib.Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    return any(int(line.split()[1].split(":")[1], 16) == port and line.split()[3] == "0A" for line in lines)
