"""A peer that ended its output and is gone since is noticed."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.tcp import Connection
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.test_transport import FakeProtocol, IdleReactor, tcp_pair
from twsock.stream.hangup import HangUpWatch


class HangUpWatchTests(SynchronousTestCase):
    """A `HangUpWatch` looks at its socket at growing intervals."""

    def watch(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self.near, self.far = pair
        for one in pair:
            self.addCleanup(one.close)
        self.reactor = IdleReactor()
        descriptor: Any = Connection(self.near, FakeProtocol(), self.reactor)  # type: ignore[arg-type]
        self.gone: list[float] = []
        self.hang_up_watch = HangUpWatch(
            self.reactor, descriptor, lambda: self.gone.append(self.reactor.seconds())
        )
        self.far.shutdown(socket.SHUT_WR)

    def test_a_peer_that_only_ended_its_output_is_not_reported(self) -> None:
        """However long that peer waits for its answer."""
        self.watch(tcp_pair())
        self.reactor.pump([0.5] * 200)
        self.assertEqual(self.gone, [])
        self.near.sendall(b"answer")
        self.assertEqual(self.far.recv(10), b"answer")

    def test_a_reset_is_reported_once(self) -> None:
        """The next look reports it."""
        self.watch(tcp_pair())
        self.reactor.pump([0.5] * 3)
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()
        self.reactor.pump([0.5] * 30)
        self.assertEqual(self.gone, [3.5])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_closed_unix_socket_is_reported(self) -> None:
        """Its peer can't read an answer any more."""
        self.watch(socket.socketpair())
        self.reactor.pump([0.5])
        self.assertEqual(self.gone, [])
        self.far.close()
        self.reactor.pump([0.5] * 30)
        self.assertEqual(self.gone, [1.5])

    def test_intervals_grow_to_eight_seconds(self) -> None:
        """Two looks are at most eight seconds apart."""
        self.watch(tcp_pair())
        times: list[float] = []
        for _ in range(8):
            [call] = self.reactor.getDelayedCalls()
            times.append(call.getTime() - self.reactor.seconds())
            self.reactor.advance(times[-1])
        self.assertEqual(times, [0.5, 1, 2, 4, 8, 8, 8, 8])

    def test_a_watch_can_be_stopped(self) -> None:
        """Stopping twice is harmless."""
        self.watch(tcp_pair())
        self.hang_up_watch.stop()
        self.hang_up_watch.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
