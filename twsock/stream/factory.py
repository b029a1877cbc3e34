"""
The server factory of our stream protocols: endpoint → **factory** → connections.

The factory sets the limits of each connection, and adds it to a
`twsock.protocols.ConnectionRegistry`. It puts a `twsock.stream.AcceptGate` into each of its ports:
at the limit on connections, further peers wait in the kernel's queue and are not refused.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import ServerFactory
from typing_extensions import override

from twsock.errors import LocalProtocolError
from twsock.handover.detached import DetachedConnection
from twsock.ip.addresses import describe_address, host_of
from twsock.log import TextLogger
from twsock.stream.counters import Counters
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.stream.listening.accept_gate import AcceptGate
from twsock.stream.listening.buffer_limit import DEFAULT_MAX_BUFFERED
from twsock.stream.listening.server_transport import make_small_transports
from twsock.stream.moving_record import decode_record
from twsock.stream.protocol import StreamProtocol
from twsock.stream.registry import ConnectionRegistry
from twsock.stream.resuming import RestoredConnection, can_move, peer_of, restore_state
from twsock.stream.upgrade import UpgradeToSsl

__all__ = ["DEFAULT_IDLE_TIMEOUT", "StreamServerFactory"]

#: Default of ``idle_timeout``, in seconds.
DEFAULT_IDLE_TIMEOUT = 600.0


class StreamServerFactory(ServerFactory):
    """
    Serves a protocol of twsock on any number of stream endpoints.

    :param reactor: measures the timeouts; any ``IReactorTime``.
    :param protocol: a subclass of `FrameProtocol` or `LineProtocol`, made without arguments for
        each connection.
    :param max_payload: largest message accepted, in bytes; None for the protocol's own.
    :param max_unsent: limit, in bytes, for written bytes that are not yet with the kernel; above
        ``StreamProtocol.high_water``. At this limit a further message that is sent outside a
        handler aborts its connection. None for the protocol's own limit.
    :param max_connections: how many may be open at once; at this limit, listeners made by `listen`
        accept no connection until one ends. None for no limit.
    :param max_connections_per_address: how many connections one IPv4 address, or one IPv6 network
        of 64 bits, may have open; further ones are closed, with one log event a minute. None for no
        limit. UNIX sockets are not counted. With a `twsock.stream.ProxyEndpoint` the client's
        address counts.
    :param max_buffered: limit, in bytes, for all connections together: bytes received and not
        handled, and bytes written and not yet with the kernel. Above it the connection that holds
        most is aborted, with one log event. None for 256 MiB, or twice the largest message if that
        is more.
    :param idle_timeout: seconds without a whole message after which a connection is closed, at
        the latest after one and a half times this; None for no limit.
    :param close_timeout: seconds that a close waits for the peer before it aborts.
    :param upgrade: the upgrade of connections to TLS; None for the protocol's own.
    :raises ValueError: when a number is out of bounds.

    :ivar group: the open connections.
    """

    noisy = False
    _log = TextLogger()
    # Whether `buildProtocol` is called for a connection that was accepted before.
    _is_restoring = False

    def __init__(
        self,
        reactor: Any,
        protocol: type[StreamProtocol],
        *,
        max_payload: int | None = None,
        max_unsent: int | None = None,
        max_connections: int | None = None,
        max_connections_per_address: int | None = None,
        max_buffered: int | None = None,
        idle_timeout: float | None = DEFAULT_IDLE_TIMEOUT,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
        upgrade: UpgradeToSsl | None = None,
    ) -> None:
        clock: IReactorTime = reactor
        if max_payload is not None:
            protocol.check_max_payload(max_payload)
        protocol.check_max_unsent(max_unsent)
        if not close_timeout >= 0:
            raise ValueError(f"close_timeout is 0 seconds or more, not {close_timeout:g}")
        if upgrade is not None:
            upgrade.check_limit(max_payload or 0, protocol.is_counted)
        self.upgrade = upgrade
        self._protocol_class = protocol
        self.max_payload = max_payload
        self.max_unsent = max_unsent
        self.close_timeout = close_timeout
        self.group = ConnectionRegistry(
            clock,
            idle_timeout=idle_timeout,
            max_connections=max_connections,
            max_connections_per_address=max_connections_per_address,
            max_buffered=max_buffered
            if max_buffered is not None
            else max(DEFAULT_MAX_BUFFERED, 2 * (max_payload or protocol.max_payload or 0)),
        )
        self.group.on_room = self._reopen
        self._gates: list[AcceptGate] = []
        self._is_at_limit = False
        # Whether a stopping port accepts the connections that the kernel has queued.
        self._takes_queue = False

    @property
    def counters(self) -> Counters:
        """
        The numbers of connections, messages and errors of this server.

        Each access adds the numbers of all ports; the result does not change later.
        """
        return self.group.count()

    @property
    def protocol_name(self) -> str:
        """The name of the class of the connections' protocol."""
        return self._protocol_class.__name__

    def listen(self, endpoint: IStreamServerEndpoint) -> Deferred[IListeningPort]:
        """
        Listen on an endpoint; accept no connection while the limit on connections is reached.

        ``endpoint.listen(factory)`` works too, but it accepts connections above the limit and
        closes them. Twisted's wrapping factories (an ``ssl:`` endpoint, a policy) cannot refuse a
        connection; with these it fails with a traceback in the log.

        :returns: the port, to be stopped by the caller.
        """
        return ensureDeferred(self._listen(endpoint))

    def drain(self, timeout: float) -> Deferred[int]:
        """
        Close all connections after answering what they have received; abort them at the deadline.

        Stop the ports first: otherwise they accept further connections. Connections that the kernel
        has queued for a stopping port are accepted, as far as there is room; each of them has a
        second for its first message.

        :param timeout: seconds until the deadline; 0 aborts at once.
        :returns: fires when no connection is left, with the number of aborted ones.
        """
        for gate in self._gates:
            if timeout > 0:
                # A port closes in the next turn of the reactor.
                gate.accept_queued()
            gate.shut()
        self._gates.clear()
        return ensureDeferred(self.group.drain(timeout))

    def movable(self) -> list[StreamProtocol]:
        """Return the connections that can move to another process now, see `MovableProtocol`."""
        members = typing.cast("tuple[StreamProtocol, ...]", self.group.members)
        return [member for member in members if can_move(member)]

    def restore(
        self, detached: DetachedConnection, state: bytes = b""
    ) -> RestoredConnection[StreamProtocol]:
        """
        Build the protocol of a connection that another process offers, and restore its state.

        `buildProtocol` is called with the address of the peer, or of its PROXY header.

        :param detached: the connection; it is not used yet.
        :param state: of `twsock.stream.moving.give_connections`; empty for none.
        :returns: a value that continues the connection, once this process owns it.
        :raises SocketError: when the connection has ended, when this server cannot continue such a
            connection, or when ``import_state`` raised an error.
        """
        record = decode_record(state) if state else None
        self._is_restoring = True
        try:
            protocol = self.buildProtocol(peer_of(detached, record))
        finally:
            self._is_restoring = False
        if protocol is None:
            raise LocalProtocolError("the factory builds no protocol for this peer")
        if record is not None:
            restore_state(protocol, record)
        return RestoredConnection(self.group.clock, protocol, record)

    def resume(self, detached: DetachedConnection, state: bytes = b"") -> StreamProtocol:
        """
        Continue a connection that was detached; it becomes one of this server.

        It is accepted above ``max_connections`` and ``max_connections_per_address``, and counts for
        both. With a state, ``import_state`` and ``connection_resumed`` of the new protocol are
        called, and otherwise ``connection_made``. Then the unsent bytes are sent, and the unread
        ones are handled.

        :param detached: the connection; its socket belongs to the new protocol.
        :param state: of `twsock.stream.moving.give_connections`.
        :raises SocketError: as `restore`, and when the connection has ended. ``detached`` is
            unchanged then.
        """
        return self.restore(detached, state).resume(detached)

    # Called by Twisted.

    @override
    def buildProtocol(self, addr: IAddress | None) -> StreamProtocol | None:
        group = self.group
        if not self._is_restoring and not self._may_accept(addr):
            return None
        protocol = self._protocol_class()
        protocol.factory = self
        protocol.group = group
        # A value that equals that of the class is not stored, which saves 8 bytes a connection.
        if protocol.close_timeout != self.close_timeout:
            protocol.close_timeout = self.close_timeout
        if self.max_payload is not None:
            protocol.max_payload = self.max_payload
        if self.max_unsent is not None:
            protocol.max_unsent = self.max_unsent
        if self.upgrade is not None:
            protocol.upgrade = self.upgrade
        if self._takes_queue:
            protocol.was_queued = True
        return protocol

    def _may_accept(self, address: IAddress | None) -> bool:
        """Return whether the limits on connections admit one more."""
        if not self.group.has_room:
            self.group.counters.refused += 1
            self._tell_of_limit()
            return False
        return self.group.address_limit is None or self.group.admits(host_of(address))

    async def _listen(self, endpoint: IStreamServerEndpoint) -> IListeningPort:
        port = await endpoint.listen(self)
        # Other ports, such as those in memory, have no socket: buildProtocol limits them.
        if hasattr(port, "socket") and hasattr(port, "pauseProducing"):
            make_small_transports(port)
            # Drop the gates of stopped ports.
            self._gates = [gate for gate in self._gates if not gate.is_closed]
            counters = self.group.add_port(port, describe_address(port.getHost()))
            admits = self._admits_for(counters)
            gate = AcceptGate(port, self.group.clock, self._has_room, admits, self._note_queue)
            self._gates.append(gate)
        return port

    def _note_queue(self, is_accepted: bool) -> None:
        self._takes_queue = is_accepted

    def _admits_for(self, counters: Counters) -> Callable[[str | None], bool] | None:
        """Return the check of a peer's address; None if there is no limit for one address."""
        if self.group.address_limit is None:
            return None
        return partial(self.group.admits, counters=counters)

    def _has_room(self) -> bool:
        if self.group.has_room:
            return True
        self._tell_of_limit()
        return False

    def _tell_of_limit(self) -> None:
        if not self._is_at_limit:
            self._is_at_limit = True
            self._log.warn(
                "reached the limit of {limit} connections: accepts no more until one ends",
                limit=self.group.max_connections,
            )

    def _reopen(self) -> None:
        limit = self.group.max_connections
        # One event each time that the limit is reached, not one for each connection.
        if limit is not None and len(self.group) <= limit * 3 // 4:
            self._is_at_limit = False
        for gate in self._gates:
            gate.reopen()
