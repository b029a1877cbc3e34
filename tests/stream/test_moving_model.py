"""
Random frames, random cuts, random moments of moving: every byte arrives once and in order.

The kernel's buffers are small, so connections move with partial frames and with answers that wait.
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
from twsock.protocols import FrameEchoFactory
from twsock.stream.resuming import take_out
from twsock.wire import encode_frame

#: What happens to a connection between its two owners.
Between = Callable[[DetachedConnection], DetachedConnection]

#: More steps than a connection needs that is served.
MOST_STEPS = 4_000


class Journey:
    """
    One connection that moves again and again while frames are under way.

    :param seed: decides everything.
    """

    def __init__(self, seed: int, between: Between) -> None:
        self.random = Random(seed)
        self.between = between
        self.reactor: Any = IdleReactor()
        self.factories = [FrameEchoFactory(self.reactor) for _ in range(2)]
        here, self.peer = socket.socketpair()
        for each in (here, self.peer):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024)
        self.peer.setblocking(False)
        sizes = [self.random.choice((0, 5, 700, 9_000, 40_000)) for _ in range(60)]
        self.asked = b"".join(encode_frame(self.random.randbytes(size)) for size in sizes)
        self.sent = 0
        self.answered = bytearray()
        self.server = self.factories[0].resume(DetachedConnection(here))
        self.unread = self.unsent = 0

    def travel(self) -> bytes:
        """Return what the peer has received at the end."""
        steps = (self.send, self.receive, self.read, self.write, self.move)
        try:
            for _ in range(MOST_STEPS):
                self.random.choice(steps)()
                if len(self.answered) >= len(self.asked) or not self.server.is_open:
                    break
        except OSError:  # Reset, since the server met what is no frame.
            pass
        finally:
            self.end()
        return bytes(self.answered)

    def send(self) -> None:
        """Send a piece of the frames."""
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
        for seed in range(60 if THOROUGH else 5):
            journey = Journey(seed, between)
            whole += journey.travel() == journey.asked
            unread += journey.unread
            unsent += journey.unsent
        return whole, unread, unsent

    def test_every_byte_arrives_once_and_in_order(self) -> None:
        """With partial frames, and with answers that wait, at many of the moves."""
        whole, unread, unsent = self.travel(lambda detached: detached)
        self.assertEqual(whole, 60 if THOROUGH else 5)
        self.assertGreater(unread, 10 * whole)
        self.assertGreater(unsent, 10 * whole)

    def test_a_move_that_loses_received_bytes_is_noticed(self) -> None:
        """It is a control of the test above."""
        self.assertEqual(self.travel(lambda detached: replace(detached, unread=b""))[0], 0)

    def test_a_move_that_loses_written_bytes_is_noticed(self) -> None:
        """It is a control, too."""
        self.assertEqual(self.travel(lambda detached: replace(detached, unsent=b""))[0], 0)
