"""Listeners of streams and of WebSockets take connections alike."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from twsock import (
    BusyError,
    ClosedError,
    LocalProtocolError,
    StreamSocketListener,
    WebSocketListener,
)


class SocketListenerTests(SynchronousTestCase):
    """What does not depend on the kind of the sockets; for more see test_listener.py."""

    def test_waits_for_connections_are_refused_in_wrong_states(self) -> None:
        """Before binding, with a handler, twice at once, and after the close."""
        for kind in (StreamSocketListener, WebSocketListener):
            reactor: Any = MemoryReactorClock()
            listener: Any = kind(reactor)
            self.failureResultOf(listener.accept(), LocalProtocolError)
            listener.bind_endpoint("127.0.0.1", 1338)
            waiting = listener.accept()
            self.failureResultOf(listener.accept(), BusyError)
            self.failureResultOf(listener.bind_endpoint("127.0.0.1", 1338), LocalProtocolError)
            self.assertRaises(LocalProtocolError, listener.connection_received.add, print)
            listener.close()
            self.failureResultOf(waiting, ClosedError)
            self.failureResultOf(listener.accept(), ClosedError)
