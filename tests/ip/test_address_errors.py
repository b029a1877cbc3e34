"""Failures of addresses have a status and a line that says what to do."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint
from twisted.internet.error import CannotListenError, ConnectBindError, ConnectError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from twsock import StreamSocket, StreamSocketListener
from twsock.errors import SocketError, SocketErrorStatus
from twsock.ip.address_errors import EndpointError, connecting_error, listening_error


def refused(number: int, where: Any) -> CannotListenError:
    """Fail as a port of Twisted does."""
    return CannotListenError("", where, OSError(number, os.strerror(number)))


class ListeningErrorTests(SynchronousTestCase):
    """A local address."""

    def test_a_privileged_port_says_who_may(self) -> None:
        """The HRESULT is the one of the system's error."""
        error = listening_error(refused(errno.EACCES, 80))
        self.assertIs(error.status, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS)
        self.assertEqual(error.hresult, 0x8007_271D)
        self.assertEqual(
            str(error), "Permission denied: port 80 is for root, or takes CAP_NET_BIND_SERVICE"
        )

    def test_a_path_in_a_missing_folder_says_so(self) -> None:
        """Also in a Failure."""
        error = listening_error(Failure(refused(errno.ENOENT, b"/missing/x")))
        self.assertIs(error.status, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS)
        self.assertEqual(str(error), "No such file or directory: its folder is missing")

    def test_other_paths_that_cannot_be_used_have_the_status(self) -> None:
        """However the error comes."""
        for number in (errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EPERM):
            for error in (refused(number, b"/x"), OSError(number, "no")):
                self.assertIs(
                    listening_error(error).status,
                    SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS,
                )

    def test_an_address_of_one_link_needs_its_interface(self) -> None:
        """Any other invalid argument is left as it is."""
        invalid = OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        error = listening_error(CannotListenError("fe80::1", 80, invalid))
        self.assertIs(error.status, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS)
        self.assertIn("as in fe80::1%eth0", str(error))
        for interface in ("fe80::1%lo", "fd00::1", "", "/run/echo.sock"):
            error = listening_error(CannotListenError(interface, 80, invalid))
            self.assertIs(error.status, SocketErrorStatus.UNKNOWN)

    def test_words_of_the_caller_stay(self) -> None:
        """It knows what was tried."""
        error = listening_error(refused(errno.EACCES, 80), "cannot bind it")
        self.assertEqual(str(error), "cannot bind it")

    def test_what_has_a_status_keeps_it(self) -> None:
        """And what is no error of an address has none."""
        taken = listening_error(refused(errno.EADDRINUSE, 80))
        self.assertIs(taken.status, SocketErrorStatus.ADDRESS_ALREADY_IN_USE)
        self.assertIs(listening_error(RuntimeError("x")).status, SocketErrorStatus.UNKNOWN)


class ConnectingErrorTests(SynchronousTestCase):
    """A remote address."""

    def test_paths_and_rights_have_a_status(self) -> None:
        """As Twisted tells them, and as the system does."""
        for number, status in (
            (errno.ENOENT, SocketErrorStatus.HOST_NOT_FOUND),
            (errno.EACCES, SocketErrorStatus.UNREACHABLE_HOST),
            (errno.ECONNREFUSED, SocketErrorStatus.CONNECTION_REFUSED),
            (errno.EDOM, SocketErrorStatus.UNKNOWN),
        ):
            for error in (ConnectError(number, "no"), OSError(number, "no")):
                self.assertIs(connecting_error(error).status, status)

    def test_an_address_of_one_link_needs_its_interface(self) -> None:
        """The line says so, since connect(2) calls nothing else an invalid argument."""
        for kind, status in (
            (ConnectError, SocketErrorStatus.UNREACHABLE_HOST),
            (ConnectBindError, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS),
        ):
            error = connecting_error(kind(errno.EINVAL, "Invalid argument"))
            self.assertIs(error.status, status)
            self.assertIn("as in fe80::1%eth0", str(error))


class EndpointErrorTests(SynchronousTestCase):
    """A string that names no endpoint."""

    def test_it_is_a_value_error_with_a_status(self) -> None:
        """And with the HRESULT of a wrong argument, unless a status has its own."""
        error = EndpointError("no")
        self.assertIsInstance(error, ValueError)
        self.assertIs(error.status, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS)
        self.assertEqual(error.hresult, 0x8007_0057)


class SocketTests(TestCase):
    """Awaitable sockets on endpoints of Twisted."""

    async def test_a_listener_on_a_missing_folder(self) -> None:
        """The status is known."""
        listener = StreamSocketListener(reactor)
        path = f"{self.mktemp()}/x"
        with self.assertRaises(SocketError) as caught:
            # With its lock, as without it Twisted leaves a socket open where it cannot bind.
            await listener.listen(UNIXServerEndpoint(reactor, path, wantPID=1))
        status = SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS
        self.assertIs(caught.exception.status, status)

    async def test_a_connect_to_a_missing_path(self) -> None:
        """Likewise."""
        stream_socket = StreamSocket(reactor)
        with self.assertRaises(SocketError) as caught:
            await stream_socket.connect_endpoint(UNIXClientEndpoint(reactor, self.mktemp()))
        self.assertIs(caught.exception.status, SocketErrorStatus.HOST_NOT_FOUND)
