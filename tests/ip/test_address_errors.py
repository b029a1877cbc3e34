"""Errors of bind and connect have a status and a message that names the remedy."""

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
    """Errors of a local address."""

    def test_a_privileged_port_names_the_required_privilege(self) -> None:
        """The HRESULT is that of the system's error."""
        error = listening_error(refused(errno.EACCES, 80))
        self.assertIs(error.status, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS)
        self.assertEqual(error.hresult, 0x8007_271D)
        self.assertEqual(
            str(error), "Permission denied: port 80 needs root or CAP_NET_BIND_SERVICE"
        )

    def test_a_missing_folder_is_named_as_the_reason(self) -> None:
        """A Failure is accepted as well."""
        error = listening_error(Failure(refused(errno.ENOENT, b"/missing/x")))
        self.assertIs(error.status, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS)
        self.assertEqual(str(error), "No such file or directory: its folder does not exist")

    def test_other_unusable_paths_have_the_same_status(self) -> None:
        """The status is the same for a plain error and for Twisted's wrapper."""
        for number in (errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EPERM):
            for error in (refused(number, b"/x"), OSError(number, "no")):
                self.assertIs(
                    listening_error(error).status,
                    SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS,
                    error,
                )

    def test_a_link_local_address_without_a_zone_is_explained(self) -> None:
        """Any other EINVAL is left unchanged."""
        invalid = OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        error = listening_error(CannotListenError("fe80::1", 80, invalid))
        self.assertIs(error.status, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS)
        self.assertIn("as in fe80::1%eth0", str(error))
        for interface in ("fe80::1%lo", "fd00::1", "", "/run/echo.sock"):
            error = listening_error(CannotListenError(interface, 80, invalid))
            self.assertIs(error.status, SocketErrorStatus.UNKNOWN, interface)

    def test_a_message_of_the_caller_is_kept(self) -> None:
        """The caller knows which operation failed."""
        error = listening_error(refused(errno.EACCES, 80), "cannot bind it")
        self.assertEqual(str(error), "cannot bind it")

    def test_an_error_that_has_a_status_keeps_it(self) -> None:
        """An error that is not about an address keeps status ``UNKNOWN``."""
        taken = listening_error(refused(errno.EADDRINUSE, 80))
        self.assertIs(taken.status, SocketErrorStatus.ADDRESS_ALREADY_IN_USE)
        self.assertIs(listening_error(RuntimeError("x")).status, SocketErrorStatus.UNKNOWN)


class ConnectingErrorTests(SynchronousTestCase):
    """Errors of a remote address."""

    def test_a_missing_path_and_a_missing_permission_have_a_status(self) -> None:
        """Twisted's errors and the system's errors have the same status."""
        for number, status in (
            (errno.ENOENT, SocketErrorStatus.HOST_NOT_FOUND),
            (errno.EACCES, SocketErrorStatus.UNREACHABLE_HOST),
            (errno.ECONNREFUSED, SocketErrorStatus.CONNECTION_REFUSED),
            (errno.EDOM, SocketErrorStatus.UNKNOWN),
        ):
            for error in (ConnectError(number, "no"), OSError(number, "no")):
                self.assertIs(connecting_error(error).status, status, error)

    def test_a_link_local_address_without_a_zone_is_explained(self) -> None:
        """connect(2) returns EINVAL for no other reason."""
        for kind, status in (
            (ConnectError, SocketErrorStatus.UNREACHABLE_HOST),
            (ConnectBindError, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS),
        ):
            error = connecting_error(kind(errno.EINVAL, "Invalid argument"))
            self.assertIs(error.status, status, (kind, status))
            self.assertIn("as in fe80::1%eth0", str(error), (kind, status))


class EndpointErrorTests(SynchronousTestCase):
    """Errors of a string that is not an endpoint."""

    def test_it_is_a_value_error_with_a_status(self) -> None:
        """The HRESULT is E_INVALIDARG, unless the status has its own."""
        error = EndpointError("no")
        self.assertIsInstance(error, ValueError)
        self.assertIs(error.status, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS)
        self.assertEqual(error.hresult, 0x8007_0057)


class SocketTests(TestCase):
    """Awaitable sockets report these errors for Twisted's endpoints."""

    async def test_a_listener_in_a_missing_folder_reports_the_status(self) -> None:
        """The error has status ``CANNOT_ASSIGN_REQUESTED_ADDRESS``."""
        listener = StreamSocketListener(reactor)
        path = f"{self.mktemp()}/x"
        with self.assertRaises(SocketError) as caught:
            # With its lock, as without it Twisted leaves a socket open where it cannot bind.
            await listener.listen(UNIXServerEndpoint(reactor, path, wantPID=1))
        status = SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS
        self.assertIs(caught.exception.status, status)

    async def test_a_connect_to_a_missing_path_reports_the_status(self) -> None:
        """The error has status ``HOST_NOT_FOUND``."""
        stream_socket = StreamSocket(reactor)
        with self.assertRaises(SocketError) as caught:
            await stream_socket.connect_endpoint(UNIXClientEndpoint(reactor, self.mktemp()))
        self.assertIs(caught.exception.status, SocketErrorStatus.HOST_NOT_FOUND)
