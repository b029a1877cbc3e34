"""
Protocols that move with their state: connection → **resuming** → connection of another process.

A connection moves between two messages. `take_out` exports the state of its protocol, and detaches
it. In the other process `restore_state` passes the state to a new protocol of the same class, and
`RestoredConnection` continues the connection with it. Used by
`twsock.protocols.StreamServerFactory` and `twsock.stream.moving`. Holds nothing.
"""

from __future__ import annotations

import socket
import typing
from typing import Any, Generic, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from twsock.errors import LocalProtocolError, SocketError
from twsock.handover.detached import DetachedConnection
from twsock.log import TextLogger
from twsock.stream.detaching import DetachableProtocol, name_of
from twsock.stream.listening.proxied_connection import MovedProxiedConnection, address_of
from twsock.stream.listening.server_transport import connect_socket
from twsock.stream.moving_record import (
    MovingRecord,
    encode_record,
)
from twsock.stream.upgrade import UpgradePolicy, UpgradeToSsl

__all__ = [
    "MovableProtocol",
    "RestoredConnection",
    "can_move",
    "check_movable",
    "peer_of",
    "restore_state",
    "take_out",
]

P = TypeVar("P", bound=DetachableProtocol)

_log = TextLogger()


class MovableProtocol(typing.Protocol):
    """
    A protocol that moves to another process, since the body of its own class has both methods.

    A subclass has to define both again: it may have state of its own, which would be lost.
    """

    def export_state(self) -> bytes:
        """
        Return what the next process must know, at most 64 KiB.

        Called between two messages, and before `connection_lost`. The connection stays in this
        process if the call raises, and may stay if no process takes it. So this changes nothing.
        """

    def import_state(self, state: bytes) -> None:
        """
        Restore the state; called before the protocol is connected.

        Messages can be sent from ``connection_resumed`` on. If this call raises, the connection
        stays in the other process. It may also stay after this call, if that process withdraws its
        offer: then this protocol is dropped, and no other method is called. So only set attributes.
        """


def can_move(protocol: object) -> bool:
    """Return whether a connection can move to another process now; see `check_movable`."""
    try:
        check_movable(protocol)
    except SocketError:
        return False
    return True


def check_movable(protocol: object) -> None:
    """
    Check that a connection can move to another process now.

    :raises LocalProtocolError: when the class of the protocol does not declare both methods of
        `MovableProtocol`; when it has to become secure first; otherwise as
        ``StreamProtocol.detach``.
    :raises ClosedError: when it was closed or lost.
    """
    if not _declares_state(type(protocol)):
        raise LocalProtocolError(
            f"{name_of(type(protocol))} does not define export_state and import_state itself"
        )
    member = typing.cast(Any, protocol)
    if _needs_tls(member.upgrade):
        raise LocalProtocolError("TLS is required, and it has none yet")
    member.check_detachable(with_header=True)


def take_out(protocol: DetachableProtocol) -> tuple[DetachedConnection, bytes]:
    """
    Export the state of a protocol, and detach it.

    :returns: the connection and its record, encoded.
    :raises SocketError: as `check_movable`; when the state is too large; when no descriptor is
        free. The connection is unchanged then. An error of ``export_state`` is raised as it is.
    """
    check_movable(protocol)
    state = typing.cast(MovableProtocol, protocol).export_state()
    if not isinstance(state, bytes):
        raise TypeError(f"export_state returns bytes, not {type(state).__name__}")
    record = encode_record(protocol.describe_move(state))
    return protocol.leave(with_header=True), record


def peer_of(detached: DetachedConnection, record: MovingRecord | None) -> IAddress:
    """
    Return the address of the other end: the client's, if a proxy has reported it.

    :raises SocketError: when the connection has ended.
    """
    header = None if record is None else record.header
    address = None if header is None else address_of(header.source, header.is_datagram)
    if address is not None:
        return address
    try:
        peer = detached.socket.getpeername()
    except OSError as error:
        raise SocketError.from_exception(error) from error
    if detached.socket.family == socket.AF_UNIX:
        return UNIXAddress(peer or None)
    kind = IPv6Address if detached.socket.family == socket.AF_INET6 else IPv4Address
    return kind("TCP", *peer)


def restore_state(protocol: DetachableProtocol, record: MovingRecord) -> None:
    """
    Restore the state of a connection that arrives; its protocol is not connected yet.

    :param protocol: a new one, for which all limits are set.
    :param record: of `take_out`, decoded.
    :raises LocalProtocolError: when the protocol is of another class, or needs TLS; when
        ``import_state`` raised an error, which is logged. A `SocketError` is raised as it is.
    """
    kind = type(protocol)
    if record.protocol != name_of(kind) or not _declares_state(kind):
        raise LocalProtocolError(
            f"the connection is of {record.protocol}, but this server has {name_of(kind)}"
        )
    if _needs_tls(typing.cast(Any, protocol).upgrade):
        raise LocalProtocolError("TLS is required, and the connection has none")
    try:
        typing.cast(MovableProtocol, protocol).import_state(record.state)
    except SocketError:
        raise
    except Exception as error:
        _log.failure("import_state of {kind} failed", kind=record.protocol)
        # Without the text of the error, which may have bytes of the state.
        what = f"import_state of {record.protocol} raised {type(error).__name__}"
        raise LocalProtocolError(what) from error


class RestoredConnection(Generic[P]):
    """
    Continues one connection with a protocol whose state was restored.

    :param reactor: runs the connection.
    :param protocol: a new one, not connected.
    :param record: that of its state; None if the connection has no state.
    """

    def __init__(self, reactor: Any, protocol: P, record: MovingRecord | None) -> None:
        self._reactor = reactor
        self._protocol = protocol
        self._record = record

    def resume(self, detached: DetachedConnection) -> P:
        """
        Connect the protocol; called once.

        :raises SocketError: when the connection has ended. It is unchanged then.
        """
        protocol, record = self._protocol, self._record
        below: Any = protocol
        protocol.continue_from(record, detached.unsent)
        if record is not None and record.header is not None:
            below = MovedProxiedConnection(record.header, protocol)
        try:
            connect_socket(self._reactor, detached.socket, below)
        except OSError as error:
            raise SocketError.from_exception(error) from error
        protocol.continue_input(detached.unread)
        if protocol.group is not None and protocol.group.is_draining and protocol.is_open:
            protocol.drain()
        return protocol


def _declares_state(kind: type[object]) -> bool:
    own = vars(kind)
    return "export_state" in own and "import_state" in own


def _needs_tls(upgrade: UpgradeToSsl | None) -> bool:
    # A connection that has TLS cannot move for that reason.
    return upgrade is not None and upgrade.policy in (
        UpgradePolicy.REQUIRED,
        UpgradePolicy.IMPLICIT,
    )
