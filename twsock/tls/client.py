"""
The client's side of a handshake: what is asked for → **connection creator** → Twisted's TLS engine.

Made by a socket for one handshake, and asked afterwards what the server showed. The chain is
verified by OpenSSL, the name by ``service_identity``; here is only decided whether what is wrong
was forgiven beforehand. That happens before the client's own certificate is sent.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate as TwistedCertificate
from twisted.internet.ssl import CertificateOptions, platformTrust, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from twsock.errors import SocketError
from twsock.names import HostName, HostNameType
from twsock.tls.certificate_error import CertificateError
from twsock.tls.certificates import Certificate
from twsock.tls.identity import use_certificate
from twsock.tls.levels import VersionRange
from twsock.tls.naming import from_openssl, is_named
from twsock.tls.openssl import BINDING, Binding, verify_peer
from twsock.tls.resumption import ClientSessions, Resumption, ServerVerdict, make_verdict
from twsock.tls.validation import (
    NAME_MISMATCH,
    ChainValidationResult,
    Findings,
    SocketSslErrorSeverity,
    are_forgiven,
    severity_of,
)

__all__ = ["ClientOptions", "ClientVerification", "make_client"]


#: The sessions of this process.
_SESSIONS: Final = ClientSessions()


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """
    What a client asks of a handshake.

    :ivar versions: which versions it offers.
    :ivar host_name: whom the certificate has to be for; a domain name is told to the server, too.
    :ivar trust_roots: authorities that are trusted; None for those of the platform.
    :ivar certificate: identifies the client if the server asks for that; it has its key.
    :ivar ignorable_errors: what is forgiven.
    :ivar application_protocols: offered to choose from (ALPN, :rfc:`7301`), the preferred first.
    :ivar resumes_sessions: whether a session of an earlier connection to the same host and port may
        be resumed, and that of this one kept; see `twsock.tls.resumption`.
    :raises ValueError: when the host has a Bluetooth address, for which there are no certificates.
    """

    versions: VersionRange
    host_name: HostName
    trust_roots: Sequence[Certificate] | None = None
    certificate: Certificate | None = None
    ignorable_errors: Collection[ChainValidationResult] = ()
    application_protocols: Sequence[bytes] = ()
    resumes_sessions: bool = True

    def __post_init__(self) -> None:
        if self.host_name.type is HostNameType.BLUETOOTH:
            name = self.host_name.display_name
            raise ValueError(f"no certificate is for a Bluetooth address: {name}")


class ClientVerification:
    """
    What the server showed, and what is wrong with it; filled in during the handshake.

    :ivar certificate: the server's; None until it has shown one.
    :ivar intermediates: the certificates of its issuers that it sent, its own issuer first.
    :ivar is_accepted: whether the connection may go on.
    :ivar is_resumed: whether a session was resumed, without a new verification of the server.
    :param resumption: finds and stores sessions; None for a connection without resumption.
    """

    def __init__(self, options: ClientOptions, resumption: Resumption | None = None) -> None:
        self.certificate: Certificate | None = None
        self.intermediates: tuple[Certificate, ...] = ()
        self.is_accepted = False
        self.is_resumed = False
        self._findings = Findings()
        self._options = options
        self._resumption = resumption
        self._verdict: ServerVerdict | None = None

    @property
    def errors(self) -> tuple[ChainValidationResult, ...]:
        """All errors, each once, including the forgiven ones."""
        return self._findings.errors

    @property
    def severity(self) -> SocketSslErrorSeverity:
        """That of the worst error."""
        return severity_of(self.errors)

    def refusal(self) -> SocketError | None:
        """Make the error that says why the certificate was refused; None while it was not."""
        if self.is_accepted or self.certificate is None:
            return None
        name = self._options.host_name.display_name
        return CertificateError(f"the certificate of {name}", self.errors, self.certificate)

    # Called by the handshake.

    def conclude(self, connection: SSL.Connection) -> None:
        """Conclude a handshake that is done; accept a resumed session by its stored verdict."""
        resumption = self._resumption
        if resumption is None:
            return
        self.is_resumed = resumption.is_resumed(connection)
        if self.is_resumed:
            self._verdict = verdict = resumption.verdict(connection)
            self.is_accepted = verdict is not None
            if verdict is not None:
                self.certificate = verdict.certificate
                self.intermediates = verdict.intermediates
        elif self.certificate is not None and not self.errors:
            self._verdict = make_verdict(connection, self.certificate, self.intermediates)

    def ended(self, connection: SSL.Connection) -> None:
        """Store the session of a connection that has ended, for a later one to resume."""
        if self._resumption is not None and self._verdict is not None:
            self._resumption.keep(connection, self._verdict)

    # Called by OpenSSL.

    def check(
        self, connection: SSL.Connection, shown: Any, code: int, depth: int, ok: int
    ) -> tuple[bool, int]:
        """
        Note one step of the verification; decide with the last (see `twsock.tls.openssl.Judge`).

        OpenSSL reports each error, and continues if told to. Then it reports success for each
        certificate, from the root down. After the server's own certificate it may report further
        errors, since it checks name constraints last (:rfc:`5280`, section 4.2.1.10).
        """
        if not ok:
            self._findings.add(code)
            return (True, code) if self.certificate is None else self._decide()
        if depth:
            return True, code
        self._take_chain(connection, shown)
        if not is_named(shown, self._options.host_name):
            self._findings.add(NAME_MISMATCH)
        return self._decide()

    def _decide(self) -> tuple[bool, int]:
        ignorable = self._options.ignorable_errors
        self.is_accepted = are_forgiven(self.errors, ignorable)
        # A forgiven error also sets the code, which stays with the session: it is never resumed.
        return self.is_accepted, self._findings.worst_code(ignorable)

    def _take_chain(self, connection: SSL.Connection, shown: Any) -> None:
        self.certificate = from_openssl(shown)
        sent = connection.get_peer_cert_chain() or []
        self.intermediates = tuple(map(from_openssl, sent[1:]))


def make_client(
    options: ClientOptions,
    service: str = "",
    *,
    sessions: ClientSessions = _SESSIONS,
    binding: Binding | None = BINDING,
) -> tuple[Any, ClientVerification]:
    """
    Prepare one handshake.

    :param service: port of the server, to find a session to resume; empty for no resumption.
    :param sessions: the cache of sessions.
    :returns: an ``IOpenSSLClientConnectionCreator`` for Twisted's engine, and what it will find.
    :raises SocketError: when the client's certificate cannot be used.
    """
    resumption = None
    if options.resumes_sessions and service and binding is not None:
        resumption = sessions.begin(
            binding, _settings(options), options.host_name, service, lambda: _make_context(options)
        )
    verification = ClientVerification(options, resumption)
    context = _make_context(options) if resumption is None else resumption.context
    return _Creator(context, options, verification, resumption), verification


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    """Makes the connection of one handshake."""

    def __init__(
        self,
        context: SSL.Context,
        options: ClientOptions,
        verification: ClientVerification,
        resumption: Resumption | None,
    ) -> None:
        self._context = context
        self._resumption = resumption
        self._options = options
        self._verification = verification

    # Called by Twisted.

    def clientConnectionForTLS(
        self,
        tlsProtocol: TLSMemoryBIOProtocol,  # noqa: N803 - Twisted's name
    ) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)
        host = self._options.host_name
        if host.type is HostNameType.DOMAIN_NAME:
            # Literal addresses are not permitted there (RFC 6066, section 3).
            connection.set_tlsext_host_name(host.canonical_name.encode("ascii"))
        mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        verify_peer(connection, mode, self._verification.check)
        if self._resumption is not None:
            self._resumption.offer(connection)
        return connection


def _settings(options: ClientOptions) -> Hashable:
    """Return everything except the host that the verification or the session depends on."""
    roots, mine = options.trust_roots, options.certificate
    return (
        options.versions,
        None if roots is None else tuple(roots),
        # Certificates compare without their chain, but the chain belongs to the context too.
        None if mine is None else (mine, mine.intermediates),
        frozenset(options.ignorable_errors),
        tuple(options.application_protocols),
    )


def _make_context(options: ClientOptions) -> SSL.Context:
    # Twisted's options bring its choice of ciphers.
    made = CertificateOptions(
        trustRoot=_trust_root(options.trust_roots), enableSessionTickets=options.resumes_sessions
    )
    context: SSL.Context = made.getContext()
    context.set_min_proto_version(options.versions.lowest)
    context.set_max_proto_version(options.versions.highest)
    # A server that begins one in TLS 1.2 and stops would keep all that is written waiting.
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    if options.application_protocols:
        context.set_alpn_protos(list(options.application_protocols))
    if options.certificate is not None:
        use_certificate(options.certificate, context)
    return context


def _trust_root(roots: Sequence[Certificate] | None) -> Any:
    if roots is None:
        return platformTrust()
    return trustRootFromCertificates(
        [TwistedCertificate.load(root.get_certificate_blob()) for root in roots]
    )
