"""
The client side of a handshake: options → **connection creator** → Twisted's TLS engine.

A socket makes one for each handshake, and reads the server's certificate from it afterwards.
OpenSSL verifies the chain, ``service_identity`` the name. This module decides whether the errors
are ignorable. It does so before the client's own certificate is sent.
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
from twsock.tls.certificates import Certificate, use_certificate
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
    The settings of a client for one handshake.

    :ivar versions: the versions of TLS that it offers.
    :ivar host_name: the name that the certificate has to be for; a domain name is also sent as SNI.
    :ivar trust_roots: trusted authorities; None for those of the platform.
    :ivar certificate: sent if the server asks for one; has a private key.
    :ivar ignorable_errors: errors of verification that do not end the handshake.
    :ivar application_protocols: offered with ALPN (:rfc:`7301`), the preferred first.
    :ivar resumes_sessions: whether a session of an earlier connection to the same host and port may
        be resumed, and the session of this one stored; see `twsock.tls.resumption`.
    :raises ValueError: when the host is a Bluetooth address, since no certificate is for one.
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
            raise ValueError(f"a certificate cannot name a Bluetooth address: {name}")


class ClientVerification:
    """
    The server's certificate and the errors of its verification; filled in during the handshake.

    :ivar certificate: the server's; None until the server has sent it.
    :ivar intermediates: the certificates of its issuers that it sent, its own issuer first.
    :ivar is_accepted: whether the server was accepted.
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
        """All errors, each once, including the ignored ones."""
        return self._findings.errors

    @property
    def severity(self) -> SocketSslErrorSeverity:
        """The severity of the worst error."""
        return severity_of(self.errors)

    def refusal(self) -> SocketError | None:
        """Return the error that says why the certificate was refused; None if it was not."""
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
        Record one step of the verification; decide at the last (see `twsock.tls.openssl.Judge`).

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
        # An ignored error also sets the code, which stays with the session: it is never resumed.
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
    :returns: an ``IOpenSSLClientConnectionCreator`` for Twisted's engine, and the verification.
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
    """Makes the OpenSSL connection of one handshake."""

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
        host = self._options.host_name
        if host.type is HostNameType.DOMAIN_NAME:
            # SNI must not contain an address (RFC 6066, section 3).
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
    # Twisted's options include its choice of ciphers.
    made = CertificateOptions(
        trustRoot=_trust_root(options.trust_roots), enableSessionTickets=options.resumes_sessions
    )
    context: SSL.Context = made.getContext()
    context.set_min_proto_version(options.versions.lowest)
    context.set_max_proto_version(options.versions.highest)
    # A server that begins one in TLS 1.2 and then stops would block all output for ever.
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
