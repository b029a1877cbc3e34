"""
Awaitable stream sockets: application → **stream socket** → connection → transport.

Made by applications that connect, and by `twsock.StreamSocketListener` for accepted connections.
Holds its two streams, which hold the bytes, its options and its information.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IResolver, IStreamClientEndpoint
from typing_extensions import override

from twsock.errors import LocalProtocolError, OperationNotSupported, SocketError
from twsock.names import EndpointPair, HostName, HostNameSortOptions
from twsock.operation import fail
from twsock.sockets.destination import find_endpoint_pairs, local_binding, make_pair
from twsock.sockets.stream.connecting import connect_through, connect_to_service
from twsock.sockets.stream.connection import SocketProtocol
from twsock.sockets.stream.control import StreamSocketControl, StreamSocketListenerControl
from twsock.sockets.stream.information import StreamSocketInformation
from twsock.sockets.stream.input import EndOfStreamError, InputStream
from twsock.sockets.stream.output import OutputStream
from twsock.sockets.stream.securing import (
    ServerRole,
    TlsRole,
    connecting_role,
    take_unread,
    upgrading_role,
)
from twsock.sockets.stream.state import StreamSocketState
from twsock.sockets.stream.transferring import TransferableSocket
from twsock.sockets.waiting import check_timeout, operation_cancelled
from twsock.stream.counters import Counters
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.stream.listening.buffer_limit import BufferLimit
from twsock.tls.certificates import Certificate
from twsock.tls.handshake import DEFAULT_HANDSHAKE_TIMEOUT
from twsock.tls.levels import SocketProtectionLevel
from twsock.tls.server import ServerTls

__all__ = ["StreamSocket"]


class StreamSocket(TransferableSocket):
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
    :ivar information: addresses, TLS facts and statistics of the connection.
    """

    __slots__ = (
        "__weakref__",
        "_buffer_limit",
        "_close_timeout",
        "_connection",
        "_control",
        "_inherited",
        "_is_secure_from_the_start",
        "_observer",
        "_reactor",
        "_resolver",
        "_state",
        "information",
        "input_stream",
        "output_stream",
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
        self.information = StreamSocketInformation()
        self._reactor = reactor
        self._resolver = resolver
        self._close_timeout = close_timeout
        self._state = StreamSocketState()
        self._is_secure_from_the_start = False
        self._connection: SocketProtocol | None = None
        self._control: StreamSocketControl | None = None
        # Of an accepted socket: the options and the observer of its listener.
        self._inherited: StreamSocketListenerControl | None = None
        self._observer: Callable[[StreamSocket, bool], None] | None = None
        self._buffer_limit: BufferLimit | None = None

    @property
    def control(self) -> StreamSocketControl:
        """The options, to be set before the socket is connected."""
        if self._control is None:
            self._control = StreamSocketControl(self._state.is_in_use, self._state.is_securing)
            if self._inherited is not None:
                self._control.inherit(self._inherited)
        return self._control

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

    @property
    def was_lost(self) -> bool:
        """
        Whether the connection was reset or aborted.

        That is: the application did not close it in order, nor did both ends end their output.
        """
        return self._state.was_lost

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
            at most 10 s. The certificate of the server must then have the name of the host.
        :param timeout: seconds for all of it, until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: fires when connected. It fails with `ConnectError`, which lists every attempt, or
            with the `SocketError` of the lookup. After that, or when cancelled, the socket is in
            its earlier state, and can be connected again. It fails with `LocalProtocolError` when
            it is connected, `BusyError` while it is being connected, `ClosedError` after `close`.
        :raises ValueError: at once, for a malformed name, a missing service, and an invalid port
            or level.
        """
        pair = make_pair(remote, service)
        bind = local_binding(pair)
        check_timeout(timeout)
        try:
            role = connecting_role(self.control, protection_level, pair.remote_host_name)
        except OperationNotSupported as error:
            return fail(error)
        connecting = self._connect(pair, bind, role)
        return self._state.connect(connecting, self._start_again, self._reactor, timeout)

    def connect_endpoint(
        self, endpoint: IStreamClientEndpoint, *, timeout: float | None = None
    ) -> Deferred[None]:
        """
        Connect through any stream endpoint of Twisted: a UNIX socket, a proxy, TLS.

        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: as `connect`.
        """
        check_timeout(timeout)
        connecting = connect_through(endpoint, self.build_protocol)
        return self._state.connect(connecting, self._start_again, self._reactor, timeout)

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
            `LocalProtocolError`, and changes nothing, when the socket is not connected, is secure
            already or was accepted, its output was closed, or a read or write is pending. It fails
            with `RemoteProtocolError`, and aborts the connection, when received bytes were not
            read: they could pass as encrypted ones. It fails with `OperationNotSupported` for a
            level that this machine's OpenSSL does not support. Cancelling aborts the connection.
        :raises ValueError: at once, for a level that is no level of TLS, and a malformed name.
        """
        if not timeout > 0:
            raise ValueError(f"a handshake takes more than 0 seconds, not {timeout!r}")
        try:
            role = upgrading_role(self.control, protection_level, validation_host_name, certificate)
            return self._upgrade(role, timeout)
        except SocketError as error:
            return fail(error)

    @override
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
            peer, as `wait_closed` does. It need not be awaited. Cancelling stops the wait only.
        """
        self._state.close()
        self._close_unconnected_streams()
        return succeed(None) if self._connection is None else self._connection.close()

    def wait_closed(self) -> Deferred[None]:
        """
        Wait until the connection has ended: both ends have closed it, or it was aborted or lost.

        :returns: fires then; at once if there is no connection. Cancelling stops the wait only.
        """
        return succeed(None) if self._connection is None else self._connection.when_lost()

    def abort(self) -> Deferred[None]:
        """
        Abort the connection now: drop queued bytes, send a reset.

        A pending read, write or connect fails with `ClosedError`.

        :returns: fires when the connection is lost. It need not be awaited. Cancelling stops the
            wait only.
        """
        self._state.abort()
        self._close_unconnected_streams()
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

    def count_in(self, counters: Counters) -> None:
        """Count this connection with the others of its listener."""
        if self._connection is not None:
            self._connection.stream.counters = counters

    def secure_as_server(self, tls: ServerTls, timeout: float) -> Deferred[None]:
        """
        Start a handshake as its server.

        :param timeout: seconds until the handshake fails; above 0.
        :returns: fires when the handshake is done and the client accepted. If it fails, the
            connection has been aborted.
        """
        return self._secure(ServerRole(tls), timeout)

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
        if self._state.is_ended:
            connection.abort()  # The socket was closed just before.
            return
        if self._observer is not None or not self._is_secure_from_the_start:
            self._state.connected()
        self.information.connected(connection.transport)
        (self._inherited or self.control).apply(connection.transport)
        if self._observer is not None:
            self._observer(self, True)

    def _lost(self, error: SocketError | None) -> None:
        self._state.lost(error)
        self.information.lost()
        if self._observer is not None:
            self._observer(self, False)

    # Steps of connecting and closing.

    def _close_unconnected_streams(self) -> None:
        if self._connection is None:
            self.input_stream.close()
            self.output_stream.close()

    async def _connect(
        self, pair: EndpointPair, bind: tuple[str, int] | None, role: TlsRole | None
    ) -> None:
        self._is_secure_from_the_start = role is not None
        self.information.asked_for(pair.remote_host_name, pair.remote_service_name)
        await connect_to_service(
            self._reactor, pair, bind, self._resolver, self.control, self.build_protocol
        )
        if role is not None:
            await self._secure(role, DEFAULT_HANDSHAKE_TIMEOUT)
            self._state.connected()

    def _start_again(self) -> None:
        """Restore the state before a failed connect, with new streams."""
        self._is_secure_from_the_start = False
        if self._connection is not None:
            self._connection.forget_socket()  # Its loss may be reported after the next connect.
            self._connection.abort()
            self._connection = None
            self.input_stream = InputStream(self._reactor, self.input_stream.max_load)
            was = self.output_stream
            self.output_stream = OutputStream(self._reactor, was.max_unsent, was.max_writes)

    # TLS.

    def _upgrade(self, role: TlsRole, timeout: float) -> Deferred[None]:
        self._state.check_upgrade()
        if self._inherited is not None and not role.is_server:
            raise LocalProtocolError("cannot upgrade: an accepted socket needs a certificate")
        assert self._connection is not None
        unread = take_unread(
            self._connection, self.input_stream, self.output_stream, self.information, role
        )
        return self._secure(role, timeout, unread)

    def _secure(self, role: TlsRole, timeout: float, unread: bytes = b"") -> Deferred[None]:
        assert self._connection is not None
        securing = role.begin(self._connection, self.information, timeout, unread)
        self._state.has_begun_tls = True
        return securing
