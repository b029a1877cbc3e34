"""
Numbers of connections: connections → **counters** → measurements of a service, or the application.

A `twsock.stream.registry.ConnectionRegistry` has one `Counters` for each port, and each connection
refers to that of its port. So a message costs one addition, whatever the number of ports. Holds one
number for each kind of event.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Final

from twsock.stream.histogram import Histogram

__all__ = ["NOT_COUNTED", "Counters"]


@dataclass(slots=True)
class Counters:
    """Numbers of connections, messages and errors since the start of a server."""

    #: Connections that were accepted.
    accepted: int = 0
    #: Connections taken over from another process.
    taken: int = 0
    #: Connections given to another process.
    given: int = 0
    #: Connections refused because a limit on their number was reached.
    refused: int = 0
    #: Whole frames, lines or WebSocket messages received.
    messages: int = 0
    #: Bytes received, headers and line endings included.
    bytes_received: int = 0
    #: Connections closed because they were idle.
    idle: int = 0
    #: Connections aborted because the peer broke the format or its limit.
    violations: int = 0
    #: Connections aborted because `StreamProtocol.max_unsent` bytes were queued.
    unsent_limit_aborts: int = 0
    #: Connections aborted because they held the most bytes when the sum was above `max_buffered`.
    buffer_limit_aborts: int = 0
    #: Connections ended because a handler raised.
    handler_errors: int = 0
    #: Bytes passed to the kernel or to Twisted's queue, before encryption.
    bytes_sent: int = 0
    #: How often an output became full, see `StreamProtocol.writing_paused`.
    paused: int = 0
    #: Upgrades to TLS that ended with an accepted peer, implicit TLS included.
    upgrades: int = 0
    #: Upgrades to TLS that failed, by the documented name of the status of the error. The failures
    #: are in ``violations``, too.
    upgrade_failures: dict[str, int] = field(default_factory=dict)
    #: Seconds of the handshakes of completed upgrades, from the ClientHello on.
    handshake_seconds: Histogram = field(default_factory=Histogram)
    #: Connections that left, in whatever way; ``accepted + taken - ended`` connections are open.
    ended: int = 0
    #: Whole frames, lines or WebSocket messages written.
    messages_sent: int = 0
    #: Seconds of the handlers that had to wait, from the first wait to the end. Handlers of
    #: `twsock.StreamSocketListener` and `twsock.WebSocketListener` from their call on.
    handler_seconds: Histogram = field(default_factory=Histogram)
    #: Outputs that are full now.
    full: int = 0
    #: Refused requests of WebSockets, by the status of the response.
    refused_requests: dict[int, int] = field(default_factory=dict)
    #: Ended WebSockets by the code of the first close frame, 1006 without one. The codes 3000 to
    #: 4999 of applications are counted as 3000 or 4000.
    closes: dict[int, int] = field(default_factory=dict)
    #: WebSockets dropped because their peers answered no ping.
    unanswered_pings: int = 0
    # Seconds of all full outputs together. The time of each begin is subtracted and that of each
    # end is added, so that no connection has to store a time.
    _full_seconds: float = 0.0

    def add(self, other: Counters) -> None:
        """Add the numbers of other connections."""
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            setattr(self, each.name, _add(mine, theirs))

    def returned(self) -> None:
        """Undo the counts of a connection that was offered and stays: it did not end here."""
        self.taken -= 1
        self.ended -= 1

    def upgraded(self, seconds: float) -> None:
        """Count an upgrade to TLS that is done, with the seconds of its handshake."""
        self.upgrades += 1
        self.handshake_seconds.observe(seconds)

    def upgrade_failed(self, status: str) -> None:
        """Count an upgrade to TLS that failed, by the documented name of the status."""
        self.upgrade_failures[status] = self.upgrade_failures.get(status, 0) + 1

    def output_filled(self, now: float) -> None:
        """Count an output that became full at a time, in seconds."""
        self.paused += 1
        self.full += 1
        self._full_seconds -= now

    def output_emptied(self, now: float) -> None:
        """Count the end of a full output, on the clock of `output_filled`."""
        self.full -= 1
        self._full_seconds += now

    def seconds_full(self, now: float) -> float:
        """Return for how many seconds outputs were full, all connections together."""
        # Sums of large times lose some digits.
        return max(0.0, round(self._full_seconds + self.full * now, 6))

    def count_refused_request(self, status: int) -> None:
        """Count a request of a WebSocket that was refused."""
        key = int(status)  # The text of an ``HTTPStatus`` is its name before Python 3.11.
        self.refused_requests[key] = self.refused_requests.get(key, 0) + 1

    def count_close(self, code: int) -> None:
        """Count the end of a WebSocket, by few keys: the peer chooses the code."""
        key = code - code % 1000 if code >= _FIRST_PRIVATE_CODE else int(code)
        self.closes[key] = self.closes.get(key, 0) + 1


#: The first code of a close frame that is not defined by the protocol (:rfc:`6455`, 7.4.2).
_FIRST_PRIVATE_CODE: Final = 3000

#: Counts connections without a server, such as those of clients; its numbers are not read. An
#: addition costs less than a check whether a connection is counted.
NOT_COUNTED: Final = Counters()


def _add(mine: Any, theirs: Any) -> Any:
    if isinstance(mine, Histogram):
        mine.add(theirs)
    elif isinstance(mine, dict):
        for key, count in theirs.items():
            mine[key] = mine.get(key, 0) + count
    else:
        return mine + theirs
    return mine
