"""
TLS for a conversation: options → name and files → **handshake** → the server's certificate.

The files are read before there is a connection, so that a mistake costs none. No text is sent
before the server is accepted. Nearly everything in a certificate is the server's word, which a
terminal might obey, and a certificate may have thousands of names: it is escaped and shortened.

``twsock certificates`` is here too.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import datetime
from typing import Final

from OpenSSL import SSL

from twsock.cli.arguments import EchoArguments, InitArguments
from twsock.cli.endpoints import find_host, parse_uri
from twsock.cli.output import CommandError, Output, UsageError, escape
from twsock.errors import BrokenError, RemoteProtocolError, SocketError, SocketErrorStatus
from twsock.names import HostName
from twsock.sockets import StreamSocket, StreamSocketControl, StreamSocketInformation
from twsock.tls import (
    Certificate,
    CertificateError,
    ChainValidationResult,
    ClientOptions,
    SocketProtectionLevel,
    choose_versions,
)
from twsock.tls.certificates import is_readable_by_others
from twsock.tls.client import make_client
from twsock.tls.development import LOOPBACK_NAMES, KeyKind, make_certificates

__all__ = [
    "MAX_NAMES",
    "NO_TLS",
    "OFFERED_LEVELS",
    "OTHER_NAME",
    "apply_security",
    "describe_certificate",
    "explain_failure",
    "explain_handshake",
    "explain_refusal",
    "init_certificates",
    "prepare_proxy_security",
    "prepare_security",
    "report_security",
    "secure",
    "warn_of_exposed_key",
]

#: Endpoints of Twisted that have TLS of their own.
_SECURE_ENDPOINTS: Final = ("tls", "ssl")

#: The levels of ``--level``.
OFFERED_LEVELS: Final = {
    None: SocketProtectionLevel.SSL,
    "tls12": SocketProtectionLevel.TLS12,
    "tls13": SocketProtectionLevel.TLS13,
}

#: How many names of a certificate are shown: more than an ordinary one has.
MAX_NAMES: Final = 20

#: Longest text of a certificate that is shown, in characters. A name in the DNS has at most 253.
_MAX_TEXT: Final = 256

#: What a server means by ending a handshake: part of OpenSSL's reason, which has other words before
#: it from version to version, and what to do.
_HINTS: Final = {
    "certificate required": "the server asks for --client-certificate FILE",
    "handshake failure": "the server may ask for --client-certificate FILE or another --level",
    "protocol version": "the server supports none of the offered versions of TLS, see --level",
    "unsupported protocol": "the server chose a version of TLS that is not accepted, see --level",
    "unknown ca": "the server does not trust the issuer of the --client-certificate",
    "bad certificate": "the server does not accept the --client-certificate",
    "certificate unknown": "the server does not accept the --client-certificate",
    "unsupported certificate": "the --client-certificate is not for clients",
    "certificate expired": "the --client-certificate has expired",
    "certificate revoked": "the --client-certificate was revoked",
    "wrong version number": "the server did not answer with TLS",
    "packet length too long": "the server did not answer with TLS",
    # An echo server, which sends the client its own hello.
    "unexpected message": "the server did not answer the handshake",
}

#: The end of the line when a server ends a handshake, or lets it wait, without a word of TLS.
NO_TLS: Final = "; perhaps the server does not offer TLS"

#: What to do if a certificate is for another name.
OTHER_NAME: Final = "set the expected name with --name HOST"

_R = ChainValidationResult

#: Why a certificate is refused; reasons that name a part of it or an option are in `_explain`.
_MEANINGS: Final = {
    _R.REVOKED: "it was revoked",
    _R.INVALID_SIGNATURE: "its signature is wrong: it was changed, or its issuer did not sign it",
    _R.WRONG_USAGE: "it was not issued for servers",
    _R.INVALID_CERTIFICATE_AUTHORITY_POLICY: "its issuer's policy does not allow it",
    _R.BASIC_CONSTRAINTS_ERROR: "its issuer is not an authority",
    _R.UNKNOWN_CRITICAL_EXTENSION: "it has a critical extension that is not supported here",
    _R.REVOCATION_INFORMATION_MISSING: "its revocation status is unknown",
    _R.REVOCATION_FAILURE: "the check of its revocation failed",
}


def prepare_security(arguments: EchoArguments) -> ClientOptions:
    """
    Read the files and find the name.

    :raises UsageError: when a file cannot be used, the name for the certificate is missing, or this
        machine's OpenSSL does not have the level.
    """
    try:
        options = ClientOptions(
            choose_versions(OFFERED_LEVELS[arguments.level]),
            _find_name(arguments),
            _read_authorities(arguments.ca),
            _read_certificate(arguments.client_certificate),
        )
        # Once, to see whether OpenSSL accepts all that, before there is a connection.
        make_client(options)
    except SocketError as error:
        raise UsageError(str(error)) from error
    return options


def prepare_proxy_security(path: str | None, host: HostName) -> ClientOptions:
    """
    Return which certificates of a proxy are trusted.

    :param path: the file with the authorities; None for those of this machine.
    :raises UsageError: when the file cannot be used.
    """
    try:
        roots = _read_authorities(path)
        return ClientOptions(choose_versions(SocketProtectionLevel.SSL), host, roots)
    except SocketError as error:
        raise UsageError(str(error)) from error


def warn_of_exposed_key(path: str | None, output: Output, secret: str = "key") -> None:
    """Print a warning if others can read the key, or another secret, in a file."""
    if path is not None and is_readable_by_others(path):
        output.note(f"the {secret} in {path} can be read by others: chmod 600 {shlex.quote(path)}")


async def secure(
    stream_socket: StreamSocket, options: ClientOptions, arguments: EchoArguments, output: Output
) -> None:
    """
    Put TLS on a connection, and print what it is. Cancelling aborts the connection.

    :param options: made of the arguments by `prepare_security`.
    :raises CommandError: when the connection is not secure; it is gone then.
    """
    control, information = stream_socket.control, stream_socket.information
    apply_security(control, options)
    level, host = OFFERED_LEVELS[arguments.level], options.host_name
    try:
        await stream_socket.upgrade_to_ssl(level, host, timeout=arguments.timeout)
    except SocketError as error:
        raise explain_handshake(error, options, arguments, output) from error
    report_security(information, host, arguments, output)


def apply_security(control: StreamSocketControl, options: ClientOptions) -> None:
    """Set the options of a socket that is not secure yet."""
    control.trust_roots = options.trust_roots
    control.client_certificate = options.certificate
    control.resumes_sessions = False


def report_security(
    information: StreamSocketInformation, host: HostName, arguments: EchoArguments, output: Output
) -> None:
    """Print that a connection is secure, and its certificate if the arguments say so."""
    version = information.negotiated_version
    if arguments.show_certificate and information.server_certificate is not None:
        connection = f"{version}, {information.cipher}"
        output.note(*describe_certificate(information.server_certificate, connection))
    output.say(f"client is secure: {version}, certificate verified for {host.display_name}")


def explain_handshake(
    error: SocketError,
    options: ClientOptions,
    arguments: EchoArguments,
    output: Output,
    other_name: str = OTHER_NAME,
) -> CommandError:
    """
    Describe why a handshake failed; print a refused certificate if the arguments say so.

    :param other_name: as for `explain_refusal`.
    """
    if isinstance(error, CertificateError):
        if arguments.show_certificate and error.certificate is not None:
            output.note(*describe_certificate(error.certificate))
        return explain_refusal(error, options, other_name)
    if isinstance(error, RemoteProtocolError):
        return CommandError(f"TLS failed: {error}")
    # The connection ended without an alert of TLS, or nothing that is TLS came in time.
    is_end = isinstance(error, BrokenError) and not isinstance(error.__cause__, SSL.Error)
    is_late = error.status is SocketErrorStatus.CONNECTION_TIMED_OUT
    hint = NO_TLS if is_end or is_late else ""
    return CommandError(f"TLS failed: {explain_failure(error)}{hint}")


def explain_failure(error: SocketError) -> str:
    """
    Describe why a handshake failed, or the connection right after it; one line.

    :param error: anything but a refused certificate.
    """
    line = error.summary
    hint = next((hint for reason, hint in _HINTS.items() if reason in line), None)
    return line if hint is None else f"{line}; {hint}"


def describe_certificate(certificate: Certificate, connection: str = "") -> list[str]:
    """
    Return lines that describe a certificate.

    :param connection: version and cipher suite; empty if there is none.
    """
    facts = {
        "subject": _read(lambda: certificate.subject),
        "issuer": _read(lambda: certificate.issuer),
        "names": _describe_names(certificate),
        "valid": _describe_validity(certificate),
        "SHA-256": certificate.get_hash_value("SHA256").hex(),
        "connection": connection,
    }
    lines = [f"  {name:<10}  {fact}" for name, fact in facts.items() if fact]
    return ["the server sent a certificate:", *lines]


def explain_refusal(
    error: CertificateError,
    options: ClientOptions,
    other_name: str = OTHER_NAME,
    authorities: str = "--ca",
) -> CommandError:
    """
    Describe why a certificate was refused, reason by reason, and what to do about it.

    :param other_name: what to do if the certificate is for another name.
    :param authorities: the option that names the trusted authorities.
    """
    status = error.status
    certificate = error.certificate
    return CommandError(
        f"the certificate of {options.host_name.display_name} is refused: "
        f"{status.documented_name} ({status.value})",
        details=[
            f"{reason.documented_name}: "
            f"{_explain(reason, certificate, options, other_name, authorities)}"
            for reason in error.errors
        ],
    )


def init_certificates(arguments: InitArguments, output: Output) -> None:
    """
    Make an authority, a server's and a client's certificate, and print how to use them.

    :raises CommandError: when the folder is not empty, or cannot be written.
    """
    names = tuple(arguments.name or LOOPBACK_NAMES)
    try:
        files = make_certificates(arguments.directory, names, key=KeyKind(arguments.key))
    except SocketError as error:
        raise CommandError(str(error)) from error
    # Absolute, as the two commands below may be typed in different folders.
    authority, server, client = (
        str(path.absolute()) for path in (files.authority, files.server, files.client)
    )
    offer = ["twistd", "--pidfile=", "-n", "twsock-stream", "--tls", "--certificate", server]
    use = ["twsock", "echo", "tcp:127.0.0.1:1337", "Hello", "--tls", "--ca", authority]
    if "127.0.0.1" not in names:
        use += ["--name", names[0]]
    for line in (
        f"{authority}: the authority that issued the other two",
        f"{server}: a server's certificate and its key, for {', '.join(names)}",
        f"{client}: a client's certificate and its key",
        "",
        "Test them in two terminals:",
        f"  {shlex.join(offer)}",
        f"  {shlex.join(use)}",
    ):
        output.say(line)


def _find_name(arguments: EchoArguments) -> HostName:
    endpoint = arguments.endpoint
    if arguments.is_websocket:
        return parse_uri(endpoint).host if arguments.name is None else HostName(arguments.name)
    if endpoint.partition(":")[0].lower() in _SECURE_ENDPOINTS:
        raise UsageError(f"the endpoint {endpoint!r} already uses TLS: remove --tls and --upgrade")
    name = arguments.name or find_host(endpoint)
    if name is None:
        raise UsageError(
            f"--name HOST is missing: {endpoint!r} does not contain the host of the certificate"
        )
    try:
        return HostName(name)
    except ValueError as error:
        raise UsageError(f"--name HOST is missing: {error}") from error


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


def _explain(
    reason: ChainValidationResult,
    certificate: Certificate | None,
    options: ClientOptions,
    other_name: str,
    authorities: str,
) -> str:
    if certificate is not None:
        if reason is _R.INVALID_NAME:
            names = _describe_names(certificate)
            return f"it is for {names or 'nobody'}; {other_name}"
        if reason is _R.EXPIRED:
            return f"it is valid {_describe_validity(certificate)}, unless an issuer expired"
        if reason in (_R.UNTRUSTED, _R.INCOMPLETE_CHAIN):
            issuer = _read(lambda: certificate.issuer)
            if options.trust_roots is None:
                return (
                    f"its issuer, {issuer}, is not trusted; "
                    f"name a trusted authority with {authorities} FILE"
                )
            return f"its issuer, {issuer}, is not in {authorities}, nor issued by one that is"
    return _MEANINGS.get(reason, "it has a fault of another kind")


def _describe_names(certificate: Certificate) -> str:
    def read() -> str:
        names = certificate.subject_alternative_name
        every = (*names.dns_names, *names.ip_addresses, *names.email_names, *names.urls)
        shown = [name[:_MAX_TEXT] for name in every[:MAX_NAMES]]
        if len(every) > MAX_NAMES:
            shown.append(f"{len(every) - MAX_NAMES} more")
        return ", ".join(shown)

    return _read(read, MAX_NAMES * _MAX_TEXT)


def _describe_validity(certificate: Certificate) -> str:
    return f"from {_moment(certificate.valid_from)} to {_moment(certificate.valid_to)} UTC"


def _moment(moment: datetime) -> str:
    return moment.isoformat(" ", "minutes").removesuffix("+00:00")


def _read(read: Callable[[], str], max_text: int = _MAX_TEXT) -> str:
    """Read a part of a certificate, which is parsed only now and may be malformed."""
    try:
        text = read()
    except ValueError:
        return "(malformed)"
    shown = text if len(text) <= max_text else f"{text[:max_text]}…"
    return escape(shown.encode(errors="replace"))
