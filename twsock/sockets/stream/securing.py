"""
TLS of a connected stream socket: socket → **switch** → secure connection.

Called by a `twsock.StreamSocket`, as the client or the server of a handshake. The steps are those
of `twsock.stream.switch`. Plaintext that was not read is never delivered as if it had been
encrypted.
"""

from __future__ import annotations

import typing
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from typing_extensions import override

from twsock.errors import ClosedError, LocalProtocolError, RemoteProtocolError, SocketError
from twsock.log import TextLogger
from twsock.names import HostName, HostNameType
from twsock.sockets.destination import as_host_name
from twsock.sockets.stream.connection import SocketProtocol
from twsock.sockets.stream.control import StreamSocketControl
from twsock.sockets.stream.information import StreamSocketInformation
from twsock.sockets.stream.input import InputStream
from twsock.sockets.stream.output import OutputStream
from twsock.stream.closing import State
from twsock.stream.connection import Connection
from twsock.stream.switch import Switch, SwitchOwner, ended_when_secure
from twsock.stream.upgrade_core import Event, Side
from twsock.tls.certificates import Certificate
from twsock.tls.client import ClientOptions, make_client
from twsock.tls.handshake import CLIENT_HELLO, Verification
from twsock.tls.levels import SocketProtectionLevel, choose_versions
from twsock.tls.server import ServerOptions, ServerTls

__all__ = [
    "ClientRole",
    "Securable",
    "ServerRole",
    "TlsRole",
    "checked_server_name",
    "connecting_role",
    "refuse_plaintext",
    "take_unread",
    "upgrading_role",
]

_log = TextLogger()


def take_unread(
    connection: SocketProtocol,
    input_stream: InputStream,
    output_stream: OutputStream,
    information: StreamSocketInformation,
    role: TlsRole,
) -> bytes:
    """
    Check that a handshake can begin here; take the bytes that were received and not read.

    :returns: the beginning of the client's handshake, or no bytes.
    :raises LocalProtocolError: if the connection is secure already, its output was closed, or a
        read or write is pending.
    :raises RemoteProtocolError: if the bytes are plaintext. The connection was aborted.
    """
    if connection.carries_tls:
        raise LocalProtocolError("cannot upgrade: the connection is secure already")
    if connection.stream.state in (State.HALF_CLOSED, State.ENDED):
        raise LocalProtocolError("cannot upgrade: the output was closed")
    if input_stream.is_pending or output_stream.is_pending:
        raise LocalProtocolError("cannot upgrade: a read or write is pending")
    unread = input_stream.take_buffered()
    refuse_plaintext(connection, information, unread, is_server=role.is_server)
    return unread


def refuse_plaintext(
    connection: SocketProtocol,
    information: StreamSocketInformation,
    leftover: bytes,
    *,
    is_server: bool,
) -> None:
    """
    Abort the connection if the peer sent bytes that were not read and are not part of a handshake.

    :param is_server: whether this end is the server, so that the peer's handshake comes first.
    :raises RemoteProtocolError: if the connection was aborted.
    """
    if not leftover or (is_server and CLIENT_HELLO.startswith(leftover[: len(CLIENT_HELLO)])):
        return
    error = RemoteProtocolError(
        f"peer sent {len(leftover)} bytes of plaintext before the handshake"
    )
    _log.warn(
        "{host} port {port} aborted: {error}",
        host=information.remote_address,
        port=information.remote_port,
        error=error,
    )
    connection.abort(error)
    raise error


class Securable(SwitchOwner, typing.Protocol):
    """A protocol that has a connection, and lets this module secure it."""

    @property
    def stream(self) -> Connection:
        """The connection; there is one between open and lost."""

    def begin_upgrade(self, switch: Switch) -> None:
        """Report the loss of the connection to this upgrade, too."""

    def suspend(self) -> None:
        """Queue writes until ``continue_above``."""

    def abort(self, error: SocketError | None = None) -> Deferred[None]:
        """Abort the connection now."""


class TlsRole:
    """
    The side of this end in a handshake: client or server.

    :ivar is_server: whether this end is the server, so that the peer's handshake comes first.
    """

    is_server: bool

    def begin(
        self,
        connection: Securable,
        information: StreamSocketInformation,
        timeout: float,
        leftover: bytes = b"",
    ) -> Deferred[None]:
        """
        Start the handshake.

        :param timeout: seconds until the handshake fails; above 0.
        :param leftover: the beginning of the client's handshake, if this end is the server and has
            received it.
        :returns: fires when the handshake is done and the peer verified. If it fails, the
            connection has been aborted; a server has logged the reason.
        :raises SocketError: before anything is sent, when the certificate of the client cannot be
            used.
        """
        raise NotImplementedError


class ClientRole(TlsRole):
    """
    The role of a client.

    :param control: the options of the socket.
    :param level: the highest version of TLS.
    :param host: the name that the certificate of the server must have.
    :raises OperationNotSupported: when this machine does not support the level.
    """

    is_server = False

    def __init__(
        self, control: StreamSocketControl, level: SocketProtectionLevel, host: HostName
    ) -> None:
        choose_versions(level, control.min_protection_level)  # Raises for an unsupported level.
        self._control = control
        self._level = level
        self._host = host

    @override
    def begin(
        self,
        connection: Securable,
        information: StreamSocketInformation,
        timeout: float,
        leftover: bytes = b"",
    ) -> Deferred[None]:
        control = self._control
        options = ClientOptions(
            choose_versions(self._level, control.min_protection_level),
            self._host,
            control.trust_roots,
            control.client_certificate,
            tuple(control.ignorable_server_certificate_errors),
            tuple(control.application_protocols),
            control.resumes_sessions,
        )
        creator, verification = make_client(options, information.remote_port)
        information.securing(self._level, verification)
        switch = _SocketSwitch(connection, Side.CLIENT, creator, verification, timeout)
        return switch.begin().addCallback(information.secured)


