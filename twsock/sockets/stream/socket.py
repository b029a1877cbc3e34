"""
Awaitable stream sockets: application → **stream socket** → connection → transport.

Made by applications that connect, and by `twsock.StreamSocketListener` for accepted connections.
Holds its two streams, which hold the bytes, its options and its information.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Callable
from typing import Any, overload

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IResolver,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from typing_extensions import override

from twsock.errors import (
    BusyError,
    ClosedError,
    LocalProtocolError,
    OperationNotSupported,
    SocketError,
)
from twsock.ip.address_errors import connecting_error
from twsock.log import TextLogger
from twsock.names import EndpointPair, HostName, HostNameSortOptions, HostNameType
from twsock.operation import fail, start_operation
from twsock.sockets.destination import (
    as_host_name,
    find_endpoint_pairs,
    local_binding,
    make_pair,
)
from twsock.sockets.resolving import find_port, interleave, resolve
from twsock.sockets.stream.connecting import connect_to_any
from twsock.sockets.stream.connection import SocketProtocol
from twsock.sockets.stream.control import StreamSocketControl, StreamSocketListenerControl
from twsock.sockets.stream.information import StreamSocketInformation
from twsock.sockets.stream.input import EndOfStreamError, InputStream
from twsock.sockets.stream.output import OutputStream
from twsock.sockets.stream.securing import refuse_plaintext, secure_client, secure_server
from twsock.sockets.waiting import check_timeout, limit, operation_cancelled
from twsock.sockets.weakly import weak_getter
from twsock.stream.descriptor import carries_tls
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.stream.listening.buffer_limit import BufferLimit
from twsock.tls.certificates import Certificate
from twsock.tls.handshake import DEFAULT_HANDSHAKE_TIMEOUT
from twsock.tls.levels import SocketProtectionLevel, choose_versions
from twsock.tls.server import ServerOptions, ServerTls
from twsock.wire.byte_queue import as_bytes

__all__ = ["StreamSocket"]


class _State(enum.Enum):
    UNCONNECTED = enum.auto()
    CONNECTING = enum.auto()
    CONNECTED = enum.auto()
    CLOSED = enum.auto()


class _End(enum.Enum):
    """How the application has ended a connection."""

    NONE = enum.auto()
    CLOSED = enum.auto()
    ABORTED = enum.auto()


class StreamSocket:
    """
    A stream connection; ``Windows.Networking.Sockets.StreamSocket``.

    ``async with StreamSocket(reactor) as socket:`` closes it at the end of the block, and aborts it
    when the block raises any error but `EndOfStreamError`.

    :param reactor: runs lookups, connections and timeouts.
    :param resolver: looks up SRV records (any ``IResolver``); None for the DNS servers that this
        machine is configured with.
    :param close_timeout: seconds that `close` waits for the peer before it aborts.

    :ivar input_stream: the receiving side.
    :ivar output_stream: the sending side.
    """

    _log = TextLogger()

    __slots__ = (
        "__weakref__",
        "_buffer_limit",
        "_close_timeout",
        "_connecting",
        "_connection",
        "_control",
        "_end",
        "_has_begun_tls",
        "_information",
        "_inherited",
        "_is_secure_from_the_start",
        "_observer",
        "_reactor",
        "_resolver",
        "_state",
        "input_stream",
        "output_stream",
        "was_lost",
    )

    def __init__(
        self,
        reactor: Any,
        *,
        resolver: IResolver | None = None,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
    ) -> None:
        if not close_timeout >= 0:
            raise ValueError(f"close_timeout is 0 seconds or more, not {close_timeout!r}")
        self.input_stream = InputStream(reactor)
        self.output_stream = OutputStream(reactor)
        self._reactor = reactor
        self._resolver = resolver
        self._close_timeout = close_timeout
        self._state = _State.UNCONNECTED
        self._is_secure_from_the_start = False
        self._has_begun_tls = False
        self._connection: SocketProtocol | None = None
        self._connecting: Deferred[None] | None = None
        self._end = _End.NONE
        #: Whether the connection was reset or aborted: neither did the application close it in
        #: order, nor did both ends end their output.
        self.was_lost = False
        self._control: StreamSocketControl | None = None
        self._information: StreamSocketInformation | None = None
        # Of an accepted socket: the options and the observer of its listener.
        self._inherited: StreamSocketListenerControl | None = None
        self._observer: Callable[[StreamSocket, bool], None] | None = None
        self._buffer_limit: BufferLimit | None = None

    @property
    def control(self) -> StreamSocketControl:
        """The options, to be set before the socket is connected."""
        if self._control is None:
            self._control = StreamSocketControl(
                weak_getter(self._is_in_use, False), weak_getter(self._is_securing, False)
            )
            if self._inherited is not None:
                self._control.inherit(self._inherited)
        return self._control

    @property
    def information(self) -> StreamSocketInformation:
        """Addresses, TLS facts and statistics of the connection."""
        if self._information is None:
            self._information = StreamSocketInformation()
        return self._information

    @property
    def is_open(self) -> bool:
        """Whether the socket is connected, and neither closed nor lost."""
        return self._connection is not None and self._connection.is_open

    @property
    def is_secure(self) -> bool:
        """
        Whether the connection is encrypted now, and the peer was verified as the settings demand.

        With a TLS endpoint this becomes True some time after ``connect_endpoint`` or ``accept``
        fired, since Twisted reports such connections before their handshake.
        """
        return self._connection is not None and self._connection.is_secure

    # Connecting.

    @overload
    def connect(
        self,
        remote: HostName | str,
        service: str | int,
        protection_level: SocketProtectionLevel = ...,
        *,
        timeout: float | None = None,
    ) -> Deferred[None]: ...

    @overload
    def connect(
        self,
        remote: EndpointPair,
        *,
        protection_level: SocketProtectionLevel = ...,
        timeout: float | None = None,
    ) -> Deferred[None]: ...

    def connect(
        self,
        remote: HostName | str | EndpointPair,
        service: str | int | None = None,
        protection_level: SocketProtectionLevel = SocketProtectionLevel.PLAIN_SOCKET,
        *,
        timeout: float | None = None,
    ) -> Deferred[None]:
        """
        Connect to a service of a host.

        It tries all addresses of the host: the next attempt starts when one has failed, or has not
        succeeded within 0.25 s, unless ``control.serialize_connection_attempts`` is set. One
        attempt takes at most 30 s.

        :param remote: the host, or a pair that fixes the local address or port too. In a pair, the
            local host is an address.
        :param service: a port; or a name in the services file of this machine; or else ``name`` of
            an SRV record ``_name._tcp.host`` (:rfc:`2782`).
        :param protection_level: with a level of TLS, `connect` includes the handshake, which takes
            at most 10 s, and the certificate of the server must have the name of the host.
        :param timeout: seconds for all of it, until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: fires when connected. It fails with `ConnectError`, which lists every attempt, or
            with the `SocketError` of the lookup. After that, or when cancelled, the socket is in
            its earlier state, and can be connected again. `LocalProtocolError` when it is
            connected, `BusyError` while it is being connected, `ClosedError` after `close`.
        :raises ValueError: at once, for a malformed name, a missing service or an invalid port.
        """
        pair = make_pair(remote, service)
        bind = local_binding(pair)
        find_port(pair.remote_service_name)  # This raises at once for an invalid port.
        check_timeout(timeout)
        refusal = self._refusal_to_connect()
        if refusal is not None:
            return fail(refusal)
        return self._start_connecting(pair, bind, SocketProtectionLevel(protection_level), timeout)

    def connect_endpoint(
        self, endpoint: IStreamClientEndpoint, *, timeout: float | None = None
    ) -> Deferred[None]:
        """
        Connect through any stream endpoint of Twisted: a UNIX socket, a proxy, TLS.

        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: as `connect`.
        """
        check_timeout(timeout)
        refusal = self._refusal_to_connect()
        if refusal is not None:
            return fail(refusal)
        return self._begin(self._connect_endpoint(endpoint), timeout)

    def upgrade_to_ssl(
        self,
        protection_level: SocketProtectionLevel,
        validation_host_name: HostName | str | None = None,
        *,
        certificate: Certificate | None = None,
        timeout: float = DEFAULT_HANDSHAKE_TIMEOUT,
    ) -> Deferred[None]:
        """
        Start TLS on a plain connection: as the client of the handshake, or as its server, if there
        is a certificate. WinRT has no server side.

        Later writes wait, and are sent encrypted. A failure aborts the connection: it never
        continues in plaintext. Await all earlier writes first; after ``send_all``, which does not
        wait for the kernel, await ``flush()``.

        :param protection_level: a level of TLS: the highest version to be used.
        :param validation_host_name: the name that the certificate must have, usually the host that
            was connected to. A domain name is also sent to the server (SNI). None for a server.
        :param certificate: with its key, for a server. Received bytes that were not read must be
            the beginning of the peer's handshake: call this at a boundary that both sides know.
        :param timeout: seconds for the handshake, until it fails with ``CONNECTION_TIMED_OUT``.
        :returns: fires when the handshake is done and the peer verified. It fails with the status
            of the certificate error; ``information`` has all errors. It fails with
            `LocalProtocolError`, and nothing else happens, when the socket is not connected, is
            secure already or was accepted, or a read or write is pending; with
            `RemoteProtocolError`, and the connection is aborted, when received bytes were not read:
            they could pass as encrypted ones. With `OperationNotSupported` for a level that this
            machine's OpenSSL does not support. Cancelling aborts the connection.
        :raises ValueError: at once, for a level that is no level of TLS, and a malformed name.
        """
        level = _checked_level(protection_level, timeout)
        if certificate is not None:
            if validation_host_name is not None:
                raise ValueError("a server has a certificate, a client validates a name: not both")
            options = ServerOptions([certificate], level, self.control.min_protection_level)
            return self._upgrade_as_server(options, timeout)
        return self._upgrade_as_client(level, validation_host_name, timeout)

    @classmethod
    def from_transport(cls, reactor: Any, transport: Any, unread: bytes = b"") -> StreamSocket:
        """
        Take over a connected transport of Twisted; its protocol receives no further events.

        :param transport: any stream transport.
        :param unread: bytes that its protocol received and did not use; they are read first.
        :raises ClosedError: when the transport is no longer connected.
        """
        stream_socket = cls(reactor)
        protocol = stream_socket.build_protocol()
        # A wrapper (TLS, a policy) passes what it receives to this; a plain transport to that.
        top = transport.protocol if getattr(transport, "TLS", False) else transport
        name = "wrappedProtocol" if hasattr(top, "wrappedProtocol") else "protocol"
        if not getattr(transport, "connected", True):
            raise ClosedError("cannot take the transport over: it is not connected")
        setattr(top, name, protocol)
        # Before the stream pauses it again, which it does above its limit.
        transport.resumeProducing()
        protocol.makeConnection(transport)
        if unread:
            protocol.dataReceived(as_bytes(unread))
        return stream_socket

    @classmethod
    def from_socket(cls, reactor: Any, connection: socket.socket) -> StreamSocket:
        """
        Take over a connected socket of Python.

        :param connection: TCP or UNIX. It is detached: the reactor uses it from now on, under
            another descriptor.
        :raises ValueError: when it is no stream socket.
        :raises SocketError: when it is not connected. It is then unchanged, except for being
            non-blocking.
        """
        if connection.type != socket.SOCK_STREAM:
            raise ValueError(f"a stream socket is needed, not {connection.type!r}")
        stream_socket = cls(reactor)
        try:
            connection.getpeername()
            connection.setblocking(False)
            reactor.adoptStreamConnection(
                connection.fileno(), connection.family, _Once(stream_socket)
            )
        except OSError as error:
            raise SocketError.from_exception(error) from error
        connection.close()
        return stream_socket

    def build_protocol(self) -> SocketProtocol:
        """
        Return a protocol that connects this socket when it gets a transport.

        For applications with a factory or endpoint of their own; it serves one connection.
        """
        return SocketProtocol(
            self._reactor,
            self.input_stream,
            self.output_stream,
            self._made,
            self._lost,
            self._close_timeout,
            is_plain=not self._is_secure_from_the_start,
            buffer_limit=self._buffer_limit,
        )

    @staticmethod
    def get_endpoint_pairs(
        reactor: Any,
        host: HostName | str,
        service: str | int,
        sort_options: HostNameSortOptions = HostNameSortOptions.NONE,
        *,
        resolver: IResolver | None = None,
    ) -> Deferred[list[EndpointPair]]:
        """
        Look up a service of a host, without connecting.

        :param sort_options: ``NONE`` alternates between the address families, so that the second
            attempt differs most from the first; ``OPTIMIZE_FOR_LONG_CONNECTIONS`` keeps the order
            of the resolver, which puts the best path first.
        :returns: pairs for `connect`, best first; the system chooses the local end. Those of an SRV
            record may have different ports.
        :raises ValueError: at once, for a malformed name, a missing service or an invalid port.
        """
        return find_endpoint_pairs(reactor, host, service, sort_options, resolver, "tcp")

    # Ending.

    def close(self) -> Deferred[None]:
        """
        Close the connection: send the queued writes, send FIN, wait for the FIN of the peer.

        A pending read or connect fails with `ClosedError`. Bytes that the peer still sends are read
        and dropped, since a reset would destroy sent bytes. Under TLS close_notify is sent before
        FIN. Closing twice is harmless.

        After ``close_timeout`` the socket stops waiting for the peer. The kernel still sends the
        bytes that it has taken, unless the peer sends more and gets a reset. Bytes that the kernel
        has not taken are lost, and the connection is reset.

        :returns: fires when the kernel has all written bytes and FIN. If the connection is lost
            before, it fires as well, and the pending writes have failed. It does not wait for the
            peer, as `wait_closed` does. It need not be awaited.
        """
        self._end_connecting()
        if self._end is _End.NONE:
            self._end = _End.CLOSED
        return succeed(None) if self._connection is None else self._connection.close()

    def wait_closed(self) -> Deferred[None]:
        """
        Wait until the connection has ended: closed at both ends, aborted or lost.

        :returns: fires then, or at once if there is no connection. Cancelling ends the wait only.
        """
        return succeed(None) if self._connection is None else self._connection.when_lost()

    def abort(self) -> Deferred[None]:
        """
        Abort the connection now: drop queued bytes, send a reset.

        A pending read, write or connect fails with `ClosedError`.

        :returns: fires when the connection has ended. It need not be awaited.
        """
        self._end_connecting()
        self._end = _End.ABORTED
        return succeed(None) if self._connection is None else self._connection.abort()

    def cancel_io(self) -> Deferred[None]:
        """
        Cancel all pending reads and writes; the connection stays open, and can be used at once.

        A pending read takes nothing off the stream. Queued writes are withdrawn; a write that has
        begun is sent to its end. All of them, and flushes, fail with `SocketError`, status
        ``OPERATION_ABORTED``.

        :returns: a Deferred that has already fired.
        """
        self.input_stream.cancel_read(operation_cancelled())
        self.output_stream.cancel_writes(operation_cancelled())
        return succeed(None)

    async def __aenter__(self) -> StreamSocket:
        return self

    async def __aexit__(self, _type: object, exception: object, _traceback: object) -> None:
        if isinstance(exception, GeneratorExit):
            self.abort()  # An abandoned coroutine cannot await.
        elif exception is None or isinstance(exception, EndOfStreamError):
            await self.close()
        else:
            # A reset, so that the peer does not take a partial answer for a complete one.
            await self.abort()

    # Called by the listener that accepts it.

    def observe(
        self,
        control: StreamSocketListenerControl,
        observer: Callable[[StreamSocket, bool], None],
        is_plain: bool = True,
        buffer_limit: BufferLimit | None = None,
    ) -> None:
        """
        Make this the socket of an accepted connection.

        :param control: the options of the listener.
        :param observer: called with True when the connection is open, with False when it has ended.
        :param is_plain: whether the streams open then; if not, they open after a handshake.
        :param buffer_limit: counts the bytes that the connection holds.
        """
        self._buffer_limit = buffer_limit
        self._inherited = control
        self._observer = observer
        self._is_secure_from_the_start = not is_plain

    def drain(self) -> None:
        """
        Report the end of the stream to the application as soon as it waits for more bytes.

        A connection whose peer has not begun its handshake is closed.
        """
        if self._connection is not None:
            self._connection.end_if_silent()
        self.input_stream.end_when_drained()

    # Called by the connection.

    def _made(self, connection: SocketProtocol) -> None:
        self._connection = connection
        if self._state is _State.CLOSED:
            connection.abort()  # It was closed just before.
            return
        if self._observer is not None or not self._is_secure_from_the_start:
            self._state = _State.CONNECTED
        self.information.connected(connection.transport)
        (self._inherited or self.control).apply(connection.transport)
        if self._observer is not None:
            self._observer(self, True)

    def _lost(self, error: SocketError | None) -> None:
        if self._end is not _End.CLOSED:
            self.was_lost = error is not None or self._end is not _End.NONE
        if self._state is not _State.CONNECTING:
            self._state = _State.CLOSED
        self.information.lost()
        if self._observer is not None:
            self._observer(self, False)

    def _is_in_use(self) -> bool:
        return self._state is not _State.UNCONNECTED

    def _is_securing(self) -> bool:
        return self._has_begun_tls

    # Connecting, step by step.

    def _start_connecting(
        self,
        pair: EndpointPair,
        bind: tuple[str, int] | None,
        level: SocketProtectionLevel,
        timeout: float | None,
    ) -> Deferred[None]:
        is_plain = level is SocketProtectionLevel.PLAIN_SOCKET
        try:
            if not is_plain:
                self._check_level(level)
        except OperationNotSupported as error:
            return fail(error)
        self.information.asked_for(pair.remote_host_name, pair.remote_service_name)
        if is_plain:
            return self._begin(self._connect(pair, bind), timeout)
        return self._begin(self._connect_securely(pair, bind, level), timeout)

    def _upgrade_as_client(
        self, level: SocketProtectionLevel, name: HostName | str | None, timeout: float
    ) -> Deferred[None]:
        if not name:
            raise ValueError("the name that the certificate has to be for is missing")
        host = as_host_name(name)
        if host.type is HostNameType.BLUETOOTH:
            raise ValueError(f"a certificate cannot name a Bluetooth address: {host.display_name}")
        try:
            self._check_level(level)
            connection = self._check_upgrade()
            if self._inherited is not None:
                raise LocalProtocolError("cannot upgrade: an accepted socket needs a certificate")
            leftover = self.input_stream.take_buffered()
            refuse_plaintext(connection, self.information, leftover, is_server=False)
        except SocketError as error:
            return fail(error)
        return self._secure(level, host, timeout)

    def _refusal_to_connect(self) -> SocketError | None:
        if self._state is _State.CONNECTING:
            return BusyError("cannot connect: another attempt is under way")
        if self._state is _State.CONNECTED:
            return LocalProtocolError("cannot connect: the socket is connected")
        if self._state is _State.CLOSED:
            return ClosedError("cannot connect: the socket was closed")
        return None

    def _begin(self, work: Any, timeout: float | None) -> Deferred[None]:
        self._state = _State.CONNECTING
        connecting: Deferred[None] = start_operation(self._guarded(work))
        if not connecting.called:
            self._connecting = connecting
        return limit(connecting, timeout, self._reactor, "the connect")

    async def _guarded(self, work: Any) -> None:
        """Restore the unconnected state if connecting fails."""
        try:
            await work
        except CancelledError:
            if self._state is _State.CLOSED:
                raise ClosedError("the socket was closed while it was being connected") from None
            raise
        except SocketError:
            raise
        except Exception as error:
            raise connecting_error(error) from error
        finally:
            self._connecting = None
            if self._state is _State.CONNECTING:
                self._state = _State.UNCONNECTED
                self._start_again()

    async def _connect(self, pair: EndpointPair, bind: tuple[str, int] | None) -> None:
        host, service = pair.remote_host_name, pair.remote_service_name
        addresses = interleave(await resolve(self._reactor, host, service, self._resolver))
        once = _Once(self)
        try:
            await connect_to_any(
                self._reactor,
                f"{host.display_name}:{service}",
                addresses,
                once,
                bind=bind,
                is_serial=self.control.serialize_connection_attempts,
                prepare=self.control.apply,
            )
        finally:
            once.end()

    async def _connect_securely(
        self,
        pair: EndpointPair,
        bind: tuple[str, int] | None,
        level: SocketProtectionLevel,
    ) -> None:
        self._is_secure_from_the_start = True
        await self._connect(pair, bind)
        await self._secure(level, pair.remote_host_name, DEFAULT_HANDSHAKE_TIMEOUT)
        self._state = _State.CONNECTED

    def _start_again(self) -> None:
        """Restore the state before a failed connect, with new streams."""
        self._has_begun_tls = self._is_secure_from_the_start = False
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
            self.input_stream = InputStream(self._reactor, self.input_stream.max_load)
            was = self.output_stream
            self.output_stream = OutputStream(self._reactor, was.max_unsent, was.max_writes)

    # TLS.

    def _check_level(self, level: SocketProtectionLevel) -> None:
        """
        Check that this machine supports a level, before any packet is sent.

        :raises OperationNotSupported: if it does not.
        """
        choose_versions(level, self.control.min_protection_level)

    def _check_upgrade(self) -> SocketProtocol:
        """
        Check that the state allows an upgrade; return the connection.

        :raises SocketError: if the state does not allow it.
        """
        connection = self._connection
        if self._state is _State.CLOSED:
            raise ClosedError("cannot upgrade: the socket was closed")
        if self._state is not _State.CONNECTED or connection is None:
            raise LocalProtocolError("cannot upgrade: the socket is not connected")
        transport: Any = connection.transport
        if self._has_begun_tls or carries_tls(transport):
            raise LocalProtocolError("cannot upgrade: the connection is secure already")
        if self.input_stream.is_pending or self.output_stream.is_pending:
            raise LocalProtocolError("cannot upgrade: a read or write is pending")
        return connection

    def _upgrade_as_server(self, options: ServerOptions, timeout: float) -> Deferred[None]:
        try:
            tls = ServerTls(options)
            connection = self._check_upgrade()
            leftover = self.input_stream.take_buffered()
            refuse_plaintext(connection, self.information, leftover, is_server=True)
        except SocketError as error:
            return fail(error)
        return self.secure_as_server(tls, timeout, leftover)

    def secure_as_server(
        self, tls: ServerTls, timeout: float, leftover: bytes = b""
    ) -> Deferred[None]:
        """
        Start a handshake as its server; called by the listener.

        :returns: fires when the handshake is done and the client accepted. If it fails, the
            connection has been aborted.
        """
        assert self._connection is not None
        self._has_begun_tls = True
        return secure_server(
            self._connection, self.information, tls, self._reactor, timeout, leftover
        )

    def _secure(
        self, level: SocketProtectionLevel, host: HostName, timeout: float
    ) -> Deferred[None]:
        assert self._connection is not None
        try:
            securing = secure_client(
                self._connection,
                self.control,
                self.information,
                level,
                host,
                self._reactor,
                timeout,
            )
        except SocketError as error:
            return fail(error)
        self._has_begun_tls = True
        return securing

    async def _connect_endpoint(self, endpoint: IStreamClientEndpoint) -> None:
        once = _Once(self)
        connecting: Deferred[IProtocol] = endpoint.connect(once)
        try:
            await connecting
        finally:
            once.end()

    def _end_connecting(self) -> None:
        self._state = _State.CLOSED
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        if self._connection is None:
            self.input_stream.close()
            self.output_stream.close()


def _checked_level(level: SocketProtectionLevel, timeout: float) -> SocketProtectionLevel:
    """Return a level of TLS; raise ``ValueError`` for any other, or for a timeout of 0."""
    level = SocketProtectionLevel(level)
    if not timeout > 0:
        raise ValueError(f"a handshake takes more than 0 seconds, not {timeout!r}")
    if level is SocketProtectionLevel.PLAIN_SOCKET:
        raise ValueError("PlainSocket is not a level of TLS")
    return level


class _Once(Factory):
    """Builds the one protocol of a socket."""

    noisy = False

    def __init__(self, stream_socket: StreamSocket) -> None:
        self._stream_socket: StreamSocket | None = stream_socket

    def end(self) -> None:
        """
        Build no further protocol.

        An endpoint that cannot be cancelled may connect too late. Twisted's connectors also keep
        their factory until the garbage collector frees them.
        """
        self._stream_socket = None

    @override
    def buildProtocol(self, addr: IAddress | None) -> SocketProtocol | None:
        found = self._stream_socket
        return None if found is None else found.build_protocol()
