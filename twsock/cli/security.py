"""
TLS for a conversation: what was asked for → name and files → **upgrade** → words about it.

Prepared by `twsock.cli.command` before anything is connected, so that a file that cannot be used
costs no connection; run by `twsock.cli.echo` before the first text.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Final

from OpenSSL import SSL

from twsock.cli.endpoint import find_host
from twsock.cli.failure import CommandError, UsageError
from twsock.cli.screen import Screen
from twsock.cli.server_certificate import describe_certificate, explain_refusal
from twsock.errors import (
    BrokenError,
    OperationNotSupported,
    RemoteProtocolError,
    SocketError,
)
from twsock.names import HostName
from twsock.protocols import ClientUpgrade, StreamProtocol, UpgradeStyle
from twsock.tls import (
    Certificate,
    CertificateError,
    ClientOptions,
    SocketProtectionLevel,
    choose_versions,
)
from twsock.tls.certificates import is_readable_by_others
from twsock.tls.client import make_client
from twsock.tls.levels import VersionRange

__all__ = [
    "SecurityArguments",
    "explain_failure",
    "prepare_upgrade",
    "secure",
    "warn_of_exposed_key",
]

#: Endpoints of Twisted that make TLS themselves.
_SECURE_ENDPOINTS: Final = ("tls", "ssl")

#: What a server means that ends a handshake, or a connection right after it: part of the reason in
#: OpenSSL's words, which differ from version to version in what stands before, and what to do.
_HINTS: Final = {
    "certificate required": "the server asks for --client-certificate FILE",
    "handshake failure": "the server may ask for --client-certificate FILE or another --level",
    "protocol version": "the server takes no version of TLS that is offered, see --level",
    "unsupported protocol": "the server has no version of TLS that is accepted, see --level",
    "unknown ca": "the server does not trust who issued the --client-certificate",
    "bad certificate": "the server does not accept the --client-certificate",
    "certificate unknown": "the server does not accept the --client-certificate",
    "unsupported certificate": "the --client-certificate is none for clients",
    "certificate expired": "the --client-certificate has expired",
    "certificate revoked": "the --client-certificate was withdrawn",
    "wrong version number": "what the server sent is no TLS",
    "packet length too long": "what the server sent is no TLS",
    # Its own hello: the server is an echo server, and nothing more.
    "unexpected message": "what the server sent is no answer to a handshake",
}


@dataclass(frozen=True, slots=True)
class SecurityArguments:
    """
    What a command line asked for with ``--tls`` or ``--upgrade``.

    :ivar style: how it begins; ``--tls`` is ``DIRECT``, with nothing sent before.
    :ivar authorities: file of those that are trusted; None for those of the platform.
    :ivar name: whom the certificate has to be for; None for the host of the endpoint.
    :ivar certificate: file of the certificate with which this end identifies itself.
    :ivar level: the highest version offered.
    """

    style: UpgradeStyle = UpgradeStyle.DIRECT
    authorities: str | None = None
    name: str | None = None
    certificate: str | None = None
    level: SocketProtectionLevel = SocketProtectionLevel.SSL


def prepare_upgrade(arguments: SecurityArguments, endpoint: str, timeout: float) -> ClientUpgrade:
    """
    Read the files and find the name.

    :param endpoint: the ENDPOINT argument.
    :param timeout: seconds for the upgrade.
    :raises UsageError: when a file cannot be used, nothing says whom the certificate has to be for,
        or this machine's OpenSSL does not have the level.
    """
    host = _find_name(arguments, endpoint)
    try:
        options = ClientOptions(
            _find_versions(arguments.level),
            host,
            trust_roots=_read_authorities(arguments.authorities),
            certificate=_read_certificate(arguments.certificate),
        )
        # Once to see whether OpenSSL takes all that, before anything is connected.
        make_client(options)
    except SocketError as error:
        raise UsageError(str(error)) from error
    return ClientUpgrade(options, style=arguments.style, timeout=timeout)


def warn_of_exposed_key(arguments: SecurityArguments, screen: Screen) -> None:
    """Say so where the key of this end's certificate is no secret."""
    path = arguments.certificate
    if path is not None and is_readable_by_others(path):
        screen.note(f"the key in {path} can be read by others: chmod 600 {shlex.quote(path)}")


async def secure(
    client: StreamProtocol, upgrade: ClientUpgrade, screen: Screen, *, shows_certificate: bool
) -> None:
    """
    Put TLS on a connection, and tell of it. Cancelling ends the connection.

    :param shows_certificate: whether to show the server's, also when it is refused.
    :raises CommandError: when the connection is not secure; it is gone then.
    """
    options = upgrade.options
    try:
        await client.upgrade_to_ssl(upgrade)
    except CertificateError as error:
        if shows_certificate and error.certificate is not None:
            screen.note(*describe_certificate(error.certificate))
        raise explain_refusal(error, options) from error
    except RemoteProtocolError as error:
        raise CommandError(f"TLS failed: {error}") from error
    except SocketError as error:
        hint = "; perhaps the server does not offer TLS" if _has_just_ended(error) else ""
        raise CommandError(f"TLS failed: {explain_failure(error)}{hint}") from error
    connection: SSL.Connection = client.transport.getHandle()
    version = connection.get_protocol_version_name()
    if shows_certificate and client.peer_certificate is not None:
        cipher = connection.get_cipher_name() or ""
        screen.note(*describe_certificate(client.peer_certificate, f"{version}, {cipher}"))
    screen.say(f"client is secure: {version}, {options.host_name.display_name} is who it says")


def explain_failure(error: SocketError) -> str:
    """
    Say why a handshake, or the connection right after it, came to nothing; one line.

    :param error: anything but a refused certificate.
    """
    line = error.summary
    hint = next((hint for reason, hint in _HINTS.items() if reason in line), None)
    return line if hint is None else f"{line}; {hint}"


def _has_just_ended(error: SocketError) -> bool:
    """Tell whether the connection went away without a word of TLS."""
    return isinstance(error, BrokenError) and not isinstance(error.__cause__, SSL.Error)


def _find_name(arguments: SecurityArguments, endpoint: str) -> HostName:
    if endpoint.partition(":")[0].lower() in _SECURE_ENDPOINTS:
        raise UsageError(
            f"the endpoint {endpoint!r} has TLS of its own: --tls and --upgrade are for others"
        )
    name = arguments.name or find_host(endpoint)
    if name is None:
        raise UsageError(
            f"--name HOST is missing: {endpoint!r} does not say whom the certificate has to be for"
        )
    try:
        return HostName(name)
    except ValueError as error:
        raise UsageError(f"--name HOST is missing: {error}") from error


def _find_versions(level: SocketProtectionLevel) -> VersionRange:
    try:
        return choose_versions(level)
    except OperationNotSupported as error:
        raise UsageError(f"--level cannot be had: {error}") from error


def _read_authorities(path: str | None) -> list[Certificate] | None:
    if path is None:
        return None
    first = Certificate.load(path)
    return [first, *first.intermediates]


def _read_certificate(path: str | None) -> Certificate | None:
    if path is None:
        return None
    certificate = Certificate.load(path)
    if not certificate.has_private_key:
        raise UsageError(f"cannot use {path}: --client-certificate needs the key in it, too")
    return certificate
