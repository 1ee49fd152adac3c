"""A Python program with threads, a child, a generator in mid-run and a temporary database in memory.

Says `ready`, then `tick N`; SIGUSR1 makes it look at its own state and print `ok` or `BAD what`.
"""

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading


def say(text):
    print(text, flush=True)


def squares():
    number = 0
    while True:
        yield number * number
        number += 1


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
numbers = random.Random(42)
table = {n: numbers.random() for n in range(20000)}
table_sum = hashlib.sha256(repr(sorted(table.items())).encode()).hexdigest()
database = sqlite3.connect(":memory:", check_same_thread=False)
database.execute("create table t (n integer primary key, text text)")
database.executemany("insert into t values (?, ?)", [(n, str(n) * 5) for n in range(1000)])
generator = squares()
drawn = 0
counts = [0] * 4
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def count(place):
    pause = threading.Event()
    while True:
        counts[place] += 1
        pause.wait(0.005)


for place in range(len(counts)):
    threading.Thread(target=count, args=(place,), daemon=True).start()


def problem():
    if hashlib.sha256(repr(sorted(table.items())).encode()).hexdigest() != table_sum:
        return "the table changed"
    if database.execute("select count(*), sum(length(text)) from t").fetchone() != (1000, 5 * 2890):
        return "the database changed"
    before = list(counts)
    pause = threading.Event()
    for _ in range(500):
        pause.wait(0.01)
        if all(now > then for now, then in zip(counts, before)):
            break
    else:
        return "a thread does not run"
    child.stdin.write(b"line\n")
    child.stdin.flush()
    if child.stdout.readline() != b"line\n":
        return "the child does not answer"
    return None


say("ready")
tick = 0
while True:
    received = signal.sigtimedwait({signal.SIGUSR1, signal.SIGTERM}, 0.02)
    if received and received.si_signo == signal.SIGTERM:
        child.stdin.close()
        child.wait()
        say("end")
        sys.exit(7)
    if received:
        wrong = problem()
        say("BAD " + wrong if wrong else "ok")
    if next(generator) != drawn * drawn:
        say("BAD the generator lost its place")
    drawn += 1
    tick += 1
    say(f"tick {tick}")
