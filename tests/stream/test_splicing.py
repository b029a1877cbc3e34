"""A pipe moves bytes between two sockets, or does not exist."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.tcp import Connection
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.test_transport import FakeProtocol, IdleReactor, tcp_pair
from twsock.stream.splicing import PIPE_SIZE, DirectReader, Pipe


def open_descriptors() -> int:
    """Count the open file descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class _PipeTests(SynchronousTestCase):
    """A pipe between two connections."""

    def setUp(self) -> None:
        self.source, self.sender = tcp_pair()
        self.target, self.receiver = tcp_pair()
        for each in (self.source, self.sender, self.target, self.receiver):
            each.setblocking(False)
            self.addCleanup(each.close)
        opened = Pipe.open()
        if opened is None:
            self.skipTest("this system has no splice, or allows no pipe of 1 MiB")
        self.pipe = opened
        self.addCleanup(self.pipe.close)


class PipeTests(_PipeTests):
    """Bytes in and out."""

    def test_bytes_come_out_as_they_went_in(self) -> None:
        """The pipe counts those that it holds."""
        self.sender.send(b"some bytes")
        self.assertEqual(self.pipe.fill(self.source.fileno()), 10)
        self.assertEqual(self.pipe.held, 10)
        self.assertEqual(self.pipe.empty_into(self.target.fileno()), 10)
        self.assertEqual(self.pipe.held, 0)
        self.assertEqual(self.receiver.recv(100), b"some bytes")

    def test_nothing_to_read_is_not_an_end(self) -> None:
        """It raises; at the end of the stream, 0 bytes are moved."""
        self.assertRaises(BlockingIOError, self.pipe.fill, self.source.fileno())
        self.sender.shutdown(socket.SHUT_WR)
        self.assertEqual(self.pipe.fill(self.source.fileno()), 0)

    def test_a_target_without_room_takes_nothing(self) -> None:
        """The bytes stay in the pipe, and can be read there."""
        self.target.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        while True:
            try:
                self.target.send(bytes(4096))
            except BlockingIOError:
                break
        self.sender.send(b"some bytes")
        self.pipe.fill(self.source.fileno())
        self.assertEqual(self.pipe.empty_into(self.target.fileno()), 0)
        self.assertEqual((self.pipe.take(4), self.pipe.take(100)), (b"some", b" bytes"))
        self.assertEqual((self.pipe.take(100), self.pipe.held), (b"", 0))

    def test_a_broken_target_raises(self) -> None:
        """The bytes stay in the pipe."""
        self.target.shutdown(socket.SHUT_WR)
        self.sender.send(b"some bytes")
        self.pipe.fill(self.source.fileno())
        self.assertRaises(BrokenPipeError, self.pipe.empty_into, self.target.fileno())
        self.assertEqual(self.pipe.held, 10)

    def test_a_pipe_holds_no_more_than_its_size(self) -> None:
        """However much the source has."""
        total = 0
        for _ in range(64):
            try:
                self.sender.send(bytes(256 * 1024))
                total += self.pipe.fill(self.source.fileno())
            except BlockingIOError:
                break
        self.assertLessEqual(total, PIPE_SIZE)

    def test_closing_twice_is_harmless(self) -> None:
        """Both descriptors are closed once."""
        before = open_descriptors()
        self.pipe.close()
        self.pipe.close()
        self.assertEqual(open_descriptors(), before - 2)


class AbsentPipeTests(SynchronousTestCase):
    """Systems that have no such pipe, and limits: no pipe, no error, and no descriptor left."""

    def lose(self, owner: Any, name: str) -> None:
        """Remove a name of the standard library for this test."""
        if hasattr(owner, name):
            self.addCleanup(setattr, owner, name, getattr(owner, name))
            delattr(owner, name)

    def assert_none(self) -> None:
        before = open_descriptors()
        self.assertIsNone(Pipe.open())
        self.assertEqual(open_descriptors(), before)

    def test_without_splice_there_is_no_pipe(self) -> None:
        """As on every system but Linux."""
        self.lose(os, "splice")
        self.assert_none()

    def test_without_a_size_there_is_no_pipe(self) -> None:
        """A pipe of 64 KiB saves nothing."""
        self.lose(fcntl, "F_SETPIPE_SZ")
        self.assert_none()

    def test_a_refused_size_closes_the_pipe(self) -> None:
        """The user has too much memory in pipes."""

        def refuse(*_arguments: Any) -> int:
            raise PermissionError

        self.patch(fcntl, "fcntl", refuse)
        self.assert_none()

    def test_a_smaller_size_closes_the_pipe(self) -> None:
        """The kernel rounds up, and never down; others may."""
        self.patch(fcntl, "fcntl", lambda *_: 65536)
        self.assert_none()

    def test_too_many_open_files_are_no_error(self) -> None:
        """The relay copies."""

        def refuse(_flags: int) -> tuple[int, int]:
            raise OSError(24, "Too many open files")

        self.patch(os, "pipe2", refuse)
        self.assert_none()


class DirectReaderTests(SynchronousTestCase):
    """A function reads in the place of the transport."""

    def test_the_transport_reads_again_when_it_is_stopped(self) -> None:
        """Stopping twice is harmless."""
        near, far = tcp_pair()
        self.addCleanup(far.close)
        self.addCleanup(near.close)
        transport: Any = Connection(near, FakeProtocol(), IdleReactor())  # type: ignore[arg-type]
        reads: list[str] = []
        reader = DirectReader(transport, lambda: reads.append("read"))
        self.assertEqual(reader.fileno(), near.fileno())
        transport.doRead()
        reader.stop()
        reader.stop()
        self.assertEqual(reads, ["read"])
        self.assertEqual(transport.doRead.__func__, Connection.doRead)
