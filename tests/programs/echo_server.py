#!/usr/bin/env python3
"""echo_server.py ADDRESS PORT: sends back what arrives, on any number of TCP connections and one UDP socket.

A client that ends its sending direction only is told `half N;` (N bytes came from it), and then sent a dot every 20 ms until
it goes. Prints `ready` when it listens. Works with IPv4 and IPv6 addresses.
"""
import selectors
import socket
import sys

address, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in address else socket.AF_INET


class Connection:
    def __init__(self, sock):
        self.sock, self.pending, self.received, self.half = sock, bytearray(), 0, False

    def flush(self):
        """Sends what waits; says in which directions the socket is of interest."""
        while self.pending:
            try:
                sent = self.sock.send(self.pending)
            except BlockingIOError:
                break
            del self.pending[:sent]
        reading = 0 if self.half or len(self.pending) > 1 << 20 else selectors.EVENT_READ
        return reading | (selectors.EVENT_WRITE if self.pending else 0)


selector = selectors.DefaultSelector()
halves = set()


def watch(connection):
    events = connection.flush()
    try:
        known = selector.get_key(connection.sock)
    except KeyError:
        known = None
    if known and not events:
        selector.unregister(connection.sock)
    elif known and known.events != events:
        selector.modify(connection.sock, events, connection)
    elif not known and events:
        selector.register(connection.sock, events, connection)


def end(connection):
    try:
        selector.unregister(connection.sock)
    except KeyError:
        pass
    halves.discard(connection)
    connection.sock.close()


def serve(connection, readable):
    if readable:
        data = connection.sock.recv(1 << 16)
        connection.received += len(data)
        connection.pending += data
        if not data:
            connection.half = True
            halves.add(connection)
            connection.pending += b"half %d;" % connection.received
    watch(connection)


listener = socket.socket(family, socket.SOCK_STREAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((address, port))
listener.listen(4096)
listener.setblocking(False)
datagrams = socket.socket(family, socket.SOCK_DGRAM)
datagrams.bind((address, port))
datagrams.setblocking(False)
selector.register(listener, selectors.EVENT_READ)
selector.register(datagrams, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, events in selector.select(0.02 if halves else None):
        try:
            if key.fileobj is listener:
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                watch(Connection(sock))
            elif key.fileobj is datagrams:
                data, peer = datagrams.recvfrom(1 << 16)
                datagrams.sendto(data, peer)
            else:
                serve(key.data, events & selectors.EVENT_READ)
        except BlockingIOError:
            pass
        except OSError as error:
            print("lost a connection: %s" % error, flush=True)
            if key.data:
                end(key.data)
    for connection in list(halves):
        try:
            connection.pending += b"."
            watch(connection)
        except OSError:
            end(connection)
