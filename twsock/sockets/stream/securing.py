"""
TLS handshakes of a connected stream socket: socket → **handshake** → verified peer.

Called by a `StreamSocket`, which has checked that no read or write is pending. Plaintext that was
not read is never delivered as if it had been encrypted.
"""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twsock.errors import ClosedError, RemoteProtocolError
from twsock.log import TextLogger
from twsock.names import HostName
from twsock.sockets.stream.connection import SocketProtocol
from twsock.sockets.stream.control import StreamSocketControl
from twsock.sockets.stream.information import StreamSocketInformation
from twsock.tls.client import ClientOptions, make_client
from twsock.tls.handshake import CLIENT_HELLO, Handshake
from twsock.tls.levels import SocketProtectionLevel, choose_versions
from twsock.tls.server import ServerTls

__all__ = ["refuse_plaintext", "secure_client", "secure_server"]

_log = TextLogger()


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


def secure_client(
    connection: SocketProtocol,
    control: StreamSocketControl,
    information: StreamSocketInformation,
    level: SocketProtectionLevel,
    host: HostName,
    clock: IReactorTime,
    timeout: float,
) -> Deferred[None]:
    """
    Start a handshake as its client.

    :param level: the highest version of TLS.
    :param host: the name that the certificate of the server must have.
    :returns: fires when the handshake is done and the server verified. If it fails, the connection
        has been aborted.
    :raises SocketError: before anything is sent, when this machine does not support the level, or
        the certificate of the client cannot be used.
    """
    options = ClientOptions(
        choose_versions(level, control.min_protection_level),
        host,
        control.trust_roots,
        control.client_certificate,
        tuple(control.ignorable_server_certificate_errors),
        tuple(control.application_protocols),
        control.resumes_sessions,
    )
    creator, verification = make_client(options, information.remote_port)
    information.securing(level, verification)
    handshake = Handshake(connection, creator, verification, clock, timeout)
    return handshake.begin().addCallback(information.secured)


def secure_server(
    connection: SocketProtocol,
    information: StreamSocketInformation,
    tls: ServerTls,
    clock: IReactorTime,
    timeout: float,
    leftover: bytes = b"",
) -> Deferred[None]:
    """
    Start a handshake as its server.

    :param leftover: the beginning of the client's handshake, if it was received.
    :returns: fires when the handshake is done and the client accepted. If it fails, the connection
        has been aborted, and the reason was logged.
    """
    creator, verification = tls.begin()
    information.securing(tls.protection_level)

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

    handshake = Handshake(connection, creator, verification, clock, timeout, is_client=False)
    return handshake.begin(leftover).addCallbacks(note, log_error)
