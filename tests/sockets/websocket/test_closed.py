"""The end of a WebSocket has a code and a reason, or is a loss."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twsock import BrokenError, SocketError, SocketErrorStatus, WebSocketClosedError
from twsock.sockets.websocket.closed import lost_without_close


class ClosedTests(SynchronousTestCase):
    """Errors of calls after the end."""

    def test_error_has_code_and_reason(self) -> None:
        """In its text the reason has no control characters; a copy has all of it."""
        error = WebSocketClosedError(4000, "a\x1b[0m")
        for each in (error, error.copy()):
            self.assertEqual((each.code, each.reason), (4000, "a\x1b[0m"))
            self.assertEqual(str(each), r"the WebSocket was closed: code 4000, reason 'a\x1b[0m'")
        self.assertEqual(str(WebSocketClosedError(1005, "")), "the WebSocket was closed: code 1005")

    def test_some_codes_are_in_order(self) -> None:
        """1000, 1001 and no code."""
        in_order = [
            code for code in range(1000, 5000) if WebSocketClosedError(code, "").is_in_order
        ]
        self.assertEqual(in_order, [1000, 1001, 1005])

    def test_loss_keeps_its_reason(self) -> None:
        """The HRESULT is that of WinRT."""
        reset = SocketError("reset", status=SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        error = lost_without_close(reset, "lost")
        self.assertIsInstance(error, BrokenError)
        self.assertEqual((str(error), error.hresult), ("lost: reset", 0x8007_2EFE))
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        self.assertIs(error.__cause__, reset)
        self.assertEqual(str(lost_without_close(None, "lost")), "lost")
