"""What is measured, and what it may be at the most."""

import os
import shutil
import statistics
from dataclasses import dataclass, field

import container
import pages
import process
import tool

SPEED_LIMIT, CHECK_LIMIT, START_LIMIT = 1.05, 0.3, 1.5
ANONYMOUS_LIMIT_MIB = 16
FRESH_LIMIT, TOUCHED_LIMIT, TLS_LIMIT = 0.55, 0.35, 0.75
RELAY_LIMIT_MIB = 64


@dataclass
class Result:
    """One comparison: the samples of each side, taken in pairs, and the limit of their ratio, if there is one."""

    what: str
    unit: str
    theirs: list
    crr: list
    limit: float = None
    of_crr: bool = False  # the limit is of crr's figure itself, in the result's unit
    rival: str = "criu"
    pairs: list = field(init=False)

    def __post_init__(self):
        self.pairs = [mine / theirs for mine, theirs in zip(self.crr, self.theirs) if theirs]

    def ratio(self):
        """The median of the pairs' ratios: both of a pair ran one right after the other, on an equally busy machine."""
        return statistics.median(self.pairs) if self.pairs else None

    def holds(self):
        if self.limit is None:
            return None
        return (max(self.crr) if self.of_crr else self.ratio()) <= self.limit


class Bench:
    """Measures with two programs, a maker of victims, and directories."""

    def __init__(self, criu, crr, programs, places, quick, example=None):
        self.criu = tool.Criu(criu)
        self.bare = tool.Crr(crr, "crr", ["--no-sync", "--no-hash"], ["--no-verify"])
        self.unflushed = tool.Crr(crr, "crr, no flush", ["--no-sync"])
        self.default = tool.Crr(crr, "crr by default")
        self.programs, self.places, self.quick, self.example = programs, places, quick, example
        self.output = places.scratch / "tool.out"

    def rounds(self, number):
        return max(2, number // 5) if self.quick else number

    def alternate(self, rounds, tools):
        """Each tool once a round, another one first each time; the first round is for warming up and does not count."""
        for number in range(rounds + 1):
            first = number % len(tools)
            for each in tools[first:] + tools[:first]:
                yield number > 0, each

    # -- dump and restore, wall -------------------------------------------------------------------------------------

    def fork(self):
        return self.cycles("a program that forks", self.programs.fork, self.places.fast, 20)

    def tasks(self):
        return self.cycles("100 processes", lambda: self.programs.tree(100), self.places.fast, 10)

    def memory_fast(self):
        return self.cycles("1 GiB, to tmpfs", lambda: self.programs.memory(1024), self.places.fast, 7)

    def memory_disk(self):
        return self.cycles("1 GiB, to disk", lambda: self.programs.memory(1024), self.places.disk, 7)

    def cycles(self, what, make, place, rounds):
        tools = [self.criu, self.bare, self.default]
        dumps, restores = {each.name: [] for each in tools}, {each.name: [] for each in tools}
        for counts, each in self.alternate(self.rounds(rounds), tools):
            dumped, restored = self.cycle(each, make(), place)
            if counts:
                dumps[each.name].append(dumped * 1000)
                restores[each.name].append(restored * 1000)
        results = []
        for verb, took in ("dump", dumps), ("restore", restores):
            theirs = took[self.criu.name]
            results.append(Result(f"{verb}: {what}", "ms", theirs, took[self.bare.name], SPEED_LIMIT))
            results.append(Result(f"{verb}: {what}, defaults", "ms", theirs, took[self.default.name]))
        return results

    def cycle(self, each, victim, place):
        """Dumps and restores; the seconds of each."""
        with place.directory() as directory:
            try:
                dumped = process.run(each.dump(victim.pid, directory), self.output)
                victim.await_gone()
                restored = process.run(each.restore(directory), self.output)
                victim.await_alive()
            finally:
                victim.kill()
        return dumped, restored

    # -- the freeze -------------------------------------------------------------------------------------------------

    def gap(self):
        tools = [self.criu, tool.Crr(self.bare.binary, "crr", ["--no-sync"])]
        gaps = {each.name: [] for each in tools}
        victim = self.programs.ticker()
        try:
            for counts, each in self.alternate(self.rounds(20), tools):
                with self.places.fast.directory() as directory:
                    victim.gap_us()
                    process.run(each.dump(victim.pid, directory, running=True), self.output)
                    gap = victim.gap_us()
                if counts:
                    gaps[each.name].append(gap / 1000)
        finally:
            victim.kill()
        return [Result("longest gap of a 1 ms ticker", "ms", gaps["criu"], gaps["crr"], SPEED_LIMIT)]

    def hashing(self):
        """CRIU's own measure of the freeze, with sums and without: not with the criu program at all."""
        tools = [self.bare, self.unflushed]
        frozen = {each.name: [] for each in tools}
        for counts, each in self.alternate(self.rounds(10), tools):
            victim = self.programs.memory(256)
            with self.places.fast.directory() as directory:
                try:
                    process.run(each.dump(victim.pid, directory), self.output)
                    victim.await_gone()
                finally:
                    victim.kill()
            if counts:
                frozen[each.name].append(tool.report(self.output)["frozen_us"] / 1000)
        what = "freeze of 256 MiB: with sums / without"
        return [Result(what, "ms", frozen[self.bare.name], frozen[self.unflushed.name], SPEED_LIMIT)]

    # -- the rest ---------------------------------------------------------------------------------------------------

    def check(self):
        took = {"criu": [], "crr": []}
        victim = self.programs.tree(20)
        try:
            for counts, each in self.alternate(self.rounds(20), [self.criu, self.bare]):
                with self.places.fast.directory() as directory:
                    if each is self.criu:
                        words = each.dump(victim.pid, directory, running=True)
                    else:
                        words = each.check(victim.pid)
                    seconds = process.run(words, self.output)
                if counts:
                    took[each.name].append(seconds * 1000)
        finally:
            victim.kill()
        return [Result("crr check --pid / criu dump -R, 20 processes", "ms", took["criu"], took["crr"], CHECK_LIMIT)]

    def start(self):
        took = {"criu": [], "crr": []}
        for counts, each in self.alternate(self.rounds(50), [self.criu, self.bare]):
            seconds = process.run(each.version(), self.output)
            if counts:
                took[each.name].append(seconds * 1000)
        return [Result("--version", "ms", took["criu"], took["crr"], START_LIMIT)]

    def anonymous(self):
        """The most anonymous memory that crr has at any time, by its defaults: sums included."""
        victims = [
            ("20 processes", lambda: self.programs.tree(20)),
            ("2,000 processes", lambda: self.programs.tree(2000)),
            ("4 GiB", lambda: self.programs.memory(4096)),
        ]
        results = []
        for what, make in victims[: 2 if self.quick else 3]:
            victim = make()
            with self.places.roomiest(9 << 30).directory() as directory:
                try:
                    dump = process.peak_memory(self.default.dump(victim.pid, directory), self.output)
                    victim.await_gone()
                    restore = process.peak_memory(self.default.restore(directory), self.output)
                    victim.await_alive()
                finally:
                    victim.kill()
            for verb, (peak, resident) in ("dump", dump), ("restore", restore):
                name = f"anonymous memory of crr: {verb}, {what} (resident, files included: {resident / 2**20:.1f})"
                results.append(Result(name, "MiB", [], [peak / 2**20], ANONYMOUS_LIMIT_MIB, of_crr=True))
        return results

    # -- memory to another host -------------------------------------------------------------------------------------

    def pages(self):
        """CRIU's own measure of the freeze; both ends are on this machine, and share its processors."""
        example = self.example or process.built("pages")
        of = self.criu.binary, example, self.places.scratch
        server = pages.Server(*of)
        relays = [
            (pages.Relay("fresh tmpfs", *of, is_touched=False), FRESH_LIMIT),
            (pages.Relay("touched tmpfs", *of, is_touched=True), TOUCHED_LIMIT),
            (pages.Relay("touched tmpfs, TCP", *of, is_touched=True, is_tcp=True), None),
            (pages.Relay("touched tmpfs, TLS over TCP", *of, is_touched=True, is_tcp=True, has_tls=True), TLS_LIMIT),
        ]
        frozen = {each.name: [] for each in [server, *(relay for relay, _ in relays)]}
        results, victim = [], self.programs.memory(1024)
        try:
            for counts, each in self.alternate(self.rounds(9), [server, *(relay for relay, _ in relays)]):
                with self.places.fast.directory() as directory:
                    took = each.frozen_ms(victim, directory)
                if counts:
                    frozen[each.name].append(took)
            for relay, limit in relays:
                what = f"1 GiB stands still: CRIU's page server / crr, {relay.name}"
                results.append(Result(what, "ms", frozen[server.name], frozen[relay.name], limit))
            for relay, _ in relays:
                peaks = []
                with self.places.fast.directory() as directory:
                    relay.frozen_ms(victim, directory, peaks)
                for end, peak in zip(("relay", "store"), peaks):
                    what = f"anonymous memory of the {end}, 1 GiB, {relay.name}"
                    results.append(Result(what, "MiB", [], [peak / 2**20], RELAY_LIMIT_MIB, of_crr=True))
        finally:
            victim.kill()
        return results

    # -- containers -------------------------------------------------------------------------------------------------

    def containers(self, name, line=container.COUNTER):
        """runc and crr, crr with images of each kind and by its defaults; and the makers of containers."""
        bare = ["--no-sync", "--no-hash"], ["--no-verify"]
        runc = container.Runc(container_runtime(), self.criu.binary, self.places.scratch)
        tools = [
            runc,
            container.Crr(self.bare.binary, runc, "crr", "runtime", *bare),
            container.Crr(self.bare.binary, runc, "crr, --images crr", "crr", *bare),
        ]
        return tools, container.Containers(runc, self.places.scratch, self.programs.programs)

    def container(self):
        tools, containers = self.containers("counter")
        runc = tools[0]
        tools.append(container.Crr(self.bare.binary, runc, "crr, defaults", "runtime"))
        took = {verb: {each.name: [] for each in tools} for verb in ("dump", "restore")}
        with containers:
            for counts, each in self.alternate(self.rounds(15), tools):
                victim = containers.made[0] if containers.made else containers.make()
                with self.places.disk.directory() as directory:
                    victim.start()
                    try:
                        dumped = process.run(each.dump(victim, directory), self.output)
                        victim.await_gone()
                        restored = process.run(each.restore(victim, directory), self.output)
                        victim.await_runs()
                    finally:
                        victim.delete()
                if counts:
                    took["dump"][each.name].append(dumped * 1000)
                    took["restore"][each.name].append(restored * 1000)
        limits = {"dump": (0.45, 0.25, None), "restore": (0.45, 0.20, None)}
        return [
            Result(f"{verb}: a container{each.name[3:]}", "ms", took[verb]["runc"], took[verb][each.name], limit, rival="runc")
            for verb in took for each, limit in zip(tools[1:], limits[verb])
        ]

    def container_gap(self):
        """How long a 1 ms ticker in a container stands still: when it is dumped and runs on, and from dump to restore. The
        whole time from the last tick before to the first after, whatever programs do meanwhile; a restore that waits has been
        begun before, and what it does until the dump begins is not in it."""
        tools, containers = self.containers("ticker")
        bare = ["--no-sync", "--no-hash"], ["--no-verify"]
        waiting = [
            container.Waiting(each.binary, tools[0], f"{each.name}, restore begun before", each.images, *bare)
            for each in tools[1:]
        ]
        gaps = {what: {each.name: [] for each in tools + waiting} for what in ("dump", "both")}
        with containers:
            for counts, each in self.alternate(self.rounds(15), tools + waiting):
                victim = containers.made[0] if containers.made else containers.make(container.TICKER)
                with self.places.disk.directory() as directory:
                    victim.start()
                    try:
                        if each not in waiting:
                            victim.gap_us()
                            process.run(each.dump(victim, directory.with_name("running"), running=True), self.output)
                            running = victim.gap_us()
                        both = self.gap_of_both(each, victim, directory, each in waiting)
                    finally:
                        victim.delete()
                if counts:
                    gaps["both"][each.name].append(both / 1000)
                    if each not in waiting:
                        gaps["dump"][each.name].append(running / 1000)
        named = {
            "dump": ("leave-running dump", tools[1:], (0.45, 0.25)),
            "both": ("dump and restore", tools[1:] + waiting, (0.55, None, None, 0.22)),
        }
        return [
            Result(f"a container stands still, {what}{each.name[3:]}", "ms", gaps[key]["runc"],
                   gaps[key][each.name], limit, rival="runc")
            for key, (what, those, limits) in named.items() for each, limit in zip(those, limits)
        ]

    def gap_of_both(self, each, victim, directory, is_waiting):
        """The longest gap over a dump and a restore."""
        if not is_waiting:
            victim.gap_us()
            process.run(each.dump(victim, directory), self.output)
            process.run(each.restore(victim, directory), self.output)
            return victim.gap_us()
        with process.beside(each.wait(victim, directory), self.output.with_suffix(".restore")):
            victim.gap_us()
            process.run(each.dump(victim, directory), self.output)
        return victim.gap_us()

    def container_many(self):
        """20 containers: crr by one command, runc in a shell loop, both two at a time."""
        tools, containers = self.containers("counter")
        took = {verb: {each.name: [] for each in tools} for verb in ("dump", "restore")}
        jobs = ["--jobs", 2]
        with containers:
            victims = [containers.make() for _ in range(20)]
            for counts, each in self.alternate(self.rounds(5), tools):
                with self.places.disk.directory() as directory:
                    for victim in victims:
                        victim.start()
                    is_runc = each is tools[0]
                    if is_runc:
                        directory.mkdir()
                    try:
                        words = container.shell_loop(each, "dump", victims, directory) if is_runc \
                            else each.dump_all(victims, directory, jobs)
                        dumped = process.run(words, self.output)
                        for victim in victims:
                            victim.await_gone()
                        words = container.shell_loop(each, "restore", victims, directory) if is_runc \
                            else each.restore_all(victims, directory, jobs)
                        restored = process.run(words, self.output)
                        for victim in victims:
                            victim.await_runs()
                    finally:
                        for victim in victims:
                            victim.delete()
                if counts:
                    took["dump"][each.name].append(dumped * 1000)
                    took["restore"][each.name].append(restored * 1000)
        limits = {"dump": (None, 0.35), "restore": (None, 0.25)}
        return [
            Result(f"{verb}: 20 containers{each.name[3:]}", "ms", took[verb]["runc"], took[verb][each.name], limit, rival="runc")
            for verb in took for each, limit in zip(tools[1:], limits[verb])
        ]


def container_runtime():
    """The runc that is compared with."""
    for place in "/opt/crr/runtimes/runc-1.1/bin/runc", shutil.which("runc"):
        if place and os.path.exists(place):
            return place
    raise process.Failed("there is no runc: tools/setup-runtimes")


# In this order: those of containers come last, as they put a tmpfs over /run for the rest of the run.
MEASUREMENTS = {
    "fork": Bench.fork,
    "tasks": Bench.tasks,
    "memory-tmpfs": Bench.memory_fast,
    "memory-disk": Bench.memory_disk,
    "gap": Bench.gap,
    "hashing": Bench.hashing,
    "check": Bench.check,
    "start": Bench.start,
    "anonymous": Bench.anonymous,
    "pages": Bench.pages,
    "container": Bench.container,
    "container-gap": Bench.container_gap,
    "container-many": Bench.container_many,
}
