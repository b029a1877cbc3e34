"""
Random messages, random cuts, random moments of moving: every byte arrives once and in order.

The buffers of the kernel are small: connections move with parts of messages and waiting answers.
Controls lose these bytes on purpose, and the tests notice it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests import THOROUGH
from tests.stream.test_transport import IdleReactor
from twsock.handover import DetachedConnection
from twsock.protocols import FrameEcho, FrameEchoFactory, LineEcho, LineEchoFactory
from twsock.stream.detaching import name_of
from twsock.stream.moving_record import MovingRecord, encode_record
from twsock.stream.resuming import take_out
from twsock.wire import encode_frame
from twsock.wire.lines import encode_line
from twsock.wire.proxy_header import ProxyHeader

#: What happens to a connection between its two owners.
Between = Callable[[DetachedConnection], DetachedConnection]

#: More steps than a connection needs that is served.
MOST_STEPS = 4_000


#: The header of a connection behind a proxy.
HEADER = ProxyHeader(("192.0.2.1", 1000), ("198.51.100.2", 2000))


class Journey:
    """
    One connection that moves again and again while messages are under way.

    Lines come back with CRLF, as they were sent. Every third connection is behind a proxy: its
    bytes are sent through Twisted's queue.

    :param seed: decides everything.
    """

    def __init__(self, seed: int, between: Between) -> None:
        self.random = Random(seed)
        self.between = between
        self.reactor: Any = IdleReactor()
        has_lines = seed % 2
        make = LineEchoFactory if has_lines else FrameEchoFactory
        self.factories: list[Any] = [make(self.reactor) for _ in range(2)]
        here, self.peer = socket.socketpair()
        for each in (here, self.peer):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024)
        self.peer.setblocking(False)
        encode = encode_line if has_lines else encode_frame
        sizes = [self.random.choice((0, 5, 700, 9_000, 40_000)) for _ in range(60)]
        self.asked = b"".join(
            encode(self.random.randbytes(size).replace(b"\n", b"")) for size in sizes
        )
        self.sent = 0
        self.answered = bytearray()
        kind = name_of(LineEcho if has_lines else FrameEcho)
        record = MovingRecord(kind, header=None if seed % 3 else HEADER)
        self.server = self.factories[0].resume(DetachedConnection(here), encode_record(record))
        self.unread = self.unsent = 0

    def travel(self) -> bytes:
        """Return what the peer has received at the end."""
        steps = (self.send, self.receive, self.read, self.write, self.move)
        try:
            for _ in range(MOST_STEPS):
                self.random.choice(steps)()
                if len(self.answered) >= len(self.asked) or not self.server.is_open:
                    break
        except OSError:  # Reset, since the server met what is no message.
            pass
        finally:
            self.end()
        return bytes(self.answered)

    def send(self) -> None:
        """Send a piece of the messages."""
        end = self.sent + self.random.randrange(1, 20_000)
        try:
            self.sent += self.peer.send(self.asked[self.sent : end])
        except BlockingIOError:
            return

    def receive(self) -> None:
        """Receive a piece of the answers."""
        try:
            self.answered += self.peer.recv(self.random.randrange(1, 20_000))
        except BlockingIOError:
            return

    def read(self) -> None:
        """Let the server read."""
        for reader in list(self.reactor.readers):
            reader.doRead()

    def write(self) -> None:
        """Let the server write what waits."""
        for writer in list(self.reactor.writers):
            writer.doWrite()

    def move(self) -> None:
        """Move the connection to a server, maybe that from which it comes."""
        detached, record = take_out(self.server)
        self.unread += bool(detached.unread)
        self.unsent += bool(detached.unsent)
        self.server = self.random.choice(self.factories).resume(self.between(detached), record)

    def end(self) -> None:
        """Close both ends."""
        self.peer.close()
        self.server.abort()
        self.reactor.advance(0)


class JourneyTests(SynchronousTestCase):
    """A connection that moves."""

    def travel(self, between: Between) -> tuple[int, int, int]:
        """Return in how many of the journeys all bytes arrived, and how often bytes moved."""
        whole = unread = unsent = 0
        for seed in range(30 if THOROUGH else 6):
            journey = Journey(seed, between)
            whole += journey.travel() == journey.asked
            unread += journey.unread
            unsent += journey.unsent
        return whole, unread, unsent

    def test_every_byte_arrives_once_and_in_order(self) -> None:
        """With parts of messages, and with answers that wait, at many of the moves."""
        whole, unread, unsent = self.travel(lambda detached: detached)
        self.assertEqual(whole, 30 if THOROUGH else 6)
        self.assertGreater(unread, 10 * whole)
        self.assertGreater(unsent, 10 * whole)

    def test_a_move_that_loses_received_bytes_is_noticed(self) -> None:
        """It is a control of the test above."""
        self.assertEqual(self.travel(lambda detached: replace(detached, unread=b""))[0], 0)

    def test_a_move_that_loses_written_bytes_is_noticed(self) -> None:
        """It is a control, too."""
        self.assertEqual(self.travel(lambda detached: replace(detached, unsent=b""))[0], 0)
