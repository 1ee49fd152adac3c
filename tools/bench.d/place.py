"""Where checkpoints are written."""

import contextlib
import os
import pathlib
import shutil
import tempfile


class Place:
    """A filesystem, and a directory of ours on it."""

    def __init__(self, root):
        self.root = pathlib.Path(root)

    @contextlib.contextmanager
    def directory(self):
        """A path for one checkpoint, gone afterwards with what is beside it."""
        above = pathlib.Path(tempfile.mkdtemp(dir=self.root))
        try:
            yield above / "checkpoint"
        finally:
            shutil.rmtree(above)


class Places:
    """A tmpfs, a disk, and a scratch directory for what programs print."""

    def __init__(self, disk):
        self.stack = contextlib.ExitStack()
        self.fast = Place(self._temporary("/dev/shm"))
        self.disk = Place(self._temporary(disk))
        self.scratch = self.disk.root

    def _temporary(self, parent):
        return self.stack.enter_context(tempfile.TemporaryDirectory(prefix="crr-bench-", dir=parent))

    def roomiest(self, needed_bytes):
        """The tmpfs where this much memory is free for it and for the victim, else the disk."""
        available = next(line for line in open("/proc/meminfo", encoding="ascii") if line.startswith("MemAvailable"))
        room = os.statvfs(self.fast.root)
        enough = min(int(available.split()[1]) * 1024, room.f_bavail * room.f_frsize) > needed_bytes * 3 // 2
        return self.fast if enough else self.disk

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()
