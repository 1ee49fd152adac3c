"""The two programs that are compared, each with the same log level."""

import json
import subprocess
from pathlib import Path

import process


class Criu:
    """The criu program."""

    name = "criu"

    def __init__(self, binary):
        self.binary = binary

    def dump(self, pid, directory, running=False):
        directory.mkdir()
        words = [self.binary, "dump", "-t", pid, "-D", directory, "-o", "dump.log", "-v2"]
        return words + ["-R"] * running

    def restore(self, directory):
        return [self.binary, "restore", "-d", "-D", directory, "-o", "restore.log", "-v2"]

    def version(self):
        return [self.binary, "--version"]


class Crr:
    """crr, as it is by default or without what the criu program does not do either."""

    def __init__(self, binary, name, dump=(), restore=()):
        self.binary, self.name = binary, name
        self.dump_options, self.restore_options = list(dump), list(restore)

    def dump(self, pid, directory, running=False):
        words = [self.binary, "dump", "--pid", pid, "--dir", directory, "--log-level", "2", "--json"]
        return words + self.dump_options + ["--leave-running"] * running

    def restore(self, directory):
        words = [self.binary, "restore", "--dir", directory, "-d", "--log-level", "2"]
        return words + self.restore_options

    def check(self, pid):
        return [self.binary, "check", "--pid", pid]

    def version(self):
        return [self.binary, "--version"]


def chosen_criu(crr, pid, scratch):
    """The criu program that crr would take to dump `pid`."""
    words = [crr, "dump", "--dry-run", "--json", "--pid", str(pid), "--dir", str(scratch / "dry")]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        return json.loads(said.stdout)["plan"]["criu"]
    except (ValueError, KeyError) as error:
        raise process.Failed(f"{' '.join(words)}: {said.stdout}{said.stderr}") from error


def report(output):
    """What `--json` printed."""
    return json.loads(Path(output).read_text())
