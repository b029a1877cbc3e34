"""
How a connected socket becomes secure: socket → **handshake** → what is known of the peer.

Called by a `StreamSocket`, which has made sure that no read or write is pending. Plaintext that was
not read is never taken for what came encrypted.
"""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twsock.errors import ClosedError, RemoteProtocolError
from twsock.log import TextLogger
from twsock.names import HostName
from twsock.sockets.stream.connection import Connection
from twsock.sockets.stream.control import StreamSocketControl
from twsock.sockets.stream.information import StreamSocketInformation
from twsock.tls.client import ClientOptions, make_client
from twsock.tls.handshake import CLIENT_HELLO, Handshake
from twsock.tls.levels import SocketProtectionLevel, choose_versions
from twsock.tls.server import ServerTls

__all__ = ["refuse_plaintext", "secure_client", "secure_server"]

_log = TextLogger()


def refuse_plaintext(
    connection: Connection,
    information: StreamSocketInformation,
    leftover: bytes,
    *,
    is_server: bool,
) -> None:
    """
    Abort where the peer sent something that was not read, and is no part of its handshake.

    :param is_server: whether it is the peer who speaks first in the handshake.
    :raises RemoteProtocolError: then.
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
    connection: Connection,
    control: StreamSocketControl,
    information: StreamSocketInformation,
    level: SocketProtectionLevel,
    host: HostName,
    clock: IReactorTime,
    timeout: float,
) -> Deferred[None]:
    """
    Be the client of a handshake, now.

    :param level: the highest version.
    :param host: whom the certificate has to be for.
    :returns: fires when it is done and the server accepted; otherwise the connection is gone.
    :raises SocketError: when this machine cannot do the level, or the client's certificate cannot
        be used; nothing has happened then.
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
    connection: Connection,
    information: StreamSocketInformation,
    tls: ServerTls,
    clock: IReactorTime,
    timeout: float,
    leftover: bytes = b"",
) -> Deferred[None]:
    """
    Be the server of a handshake, now.

    :param leftover: what has come of the client's part.
    :returns: fires when it is done and the client let in; otherwise the connection is gone, and
        the log says why.
    """
    creator, verification = tls.begin()
    information.securing(tls.protection_level)

    def note(secured: SSL.Connection) -> None:
        information.client_certificate = verification.certificate
        information.secured(secured)

    def tell(failure: Failure) -> Failure:
        if not failure.check(ClosedError, CancelledError):
            _log.warn(
                "{host} port {port} not let into TLS: {error}",
                host=information.remote_address,
                port=information.remote_port,
                error=failure.value,
            )
        return failure

    handshake = Handshake(connection, creator, verification, clock, timeout, is_client=False)
    return handshake.begin(leftover).addCallbacks(note, tell)
