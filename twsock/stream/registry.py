"""
The open connections of a server: limits, counters, idle timeout and drain.

A `twsock.protocols.StreamServerFactory` or a `twsock.StreamSocketListener` makes one registry; its
connections join and leave it. The registry holds a reference to each connection, and one delayed
call for all of them. So an idle timeout adds no work to a frame: ten thousand connections cost ten
thousand comparisons in each half of the timeout. It has a `twsock.stream.counters.Counters` for
each port.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, Final, Generic
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from typing_extensions import TypeVar

from twsock._integers import checked_integer
from twsock.log import TextLogger
from twsock.stream.connection_log import ConnectionLog
from twsock.stream.counters import Counters
from twsock.stream.listening.address_limit import AddressLimit
from twsock.stream.listening.buffer_limit import BufferLimit
from twsock.stream.moving_record import MovingRecord
from twsock.waiters import Waiters

__all__ = ["ConnectionGroup", "ConnectionRegistry", "Member", "TimedMember"]

#: Ticks without a whole frame after which a connection is idle. Its last frame arrived some time
#: before the first tick. With a tick of half a timeout it is closed after 1 to 1.5 timeouts.
_IDLE_TICKS: Final = 3


class Member(typing.Protocol):
    """A connection that can join a registry without an idle timeout."""

    def drain(self) -> None:
        """Answer all received messages, then close."""

    def abort(self) -> Deferred[None]:
        """Abort the connection."""


class TimedMember(Member, typing.Protocol):
    """A connection that can join a registry with an idle timeout."""

    active_tick: int

    def end_if_idle(self) -> None:
        """End the connection, unless it is busy: the idle timeout has passed."""


M = TypeVar("M", bound=Member, default=Member)


class ConnectionRegistry(Generic[M]):
    """
    The open connections of one server.

    With an idle timeout, each connection that joins is a `TimedMember`.

    :param clock: measures the idle timeout and the drain.
    :param idle_timeout: seconds without a whole frame after which a connection is closed, at the
        latest after one and a half times this; None for no limit.
    :param max_connections: how many may be open at once; None for no limit.
    :param max_buffered: limit, in bytes, for all connections together: bytes received and not
        handled, and bytes written and not yet with the kernel. Above it the connection that holds
        the most is aborted. None for no limit.
    :param max_connections_per_address: how many connections one IPv4 address, or one IPv6 network
        of 64 bits, may have open; None for no limit. UNIX sockets are not counted.
    :raises ValueError: when a number is not above 0.

    :ivar address_limit: counts connections by their addresses; None for no limit.
    :ivar buffer_limit: sums the bytes that connections hold; None for no limit.
    """

    _log = TextLogger()

    def __init__(
        self,
        clock: IReactorTime,
        *,
        idle_timeout: float | None = None,
        max_connections: int | None = None,
        max_buffered: int | None = None,
        max_connections_per_address: int | None = None,
    ) -> None:
        if idle_timeout is not None and not idle_timeout > 0:
            raise ValueError(f"idle_timeout is above 0 seconds, not {idle_timeout:g}")
        if max_connections is not None and checked_integer(max_connections, "max_connections") < 1:
            raise ValueError(f"max_connections is 1 or more, not {max_connections}")
        self.clock = clock
        self.idle_timeout = idle_timeout
        self.max_connections = max_connections
        self.address_limit = (
            None
            if max_connections_per_address is None
            else AddressLimit(max_connections_per_address, clock.seconds)
        )
        self.buffer_limit = None if max_buffered is None else BufferLimit(max_buffered)
        #: Counts the connections that no port of `add_port` has accepted.
        self.counters = Counters()
        # Those of ports, by their endpoints; a port that is opened again continues to count.
        self._counters: dict[str, Counters] = {}
        self._ports: WeakKeyDictionary[Any, Counters] = WeakKeyDictionary()
        #: Logs the end of each connection that joins; None for no log.
        self.connection_log: ConnectionLog | None = None
        #: Counts the half idle timeouts that have passed; a connection notes it with each frame.
        self.tick = 0
        #: Called when a connection has left.
        self.on_room: Callable[[], None] | None = None
        # A dictionary takes half the memory of a set.
        self._members: dict[M, None] = {}
        self._ticking: IDelayedCall | None = None
        self._emptied = Waiters()

    def __len__(self) -> int:
        return len(self._members)

    @property
    def members(self) -> tuple[M, ...]:
        """The open connections, in the order in which they joined."""
        return tuple(self._members)

    @property
    def has_room(self) -> bool:
        """Whether one more connection may join."""
        return self.max_connections is None or len(self._members) < self.max_connections

    def add_port(self, port: object, endpoint: str) -> Counters:
        """
        Count the connections of a port by themselves.

        :param port: the attribute ``server`` of the transports of its connections.
        :param endpoint: the name of the port, such as ``tcp:127.0.0.1:1337``.
        :returns: the counters of all ports of that name.
        """
        counters = self._ports[port] = self._counters.setdefault(endpoint, Counters())
        return counters

    def counters_of(self, port: object | None, endpoint: str = "") -> Counters:
        """
        Return the counters of a port; for any other object those of connections without a port.

        :param endpoint: the name of the port, if another process had it.
        """
        if port is None:
            return self._counters.get(endpoint, self.counters)
        return self._ports.get(port, self.counters)

    def endpoint_of(self, counters: Counters) -> str:
        """Return the name of the port that has these counters; empty for those without a port."""
        return next((name for name, own in self._counters.items() if own is counters), "")

    def by_endpoint(self) -> dict[str, Counters]:
        """
        Return the counters of each port of `add_port`, closed ports included.

        The key is the name of the port; ``""`` has the connections of no port.
        """
        return {**self._counters, "": self.counters}

    def count(self) -> Counters:
        """Return the sums of all counters; the result does not change later."""
        total = Counters()
        for counters in self.by_endpoint().values():
            total.add(counters)
        return total

    @property
    def is_draining(self) -> bool:
        """Whether a drain waits for the end of all connections."""
        return len(self._emptied) > 0

    def admits(self, host: str | None, counters: Counters | None = None) -> bool:
        """
        Return whether an address may have one more connection; count and log a refusal.

        :param counters: those of the port; None for those without a port.
        """
        if self.address_limit is None or self.address_limit.admits(host):
            return True
        (counters or self.counters).refused += 1
        return False

    def join(
        self,
        member: M,
        host: str | None = None,
        counters: Counters | None = None,
        moved: MovingRecord | None = None,
    ) -> None:
        """
        Add a connection, and start its idle timeout.

        :param host: the address of its peer; None if it has none.
        :param counters: those of its port; None for those without a port.
        :param moved: what its earlier owner knew; None if it was accepted now.
        """
        self._members[member] = None
        if self.address_limit is not None:
            self.address_limit.add(member, host)
        if moved is None:
            (counters or self.counters).accepted += 1
        else:
            (counters or self.counters).taken += 1
        if self.connection_log is not None:
            self.connection_log.begin(member, 0.0 if moved is None else moved.age or 0.0)
        if self.idle_timeout is not None:
            timed: Any = member  # A cast would be a call.
            timed.active_tick = self.tick
            if moved is not None:
                timed.active_tick -= int(moved.idle / (self.idle_timeout / 2))
            if self._ticking is None:
                self._ticking = self.clock.callLater(self.idle_timeout / 2, self._next_tick)

    def idle_time(self, member: Any) -> float:
        """Return for how many seconds a connection is idle, at least; 0 without a timeout."""
        if self.idle_timeout is None:
            return 0.0
        return float((self.tick - member.active_tick) * self.idle_timeout / 2)

    def leave(self, member: M, counters: Counters | None = None) -> None:
        """
        Remove a lost connection.

        :param counters: as in `join`.
        """
        self._members.pop(member, None)
        (counters or self.counters).ended += 1
        if self.connection_log is not None:
            self.connection_log.forget(member)
        if self.address_limit is not None:
            self.address_limit.remove(member)
        if not self._members:
            if self._ticking is not None:
                self._ticking.cancel()
                self._ticking = None
            self._emptied.fire()
        if self.on_room is not None:
            self.on_room()

    async def drain(self, timeout: float) -> int:
        """
        Close every connection when it has answered its messages; abort the rest at the deadline.

        :param timeout: seconds until the deadline; 0 aborts at once.
        :returns: the number of aborted connections.
        """
        await self.drain_within(timeout)
        return await self.abort_all()

    def drain_within(self, timeout: float) -> Deferred[None]:
        """
        Close every connection when it has answered its messages; at the deadline, abort none.

        :param timeout: seconds until the deadline; 0 closes none.
        :returns: fires when no connection is left, or at the deadline. Cancelling stops the wait,
            and not the closes.
        """
        if timeout > 0:
            for member in self.members:
                self._spare_the_others(member.drain, member)
        return self._emptied.wait_at_most(timeout if self._members else 0, self.clock)

    async def abort_all(self) -> int:
        """
        Abort every connection.

        :returns: their number, when all of them are lost.
        """
        members = self.members
        await DeferredList([member.abort() for member in members])
        return len(members)

    def _next_tick(self) -> None:
        timeout = self.idle_timeout
        self._ticking = (
            None if timeout is None else self.clock.callLater(timeout / 2, self._next_tick)
        )
        self.tick += 1
        last = self.tick - _IDLE_TICKS
        members = typing.cast("tuple[TimedMember, ...]", self.members)
        for member in [member for member in members if member.active_tick <= last]:
            self._spare_the_others(member.end_if_idle, member)

    def _spare_the_others(self, action: Callable[[], None], member: Member) -> None:
        """Run one action on a connection; abort the connection if it fails."""
        try:
            action()
        except Exception:  # noqa: BLE001 - logged, and it ends the connection
            self._log.failure("a connection could not be closed, and is aborted")
            member.abort()


#: The first name of `ConnectionRegistry`.
ConnectionGroup = ConnectionRegistry
