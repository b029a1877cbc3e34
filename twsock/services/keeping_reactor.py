"""
A reactor whose ports use kept sockets: endpoint → **keeping reactor** → table → port.

Every stream endpoint of Twisted ends in ``listenTCP``, ``listenSSL``, ``listenUNIX`` or
``adoptStreamPort`` of its reactor; ours end in `IReactorUnixSockets` and `IReactorGroupSockets`.
The endpoints of a process whose sockets move to another process are made with a `KeepingReactor`,
which claims each socket from `twsock.services.listening_sockets`. So all these ports are adopted
ones: none of them calls shutdown(2), which would end the socket for every process that has it.

The options of an inherited socket are set again, since the configuration may have changed.
"""

from __future__ import annotations

import os
import socket
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from twisted.internet.abstract import isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from typing_extensions import override
from zope.interface import directlyProvides, implementer, providedBy

from twsock._twisted import adopt_listening_socket
from twsock.datagram.udp_socket import (
    DatagramOptions,
    IReactorGroupSockets,
    OpenedSocket,
    open_udp_socket,
    renew_udp_socket,
)
from twsock.ip.inherited import check_inherited
from twsock.services.listening_sockets import (
    KeptSocket,
    ListeningSockets,
    duplicate_socket,
)
from twsock.stream.listening.unix_endpoint import IReactorUnixSockets, UnixPort
from twsock.stream.listening.unix_socket import UnixSocketSettings, open_unix_socket

__all__ = ["BindingReactor", "BoundPort", "KeepingReactor", "plain_reactor"]


class _Wanted(typing.Protocol):
    """A socket that an endpoint asks for."""

    @property
    def key(self) -> tuple[str, str, int]:
        """Kind, address and port; see `SocketName`."""

    def open(self) -> socket.socket:
        """Open, bind and listen."""

    def renew(self, inherited: socket.socket) -> None:
        """Set the options of an inherited socket; raise ``SocketError`` if one cannot be set."""

    def share(self, first: socket.socket) -> socket.socket:
        """Return a socket of the same address for a further worker."""


@dataclass(frozen=True, slots=True)
class _TcpSocket:
    """A listening TCP socket, as ``listenTCP`` of Twisted opens it."""

    interface: str
    port: int
    backlog: int
    shares_port: bool

    @property
    def key(self) -> tuple[str, str, int]:
        return "tcp", self.interface, self.port

    def open(self) -> socket.socket:
        if self.shares_port and self.port:
            # With SO_REUSEPORT alone, the port could be shared with another service.
            replace(self, shares_port=False).open().close()
        return self._open()

    def _open(self) -> socket.socket:
        made = None
        try:
            made = self._make()
            made.bind(self._where())
            made.listen(self.backlog)
        except OSError as error:
            if made is not None:
                made.close()
            raise CannotListenError(self.interface, self.port, error) from error
        return made

    def renew(self, inherited: socket.socket) -> None:
        where = self._where()
        with self._make() as fresh:
            check_inherited(inherited, fresh, (where[0] or "0.0.0.0", where[1]))
        inherited.listen(self.backlog)

    def share(self, first: socket.socket) -> socket.socket:
        # The system chooses the number for port 0 only once.
        return replace(self, port=first.getsockname()[1])._open()

    def _make(self) -> socket.socket:
        family = socket.AF_INET6 if isIPv6Address(self.interface) else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.shares_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return made

    def _where(self) -> Any:
        if not isIPv6Address(self.interface):
            return self.interface, self.port
        # The result has the index of the zone.
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        (found, *_) = socket.getaddrinfo(self.interface, self.port, flags=numeric)
        return found[4]


@dataclass(frozen=True, slots=True)
class _UnixSocket:
    """A listening UNIX socket with a path."""

    path: Path
    settings: UnixSocketSettings

    @property
    def key(self) -> tuple[str, str, int]:
        return "unix", str(self.path.absolute()), 0

    def open(self) -> socket.socket:
        return open_unix_socket(self.path, self.settings)

    def renew(self, inherited: socket.socket) -> None:
        try:
            self.settings.apply(inherited, self.path)
        except FileNotFoundError:
            # The path was removed. A worker uses the socket that it shares with the others.
            inherited.listen(self.settings.backlog)
        except OSError as error:
            raise CannotListenError(None, str(self.path), error) from error

    def share(self, first: socket.socket) -> socket.socket:
        return duplicate_socket(first)


@dataclass(frozen=True, slots=True)
class _AdoptedSocket:
    """A listening socket that another program has opened, such as systemd; its options stay."""

    key: tuple[str, str, int]
    open: Callable[[], socket.socket]

    def renew(self, inherited: socket.socket) -> None:
        pass

    def share(self, first: socket.socket) -> socket.socket:
        return duplicate_socket(first)


