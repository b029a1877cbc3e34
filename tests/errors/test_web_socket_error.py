"""A failed WebSocket has a `WebErrorStatus`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import (
    BrokenError,
    ClosedError,
    SocketError,
    SocketErrorStatus,
    WebErrorStatus,
    WebSocketError,
)


class StatusTests(SynchronousTestCase):
    """`WebSocketError.get_status` knows errors, HRESULTs and statuses."""

    def test_hresults_have_a_status(self) -> None:
        """W5: Signed or unsigned; of HTTP, of WinINet, of Winsock and of COM."""
        for hresult, status in (
            (0x8019_0194, WebErrorStatus.NOT_FOUND),
            (0x8007_2EFE, WebErrorStatus.CONNECTION_ABORTED),
            (0x8007_2EFE - (1 << 32), WebErrorStatus.CONNECTION_ABORTED),
            (0x8007_2EE7, WebErrorStatus.HOST_NAME_NOT_RESOLVED),
            (0x8000_4004, WebErrorStatus.OPERATION_CANCELED),
            (0x8000_0013, WebErrorStatus.OPERATION_CANCELED),
            (0x800C_000E, WebErrorStatus.UNKNOWN),
            (0x8000_4005, WebErrorStatus.UNKNOWN),
        ):
            self.assertIs(WebSocketError.get_status(hresult), status, hex(hresult))

    def test_each_socket_error_status_is_mapped(self) -> None:
        """Statuses of connects and of certificates have a status of the Web."""
        unknown = []
        for status in SocketErrorStatus:
            error = SocketError("wrong", status=status)
            if WebSocketError.get_status(error) is WebErrorStatus.UNKNOWN:
                unknown.append(status.name)
        expected = [
            *("UNKNOWN", "ADDRESS_FAMILY_NOT_SUPPORTED", "SOCKET_TYPE_NOT_SUPPORTED"),
            *("CLASS_TYPE_NOT_FOUND", "ADDRESS_ALREADY_IN_USE", "CANNOT_ASSIGN_REQUESTED_ADDRESS"),
            *("TOO_MANY_OPEN_FILES", "MESSAGE_TOO_LONG"),
        ]
        self.assertEqual(unknown, expected)

    def test_other_failures_are_known(self) -> None:
        """A ``Failure``, a cancelled wait, a closed socket, a status."""
        lost = BrokenError("lost", hresult=0x8007_2EFE)
        for thing, status in (
            (Failure(lost), WebErrorStatus.CONNECTION_ABORTED),
            (CancelledError(), WebErrorStatus.OPERATION_CANCELED),
            (ClosedError("closed"), WebErrorStatus.OPERATION_CANCELED),
            (WebErrorStatus.GONE, WebErrorStatus.GONE),
            (ConnectionResetError(), WebErrorStatus.CONNECTION_RESET),
            (ValueError("wrong"), WebErrorStatus.UNKNOWN),
        ):
            self.assertIs(WebSocketError.get_status(thing), status, repr(thing))

    def test_status_of_the_error_itself_comes_first(self) -> None:
        """An error may have a ``web_status``."""
        error: Any = SocketError("refused")
        error.web_status = WebErrorStatus.FORBIDDEN
        self.assertIs(WebSocketError.get_status(error), WebErrorStatus.FORBIDDEN)
