"""The programs that are dumped and restored."""

import os
import pathlib
import signal
import subprocess

import process

PROGRAMS = ["counter", "tree", "memory", "ticker"]


def build(sources, directory):
    """Compiles the programs."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        source, program = sources / f"{name}.c", directory / name
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            subprocess.run(["cc", "-O2", "-Wall", "-o", program, source], check=True)
    # For a container, in which there are no libraries.
    static = directory / "ticker-static"
    if not static.exists() or static.stat().st_mtime < (sources / "ticker.c").stat().st_mtime:
        subprocess.run(["cc", "-O2", "-Wall", "-static", "-o", static, sources / "ticker.c"], check=True)


class Victim:
    """A running program, all of its processes, and the file it writes to."""

    def __init__(self, words, tasks, scratch, ready):
        self.output = scratch / "victim.out"
        # A session of its own: else it is a job of a shell to CRIU, which must be told so.
        self.pid = process.spawn(words, self.output, session=True)
        process.prefer(self.pid)
        self.pids = [self.pid]
        try:
            process.await_true(lambda: self._has_come(tasks, ready), f"{words} has {tasks} processes", 300)
        except BaseException:
            self.kill()
            raise

    def _has_come(self, tasks, ready):
        self.pids = descendants(self.pid)
        return len(self.pids) == tasks and ready in self.said()

    def said(self):
        return self.output.read_text(errors="replace")

    def await_gone(self):
        process.await_gone(self.pids)

    def await_alive(self):
        """All of its processes are there, and it goes on with what it did."""
        size = self.output.stat().st_size
        process.await_true(lambda: descendants(self.pid) == self.pids, f"all of {self.pids} are restored", 10)
        process.await_true(lambda: self.output.stat().st_size > size, "the restored program goes on", 10)

    def kill(self):
        process.kill(self.pids)

    def gap_us(self):
        """What a ticker says is its longest gap since it was asked before."""
        size = self.output.stat().st_size
        os.kill(self.pid, signal.SIGUSR1)
        process.await_true(lambda: self.said()[size:].endswith("\n"), "the ticker answers", 10)
        return int(self.said()[size:].split()[1])


def descendants(pid):
    """A process and all below it, as long as each is alive; sorted."""
    found, waiting = [], [pid]
    while waiting:
        pid = waiting.pop()
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in "ZX":
            found.append(pid)
        waiting.extend(map(int, children))
    return sorted(found)


class Programs:
    """Makes victims."""

    def __init__(self, programs, scratch):
        self.programs, self.scratch = programs, scratch

    def fork(self):
        return Victim([self.programs / "counter", 1000000, 100], 2, self.scratch, "child")

    def tree(self, tasks):
        return Victim([self.programs / "tree", tasks], tasks, self.scratch, "tick")

    def memory(self, mebibytes):
        return Victim([self.programs / "memory", mebibytes], 1, self.scratch, "tick")

    def ticker(self):
        return Victim([self.programs / "ticker"], 1, self.scratch, "ready")
