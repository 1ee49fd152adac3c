"""Processes: starting them, timing them, and having them gone."""

import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess
import threading
import time

PR_SET_CHILD_SUBREAPER = 36
GONE_S = 60


class Failed(Exception):
    """Something could not be measured."""


def adopt_orphans():
    """Makes this process reap what victims and tools leave: PID 1 may take its time, and a PID must be free for a restore."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise Failed(f"cannot become a subreaper: {os.strerror(ctypes.get_errno())}")


def keep_to_ourselves():
    """Has no program inherit what whoever called this had open: a pipe to the outside would be the victim's to the tools."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if int(name) > 2:
                os.set_inheritable(int(name), False)


def prefer(pid):
    """Has the scheduler prefer a process and what it starts to everything else on the machine."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, -20)
    # Where each session is a group of its own to the scheduler, what counts is the group's nice level.
    with contextlib.suppress(OSError):
        pathlib.Path(f"/proc/{pid}/autogroup").write_text("-20", encoding="ascii")


def keep_features():
    """Puts a tmpfs over /run, for this process and what it starts: only there does CRIU keep what it found out about the
    kernel, as it does on most hosts."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, private, recursive = 0x00020000, 1 << 18, 1 << 14
    steps = [
        lambda: libc.unshare(new_mounts),
        lambda: libc.mount(b"none", b"/", None, private | recursive, None),
        lambda: libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, b"mode=755"),
    ]
    for step in steps:
        if step() != 0:
            raise Failed(f"cannot put a tmpfs over /run: {os.strerror(ctypes.get_errno())}")


def spawn(words, output, session=False):
    """Starts a program with nothing of ours open: stdin from /dev/null, stdout to the file `output`, stderr beside it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    files = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output), flags, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, complaints(output), flags, 0o600),
    ]
    words = [str(word) for word in words]
    return os.posix_spawn(words[0], words, os.environ, file_actions=files, setsid=session)


def complaints(output):
    """Where its stderr goes."""
    return f"{output}.stderr"


def refused(words, output, status):
    """A program that did not succeed, with the end of what it said."""
    said = [pathlib.Path(file).read_text(errors="replace")[-2000:] for file in (output, complaints(output))]
    code = os.waitstatus_to_exitcode(status)
    return Failed(f"exit status {code}: {' '.join(map(str, words))}\n{''.join(said)}")


def run(words, output):
    """Runs a program to its end. The seconds it took, by its start and end alone."""
    begun = time.monotonic()
    pid = spawn(words, output)
    status = os.waitpid(pid, 0)[1]
    took = time.monotonic() - begun
    if status != 0:
        raise refused(words, output, status)
    return took


@contextlib.contextmanager
def beside(words, output):
    """Runs a program beside what is done meanwhile, which is not begun before the program and its children have come to rest.
    Afterwards it must end by itself."""
    pid = spawn(words, output)
    status = None
    try:
        await_rest(pid)
        yield pid
        status = os.waitpid(pid, 0)[1]
    finally:
        if status is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if status != 0:
        raise refused(words, output, status)


def await_rest(pid):
    """It has a child, and both have used no processor time for a while."""
    def used(pid):
        parts = pathlib.Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()
        return parts[0]

    def rests():
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        before = [used(each) for each in (pid, *children)]
        time.sleep(0.03)
        return bool(children) and before == [used(each) for each in (pid, *children)]

    await_true(rests, f"PID {pid} waits", 10)


def peak_memory(words, output):
    """Runs a program and looks at its memory each millisecond. Its peaks (anonymous, all of it resident), in bytes."""
    pid = spawn(words, output)
    ended = threading.Event()
    peaks = {"RssAnon": 0, "VmHWM": 0}

    def look():
        # Opened once: what is polled must not cost more than it tells.
        with open(f"/proc/{pid}/status", "rb", buffering=0) as status:
            while not ended.wait(0.001):
                status.seek(0)
                try:
                    lines = status.read(4096).splitlines()
                except ProcessLookupError:
                    return
                for line in lines:
                    name, _, value = line.partition(b":")
                    name = name.decode()
                    if name in peaks:
                        peaks[name] = max(peaks[name], int(value.split()[0]) * 1024)

    watch = threading.Thread(target=look)
    watch.start()
    status = os.waitpid(pid, 0)[1]
    ended.set()
    watch.join()
    if status != 0:
        raise refused(words, output, status)
    return peaks["RssAnon"], peaks["VmHWM"]


def built(*words):
    """The path of a release build: of crr, or of the example that is named."""
    build = pathlib.Path(__file__).resolve().parents[1] / "build"
    return pathlib.Path(subprocess.run([build, *words], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


def reap():
    """Takes note of all children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass


def await_gone(pids):
    """Waits until none of these PIDs is taken."""
    deadline = time.monotonic() + GONE_S
    left = set(pids)
    while left:
        reap()
        left = {pid for pid in left if os.path.exists(f"/proc/{pid}")}
        if left and time.monotonic() > deadline:
            raise Failed(f"still there after {GONE_S} s: {sorted(left)}")
        if left:
            time.sleep(0.002)


def kill(pids):
    """Kills processes of ours and waits until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await_gone(pids)


def await_true(condition, what, within_s=60):
    """Waits for a condition."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"not within {within_s} s: {what}")
        time.sleep(0.002)
