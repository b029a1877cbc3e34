"""
One log line at the end of each connection: protocol → **connection log** → log.

A `twsock.stream.registry.ConnectionRegistry` has one if its server logs connections; without one, a
connection pays nothing. Holds the time at which each open connection began.
"""

from __future__ import annotations

import typing

from twisted.internet.interfaces import IReactorTime

from twsock.errors import SocketError
from twsock.log import TextLogger
from twsock.stream.connection import Connection

__all__ = ["ConnectionLog", "LoggedProtocol"]


class LoggedProtocol(typing.Protocol):
    """The protocol above a connection."""

    @property
    def peer(self) -> str:
        """The other end's address."""


class ConnectionLog:
    """
    Logs the connections of one server.

    :param clock: measures how long they last.
    """

    _log = TextLogger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._begun: dict[object, float] = {}

    def begin(self, protocol: object, age: float = 0.0) -> None:
        """
        Note when a connection began.

        :param age: seconds for which it was open in other processes.
        """
        self._begun[protocol] = self._clock.seconds() - age

    def age_of(self, protocol: object) -> float | None:
        """Return for how many seconds a connection is open; None if it began before the log."""
        begun = self._begun.get(protocol)
        return None if begun is None else self._clock.seconds() - begun

    def forget(self, protocol: object) -> None:
        """
        Log no line for a connection that leaves without an end: it was detached.

        If it was moved to another process, that process logs its end.
        """
        self._begun.pop(protocol, None)

    def end(
        self,
        protocol: LoggedProtocol,
        connection: Connection,
        counts: tuple[int, int],
        error: SocketError | None,
    ) -> None:
        """
        Log the line of a lost connection.

        :param counts: whole messages received, and bytes received.
        :param error: why it ended; None if it ended in order.
        """
        begun = self._begun.pop(protocol, None)
        if begun is None:
            return  # It began before the log.
        messages, received = counts
        self._log.info(
            "{peer} ended after {seconds:.3f} s: {tls}, {messages} messages, "
            "{received} bytes in, {sent} bytes out, {reason}",
            peer=protocol.peer,
            seconds=self._clock.seconds() - begun,
            tls=connection.tls_version or "plaintext",
            messages=messages,
            received=received,
            sent=connection.sent,
            reason="in order" if error is None else str(error),
        )