@dataclass(slots=True)
class _UdpSocket:
    """A UDP port."""

    name: str
    address: str
    port: int
    options: DatagramOptions
    shares_port: bool
    opened: OpenedSocket | None = field(default=None, init=False)

    @property
    def key(self) -> tuple[str, str, int]:
        return "udp", self.name, self.port

    def open(self) -> socket.socket:
        if self.shares_port and self.port:
            # With SO_REUSEPORT alone, the port could be shared with another service.
            open_udp_socket(self.address, self.port, self.options).udp.close()
        self.opened = open_udp_socket(
            self.address, self.port, self.options, shares_port=self.shares_port
        )
        return self.opened.udp

    def renew(self, inherited: socket.socket) -> None:
        self.opened = renew_udp_socket(
            inherited, self.address, self.port, self.options, shares_port=self.shares_port
        )

    def share(self, first: socket.socket) -> socket.socket:
        port = first.getsockname()[1]
        return open_udp_socket(self.address, port, self.options, shares_port=True).udp


class KeepingReactor:
    """
    A reactor for endpoints, whose ports use the sockets of a table.

    It provides the interfaces of the reactor behind it, which does everything else.

    :param reactor: a reactor of Twisted for POSIX systems.
    :param sockets: the table.
    :param shares_ports: whether the sockets of ``tcp`` and ``udp`` ports have ``SO_REUSEPORT``,
        since each worker has its own.
    :ivar plain: the reactor behind this one.
    """

    def __init__(
        self, reactor: Any, sockets: ListeningSockets, *, shares_ports: bool = False
    ) -> None:
        self.plain = reactor
        self._sockets = sockets
        self._shares_ports = shares_ports
        # A datagram port calls them for each burst; without a lookup in `__getattr__`.
        self.addReader = reactor.addReader
        self.removeReader = reactor.removeReader
        self.addWriter = reactor.addWriter
        self.removeWriter = reactor.removeWriter
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds
        directlyProvides(self, providedBy(reactor), IReactorUnixSockets, IReactorGroupSockets)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)

    @property
    def sockets(self) -> ListeningSockets:
        """The table."""
        return self._sockets

    # Called by stream endpoints.

    def listenTCP(
        self, port: int | str, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Listen on a TCP port; see ``IReactorTCP``."""
        number = socket.getservbyname(port, "tcp") if isinstance(port, str) else port
        return self._listen(_TcpSocket(interface, number, backlog, self._shares_ports), factory)

    def listenSSL(
        self,
        port: int,
        factory: IProtocolFactory,
        contextFactory: Any,  # noqa: N803
        backlog: int = 50,
        interface: str = "",
    ) -> IListeningPort:
        """Listen for TLS on a TCP port; see ``IReactorSSL``."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        wrapped: Any = TLSMemoryBIOFactory(contextFactory, False, factory)
        return self.listenTCP(port, wrapped, backlog, interface)

    def listenUNIX(
        self,
        address: str | bytes,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,  # noqa: N803
    ) -> IListeningPort:
        """Listen on a UNIX socket; see ``IReactorUNIX``. No lock file is made."""
        name = os.fsdecode(address)
        if name.startswith("\0"):
            opened = partial(_open_abstract, name, backlog)
            return self._listen(_AdoptedSocket(("unix", name, 0), opened), factory)
        return self.listen_on_path(Path(name), factory, UnixSocketSettings(backlog, mode))

    def listen_on_path(
        self, path: Path, factory: IProtocolFactory, settings: UnixSocketSettings
    ) -> IListeningPort:
        """Listen on a UNIX socket; see `IReactorUnixSockets`."""
        return self._listen(_UnixSocket(path, settings), factory)

    def adoptStreamPort(
        self,
        fileDescriptor: int,  # noqa: N803
        addressFamily: int,  # noqa: N803
        factory: IProtocolFactory,
    ) -> IListeningPort:
        """Listen on a socket that another program has opened; see ``IReactorSocket``."""
        return self.adopt(
            ("adopted", "", 0), lambda: socket.socket(fileno=os.dup(fileDescriptor)), factory
        )

    def adopt(
        self,
        key: tuple[str, str, int],
        open: Callable[[], socket.socket],
        factory: IProtocolFactory,
    ) -> IListeningPort:
        """
        Listen on a socket that another program has opened, or that was inherited.

        :param key: kind, address and port of its name; see `SocketName`.
        :param open: returns the socket if none was inherited.
        """
        return self._listen(_AdoptedSocket(key, open), factory)

    # Called by datagram endpoints.

    def open_udp_socket(self, address: str, port: int, options: DatagramOptions) -> OpenedSocket:
        """Open a UDP port; see `IReactorUdpSockets`."""
        return self._open_udp(_UdpSocket(address, address, port, options, self._shares_ports))

    def open_group_socket(
        self, group: str, address: str, port: int, options: DatagramOptions
    ) -> OpenedSocket:
        """Open the port of a group; see `IReactorGroupSockets`."""
        return self._open_udp(_UdpSocket(group, address, port, options, self._shares_ports))

    def _open_udp(self, wanted: _UdpSocket) -> OpenedSocket:
        kept = self._claim(wanted)
        opened = wanted.opened
        assert opened is not None  # Set by `open` and by `renew`.
        return OpenedSocket(kept, opened.has_runs, opened.has_packet_info)

    # All of them.

    def keeps(self, port: Any) -> bool:
        """Return whether the socket of a port is in the table; False if an endpoint opened it."""
        return self._sockets.is_bound(port.getHost())

    def _listen(self, wanted: _Wanted, factory: IProtocolFactory) -> IListeningPort:
        kept = self._claim(wanted)
        try:
            if kept.family != socket.AF_UNIX:
                adopted: IListeningPort = adopt_listening_socket(self.plain, kept, factory)
                return adopted
            port = UnixPort(self.plain, kept, factory)
            if kept.path is not None:
                port.own(kept.path)
            port.startListening()
        except BaseException:
            kept.close()
            raise
        return port

    def _claim(self, wanted: _Wanted) -> KeptSocket:
        kept, _ = self._sockets.claim(*wanted.key, wanted.open, wanted.renew)
        return kept


class BindingReactor(KeepingReactor):
    """
    A reactor that opens the sockets of worker processes, and accepts and reads nothing itself.

    Each worker has a socket of its own for a ``tcp`` or ``udp`` port, with ``SO_REUSEPORT``: the
    kernel spreads connections and peers over them. All workers share the socket of a UNIX path,
    and one that another program has opened.

    :param reactor: see `KeepingReactor`.
    :param tables: those of the workers, 1 or more.
    """

    def __init__(self, reactor: Any, tables: Sequence[ListeningSockets]) -> None:
        super().__init__(reactor, tables[0], shares_ports=True)
        self._tables = tuple(tables)
        # The workers read.
        self.addReader = self.removeReader = _watch_nothing

    @override
    def _listen(self, wanted: _Wanted, factory: IProtocolFactory) -> IListeningPort:
        return BoundPort(self._claim_all(wanted))

    @override
    def _claim(self, wanted: _Wanted) -> KeptSocket:
        first, *others = self._claim_all(wanted)
        first.closes_with(others)
        return first

    def _claim_all(self, wanted: _Wanted) -> list[KeptSocket]:
        claimed: list[KeptSocket] = []
        try:
            for table in self._tables:
                find = partial(wanted.share, claimed[0]) if claimed else wanted.open
                kept, _ = table.claim(*wanted.key, find, wanted.renew)
                claimed.append(kept)
        except BaseException:
            for kept in claimed:
                kept.close()
            raise
        return claimed


@implementer(IListeningPort)
class BoundPort:
    """
    A port whose connections other processes accept.

    :param sockets: all of one address; the port closes them.
    """

    def __init__(self, sockets: Sequence[KeptSocket]) -> None:
        self._sockets = tuple(sockets)
        self._host = _host_of(self._sockets[0])

    def getHost(self) -> IAddress:
        """Return the address that clients connect to."""
        return self._host

    def startListening(self) -> None:
        """Do nothing: the sockets listen already."""

    def stopListening(self) -> Deferred[None]:
        """Close the sockets of this process."""
        for each in self._sockets:
            each.close()
        return succeed(None)


def plain_reactor(reactor: Any) -> Any:
    """Return the reactor behind a `KeepingReactor`; any other reactor itself."""
    return reactor.plain if isinstance(reactor, KeepingReactor) else reactor


def _watch_nothing(_descriptor: object) -> None:
    pass


def _host_of(bound: socket.socket) -> IAddress:
    name = bound.getsockname()
    if not isinstance(name, tuple):
        return UNIXAddress(os.fsencode(name))
    kind: Literal["TCP", "UDP"] = "UDP" if bound.type == socket.SOCK_DGRAM else "TCP"
    return IPv6Address(kind, *name) if len(name) == 4 else IPv4Address(kind, *name)


def _open_abstract(name: str, backlog: int) -> socket.socket:
    """Open a UNIX socket with an abstract name (Linux, unix(7))."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(os.fsencode(name))
        made.listen(backlog)
    except OSError as error:
        made.close()
        raise CannotListenError(None, name, error) from error
    return made