class ServerRole(TlsRole):
    """
    The role of a server.

    :param tls: its certificates, and which clients are accepted.
    """

    is_server = True

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls

    @override
    def begin(
        self,
        connection: Securable,
        information: StreamSocketInformation,
        timeout: float,
        leftover: bytes = b"",
    ) -> Deferred[None]:
        creator, verification = self._tls.begin()
        information.securing(self._tls.protection_level)

        def note(secured: SSL.Connection) -> None:
            information.client_certificate = verification.certificate
            information.secured(secured)

        def log_error(failure: Failure) -> Failure:
            if not failure.check(ClosedError, CancelledError):
                _log.warn(
                    "TLS handshake with {host} port {port} failed: {error}",
                    host=information.remote_address,
                    port=information.remote_port,
                    error=failure.value,
                )
            return failure

        switch = _SocketSwitch(connection, Side.SERVER, creator, verification, timeout, leftover)
        return switch.begin().addCallbacks(note, log_error)


class _SocketSwitch(Switch):
    """
    The upgrade of a socket. Without messages it has no boundaries: it begins with the handshake.

    :param leftover: bytes of the peer's handshake that were received already.
    """

    __slots__ = ("_done", "_leftover", "_made", "_socket")

    def __init__(
        self,
        connection: Securable,
        side: Side,
        creator: Any,
        verification: Verification,
        timeout: float,
        leftover: bytes = b"",
    ) -> None:
        super().__init__(connection, connection.stream, side, timeout)
        self._socket = connection
        self._made = creator, verification
        self._leftover = leftover
        self._done: Deferred[SSL.Connection] = Deferred(self._cancelled)

    def begin(self) -> Deferred[SSL.Connection]:
        """
        Start the handshake.

        :returns: fires with OpenSSL's connection when the peer is accepted. If it fails, or is
            cancelled, the connection has been aborted.
        """
        self._socket.begin_upgrade(self)
        self.handle(Event.BEGIN_DIRECT)
        return self._done

    # Overrides of `Switch`.

    @override
    def prepare(self) -> tuple[Any, Verification]:
        return self._made

    @override
    def _take_leftover(self) -> bytes:
        leftover, self._leftover = self._leftover, b""
        return leftover

    @override
    def _hold_output(self) -> None:
        self._socket.suspend()
        super()._hold_output()

    @override
    def _abort(self, error: SocketError) -> None:
        self._socket.abort(error)

    @override
    def accepted(self, engine: Any) -> None:
        self._socket.forget_switch()
        if self._done.called:
            return  # A callback of the socket has cancelled it.
        if engine.connected:
            self._done.callback(engine.getHandle())
        else:
            self._done.errback(ended_when_secure())

    @override
    def failed(self, event: Event, error: SocketError) -> None:
        if not self._done.called:
            self._done.errback(error)

    def _cancelled(self, _done: Deferred[SSL.Connection]) -> None:
        self.handle(Event.CANCEL, ClosedError("the handshake was cancelled"))


def connecting_role(
    control: StreamSocketControl, level: SocketProtectionLevel, host: HostName
) -> ClientRole | None:
    """
    Return the role of this end in a connection that is secure from the start; None without TLS.

    :param level: the highest version of TLS, or ``PLAIN_SOCKET``.
    :param host: the name that the certificate of the server must have.
    :raises ValueError: for any other level.
    :raises OperationNotSupported: when this machine does not support the level.
    """
    level = SocketProtectionLevel(level)
    is_plain = level is SocketProtectionLevel.PLAIN_SOCKET
    return None if is_plain else ClientRole(control, level, host)


def upgrading_role(
    control: StreamSocketControl,
    level: SocketProtectionLevel,
    server_name: HostName | str | None,
    certificate: Certificate | None,
) -> TlsRole:
    """
    Return the role of this end in an upgrade: the server, if it has a certificate.

    :param level: the highest version of TLS.
    :param server_name: the name that the certificate of the server must have; None if this end is
        the server.
    :raises ValueError: for a level that is no level of TLS, and a missing or malformed name.
    :raises OperationNotSupported: when this machine does not support the level.
    """
    level = SocketProtectionLevel(level)
    if level is SocketProtectionLevel.PLAIN_SOCKET:
        raise ValueError("PlainSocket is not a level of TLS")
    if certificate is None:
        return ClientRole(control, level, checked_server_name(server_name))
    if server_name is not None:
        raise ValueError("pass a certificate as the server, or a name as the client: not both")
    return ServerRole(ServerTls(ServerOptions([certificate], level, control.min_protection_level)))


def checked_server_name(name: HostName | str | None) -> HostName:
    """
    Return the name that the certificate of a server must have.

    :raises ValueError: when it is missing, malformed, or a Bluetooth address.
    """
    if not name:
        raise ValueError("the name that the certificate must have is missing")
    host = as_host_name(name)
    if host.type is HostNameType.BLUETOOTH:
        raise ValueError(f"a certificate cannot name a Bluetooth address: {host.display_name}")
    return host
