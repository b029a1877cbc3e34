"""Files that are sent: arguments, and the calls of the kernel; tests/loopback has the rest."""

from __future__ import annotations

import io
import os
import socket
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.sockets.stream.connected import InMemory, OnKernel
from twsock import BrokenError, ClosedError, LocalProtocolError, StreamSocket
from twsock.sockets.stream.files import FileTooShortError


class SendFileTests(SynchronousTestCase):
    """A file of ten bytes."""

    @override
    def setUp(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(b"0123456789")
        self.file = path.open("rb")
        self.addCleanup(self.file.close)
        self.connected = InMemory()
        self.output = self.connected.output

    def test_numbers_out_of_bounds_are_refused_at_once(self) -> None:
        """Negative ones, and what is no number."""
        for arguments in ((-1,), (0, -1)):
            self.assertRaises(ValueError, self.output.send_file, self.file, *arguments)
        wrong: Any = "1"
        for arguments in ((wrong,), (0, wrong)):
            self.assertRaises(TypeError, self.output.send_file, self.file, *arguments)

    def test_only_a_regular_file_can_be_sent(self) -> None:
        """No socket, no folder, and no bytes in memory."""
        near, far = socket.socketpair()
        with near, far:
            self.assertRaises(ValueError, self.output.send_file, near)
        memory: Any = io.BytesIO(b"x")
        self.assertRaises(OSError, self.output.send_file, memory)

    def test_a_stream_that_is_not_open_refuses(self) -> None:
        """As it refuses a write; no descriptor is left open."""
        unconnected = StreamSocket(self.connected.clock).output_stream
        self.failureResultOf(unconnected.send_file(self.file), LocalProtocolError)
        self.connected.socket.abort()
        self.failureResultOf(self.output.send_file(self.file), ClosedError)

    def test_a_file_on_a_transport_in_memory_is_read(self) -> None:
        """From the offset on, whatever the position of the file."""
        self.file.seek(3)
        self.assertEqual(self.successResultOf(self.output.send_file(self.file, 8)), 2)
        self.assertEqual((self.connected.sent(), self.file.tell()), (b"89", 3))

    def test_a_large_file_takes_several_turns(self) -> None:
        """One MiB is sent in each."""
        path = Path(self.mktemp())
        path.write_bytes(bytes(1024 * 1024 + 1))
        with path.open("rb") as file:
            sending = self.output.send_file(file)
        self.assertEqual(len(self.connected.sent()), 1024 * 1024)
        self.assertNoResult(sending)
        self.connected.clock.advance(0)
        self.assertEqual(len(self.connected.sent()), 1)
        self.successResultOf(sending)

    def test_an_error_of_the_disk_aborts(self) -> None:
        """Its cause is the system's error."""

        def fail(*_arguments: Any) -> bytes:
            raise OSError(5, "Input/output error")

        self.patch(os, "pread", fail)
        sending = self.output.send_file(self.file)
        self.connected.lose()
        error: Any = self.failureResultOf(sending).value
        self.assertIsInstance(error.__cause__, OSError)
        self.assertTrue(self.connected.socket.was_lost)

    def test_the_error_of_a_short_file_has_both_numbers(self) -> None:
        """In its message and as attributes, also in a copy."""
        error = FileTooShortError(10, 4).copy()
        self.assertEqual((error.wanted, error.available), (10, 4))
        self.assertEqual(str(error), "the file has 4 bytes to send, not 10")


class DirectTests(SendFileTests):
    """The same file on a socket of the kernel."""

    @override
    def setUp(self) -> None:
        super().setUp()
        self.kernel = OnKernel()
        self.addCleanup(self.kernel.close)

    def test_the_kernel_sends_the_file(self) -> None:
        """No bytes pass through this process: the socket's own send is not called."""
        self.assertEqual(self.successResultOf(self.kernel.output.send_file(self.file)), 10)
        self.assertEqual(self.kernel.receive(), b"0123456789")
        self.assertEqual(self.kernel.kernel.sends, 0)

    def test_bytes_of_the_application_stay_in_front(self) -> None:
        """Those that it has written to the transport itself, and that are still queued there."""
        self.kernel.descriptor.write(b"own ")
        sending = self.kernel.output.send_file(self.file)
        self.assertEqual(self.kernel.receive(), b"own 0123456789")
        self.successResultOf(sending)

    def test_a_broken_connection_fails_the_file(self) -> None:
        """The error of sendfile is that of the connection, not of the file."""
        self.kernel.kernel.shutdown(socket.SHUT_WR)
        error = self.failureResultOf(self.kernel.output.send_file(self.file), BrokenError).value
        self.assertIsInstance(error.__cause__, BrokenPipeError)
