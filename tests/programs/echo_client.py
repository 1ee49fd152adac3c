#!/usr/bin/env python3
"""echo_client.py ADDRESS PORT [busy=N] [large=N] [idle=N] [half=N] [datagrams=N] [bytes=N]: connections to an echo server.

  busy       one numbered message of `bytes` (default 64) in flight on each, all the time (default 4)
  large      the same with messages of 100,000 bytes, so that a freeze meets full queues
  idle       one message at the start, the next at the end
  half       end their sending direction at once, and must be told so and sent dots from then on
  datagrams  UDP sockets; a message that is not answered in 100 ms is sent again

Never reconnects; every byte is checked. What ends or sends a wrong byte is lost. Prints a line of JSON every 50 ms:

  connected  connections made        messages   answered, in all
  least      answered on the busy connection (or by the dots, on the half-closed one, or on the UDP socket) with the fewest
  lost       connections lost        errors     why
  gap_ms     the longest that one message took, those under way included, since SIGUSR1 came last, or the start
  done       the last line: SIGTERM came, and the idle ones were asked for the last time

Exit status 0 if nothing was lost.
"""
import json
import selectors
import signal
import socket
import sys
import time

address, port = sys.argv[1], int(sys.argv[2])
wanted = {"busy": 4, "large": 0, "idle": 0, "half": 0, "datagrams": 0, "bytes": 64}
for word in sys.argv[3:]:
    name, _, number = word.partition("=")
    if name not in wanted:
        sys.exit("echo_client.py: what is %s?" % name)
    wanted[name] = int(number)
LARGE, AGAIN_S, EVERY_S, LIMIT_S = 100_000, 0.1, 0.05, 60
selector = selectors.DefaultSelector()


class Lost(Exception):
    pass


class Connection:
    def __init__(self, kind, number):
        self.kind, self.number, self.messages, self.gap, self.lost = kind, number, 0, 0.0, None
        self.size = LARGE if kind == "large" else wanted["bytes"]
        self.since, self.expected, self.rest = None, b"", b""
        what = socket.SOCK_DGRAM if kind == "datagrams" else socket.SOCK_STREAM
        self.sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, what)
        self.sock.settimeout(LIMIT_S)
        self.sock.connect((address, port))
        if what == socket.SOCK_STREAM:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        selector.register(self.sock, selectors.EVENT_READ, self)
        if kind == "half":
            self.sock.shutdown(socket.SHUT_WR)
            self.expected, self.since = b"half 0;", time.monotonic()
        else:
            self.ask()

    def ask(self):
        head = b"%s %d %d;" % (self.kind.encode(), self.number, self.messages)
        self.expected = (head * (self.size // len(head) + 1))[: self.size]
        self.rest, self.since = self.expected, time.monotonic()
        self.send()

    def send(self):
        while self.rest:
            try:
                sent = self.sock.send(self.rest)
            except BlockingIOError:
                break
            self.rest = self.rest[sent:]
        selector.modify(self.sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if self.rest else 0), self)

    def receive(self):
        data = self.sock.recv(1 << 18)
        if self.kind == "datagrams":
            # An answer to what was sent twice comes twice.
            if data == self.expected:
                self.answered()
                self.ask()
            return
        if not data:
            raise Lost("the server ended the connection")
        if self.kind == "half" and not self.expected:
            if data.strip(b"."):
                raise Lost("no dots but %r" % data[:40])
            self.answered()
            return
        part, more = data[: len(self.expected)], data[len(self.expected) :]
        if part != self.expected[: len(part)] or (more and self.kind != "half"):
            raise Lost("wrong bytes: %r instead of %r" % (data[:40], self.expected[:40]))
        self.expected = self.expected[len(part) :]
        if not self.expected:
            self.answered()
            if self.kind in ("busy", "large") and not ending:
                self.ask()

    def answered(self):
        self.gap = max(self.gap, time.monotonic() - self.since)
        self.messages += 1
        # A dot is awaited all the time; that the first 20 ms of it are no delay does not matter.
        self.since = time.monotonic() if self.kind == "half" else None

    def longest(self):
        return max(self.gap, time.monotonic() - self.since if self.since else 0.0)

    def lose(self, why):
        self.lost = why
        selector.unregister(self.sock)
        self.sock.close()


def report(done=False):
    counted = [c.messages for c in connections if c.kind != "idle"]
    line = {
        "connected": len(connections),
        "messages": sum(c.messages for c in connections),
        "least": min(counted, default=0),
        "lost": sum(c.lost is not None for c in connections),
        "errors": sorted({c.lost for c in connections if c.lost}),
        "gap_ms": round(max((c.longest() for c in connections if not c.lost), default=0.0) * 1000, 1),
        "done": done,
    }
    print(json.dumps(line), flush=True)
    return line


def step(limit):
    for key, events in selector.select(max(0.0, limit)):
        connection = key.data
        try:
            if events & selectors.EVENT_READ:
                connection.receive()
            if events & selectors.EVENT_WRITE and connection.rest:
                connection.send()
        except BlockingIOError:
            pass
        except (OSError, Lost) as error:
            if connection.kind == "datagrams":
                continue  # nobody was there; it is sent again
            connection.lose("%s: %s: %s" % (connection.kind, type(error).__name__, error))
    for connection in connections:
        waiting = connection.kind == "datagrams" and connection.since
        if waiting and time.monotonic() - connection.since > AGAIN_S and not connection.lost:
            try:
                connection.sock.send(connection.expected)
            except OSError:
                pass


ending, connections = False, []


def forget(*_):
    for connection in connections:
        connection.gap = 0.0


def finish(*_):
    global ending
    ending = True


signal.signal(signal.SIGUSR1, forget)
signal.signal(signal.SIGTERM, finish)
for kind in ("busy", "large", "idle", "half", "datagrams"):
    for number in range(wanted[kind]):
        connections.append(Connection(kind, number))
told = 0.0
while not ending:
    step(EVERY_S / 2)
    if time.monotonic() - told >= EVERY_S:
        told = time.monotonic()
        report()
deadline = time.monotonic() + LIMIT_S
asked = [c for c in connections if c.kind == "idle" and not c.lost]
for connection in asked:
    if connection.since is None:
        connection.ask()
open_ones = [c for c in connections if c.kind in ("busy", "large", "idle")]
while any(c.since and not c.lost for c in open_ones) and time.monotonic() < deadline:
    step(EVERY_S)
for connection in open_ones:
    if connection.since and not connection.lost:
        connection.lose("%s: no answer in the end" % connection.kind)
sys.exit(1 if report(True)["lost"] else 0)
