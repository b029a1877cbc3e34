"""
The server side of handshakes: certificates and client policy → **server TLS** → TLS engine.

A listener has one, which prepares a handshake for each connection. The name in the ClientHello
(SNI) selects the certificate; ``service_identity`` compares the names. OpenSSL verifies the
client's certificate; no error is ignored.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from twsock.errors import SocketError
from twsock.names import HostName, HostNameType
from twsock.tls.certificate_error import CertificateError
from twsock.tls.certificates import Certificate, use_certificate
from twsock.tls.levels import SocketProtectionLevel, choose_versions
from twsock.tls.naming import from_openssl, is_named
from twsock.tls.openssl import verify_peer
from twsock.tls.validation import ChainValidationResult, Findings

__all__ = ["ClientCertificatePolicy", "ServerOptions", "ServerTls", "ServerVerification"]


class ClientCertificatePolicy(enum.Enum):
    """Whether a client may or must send a certificate."""

    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """
    The settings of a server for its handshakes.

    :ivar certificates: with their keys; the first is used if none is for the name in the
        ClientHello.
    :ivar protection_level: the highest version.
    :ivar min_protection_level: the lowest version; ``UNSPECIFIED`` for TLS 1.2.
    :ivar client_certificate: whether clients may or must send a certificate.
    :ivar client_authorities: the issuers of client certificates.
    :ivar application_protocols: supported inside TLS (ALPN), the preferred first. A client whose
        offer has none of them is refused with the alert ``no_application_protocol``. If this is
        empty, every offer is ignored.
    :raises ValueError: when there is no certificate, one has no key, or client certificates are
        verified and no authority is given.
    """

    certificates: Sequence[Certificate]
    protection_level: SocketProtectionLevel = SocketProtectionLevel.SSL
    min_protection_level: SocketProtectionLevel = SocketProtectionLevel.UNSPECIFIED
    client_certificate: ClientCertificatePolicy = ClientCertificatePolicy.OFF
    client_authorities: Sequence[Certificate] = ()
    application_protocols: Sequence[bytes] = ()

    def __post_init__(self) -> None:
        if not self.certificates:
            raise ValueError("a server needs a certificate")
        for certificate in self.certificates:
            if not certificate.has_private_key:
                raise ValueError(f"the certificate of {certificate.subject} has no key")
        asks = self.client_certificate is not ClientCertificatePolicy.OFF
        if asks and not self.client_authorities:
            raise ValueError("to verify client certificates, an authority is needed")


class ServerVerification:
    """
    The verification of one client; filled in during its handshake.

    :ivar certificate: the client's, verified; None if it sent none.
    :ivar policy: whether it may or must send one.
    """

    def __init__(self, policy: ClientCertificatePolicy) -> None:
        self.certificate: Certificate | None = None
        self.policy = policy
        self._findings = Findings()
        # Whether the client's own certificate was reached; OpenSSL may report errors after it.
        self._is_judged = False

    @property
    def errors(self) -> tuple[ChainValidationResult, ...]:
        """All errors of the client's certificate, each once."""
        return self._findings.errors

    @property
    def is_accepted(self) -> bool:
        """Whether its certificate was verified, or is not required."""
        if self.errors:
            return False
        return self.certificate is not None or self.policy is not ClientCertificatePolicy.REQUIRED

    def refusal(self) -> SocketError | None:
        """Return the error that says why the certificate was refused; None if it was not."""
        if not self.errors:
            return None
        return CertificateError("the client's certificate", self.errors)

    # Called by the handshake.

    def conclude(self, connection: SSL.Connection) -> None:
        """Do nothing: clients that identify themselves cannot resume a session."""

    def ended(self, connection: SSL.Connection) -> None:
        """Do nothing: OpenSSL handles the tickets of a server."""

    # Called by OpenSSL.

    def check(
        self, _connection: SSL.Connection, shown: Any, code: int, depth: int, ok: int
    ) -> tuple[bool, int]:
        """Record one step of the verification; decide at the last one, as the client does."""
        if not ok:
            self._findings.add(code)
            if not self._is_judged:
                return True, code
        elif depth:
            return True, code
        self._is_judged = True
        self.certificate = None if self.errors else from_openssl(shown)
        return not self.errors, self._findings.worst_code()


class ServerTls:
    """
    The OpenSSL contexts of one listener.

    :raises OperationNotSupported: when this machine's OpenSSL does not support the level.
    :raises SocketError: when OpenSSL refuses a certificate.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._use(options.certificates)

    @property
    def protection_level(self) -> SocketProtectionLevel:
        """The configured highest version."""
        return self._options.protection_level

    @property
    def identifies_clients(self) -> bool:
        """Whether clients are asked for a certificate."""
        return self._options.client_certificate is not ClientCertificatePolicy.OFF

    def replace_certificates(self, certificates: Sequence[Certificate]) -> None:
        """
        Use other certificates from the next handshake on; open connections keep theirs.

        :raises ValueError: when one has no key; the old ones stay in use.
        :raises SocketError: when OpenSSL refuses one; the old ones stay in use.
        """
        ServerOptions(certificates)
        self._use(certificates)

    def begin(self) -> tuple[Any, ServerVerification]:
        """
        Prepare one handshake.

        :returns: an ``IOpenSSLServerConnectionCreator`` for Twisted's engine, and the verification.
        """
        # Without client certificates, nothing that belongs to one handshake is recorded.
        return self._prepare() if self.identifies_clients else self._prepared

    def _use(self, certificates: Sequence[Certificate]) -> None:
        made = [(certificate, self._make_context(certificate)) for certificate in certificates]
        if len(made) > 1:
            made[0][1].set_tlsext_servername_callback(self._choose)
        self._contexts = made
        self._prepared = self._prepare()

    def _prepare(self) -> tuple[Any, ServerVerification]:
        verification = ServerVerification(self._options.client_certificate)
        return _Creator(self._contexts[0][1], verification), verification

    def _make_context(self, certificate: Certificate) -> SSL.Context:
        options = self._options
        versions = choose_versions(options.protection_level, options.min_protection_level)
        # Twisted's options include its choice of ciphers. Clients send their certificate in each
        # connection: a ticket of an earlier connection does not replace it.
        asks = options.client_certificate is not ClientCertificatePolicy.OFF
        made = CertificateOptions(enableSessionTickets=not asks)
        context: SSL.Context = made.getContext()
        context.set_min_proto_version(versions.lowest)
        context.set_max_proto_version(versions.highest)
        # A peer that begins one in TLS 1.2 and then stops would block all output for ever.
        context.set_options(SSL.OP_NO_RENEGOTIATION)
        use_certificate(certificate, context)
        # Replaces Twisted's callback, which refuses every client that offers a protocol if the
        # server has none.
        context.set_alpn_select_callback(_protocol_chooser(options.application_protocols))
        store = context.get_cert_store()
        for authority in options.client_authorities:
            trusted = authority.to_cryptography()[0]
            if store is not None:
                store.add_cert(_to_openssl(trusted))
            context.add_client_ca(trusted)
        return context

    # Called by OpenSSL.

    def _choose(self, connection: SSL.Connection) -> None:
        """Select the certificate for the name in the ClientHello."""
        asked = connection.get_servername()
        try:
            host = HostName((asked or b"").decode("ascii"))
        except ValueError:
            return  # No name, or a malformed one: the first certificate is used.
        if host.type is not HostNameType.DOMAIN_NAME:
            return
        for certificate, context in self._contexts:
            if is_named(_to_openssl(certificate.to_cryptography()[0]), host):
                connection.set_context(context)
                return


_VERIFY = {
    ClientCertificatePolicy.OPTIONAL: SSL.VERIFY_PEER,
    ClientCertificatePolicy.REQUIRED: SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}


@implementer(IOpenSSLServerConnectionCreator)
class _Creator:
    """Makes the OpenSSL connection of one handshake."""

    def __init__(self, context: SSL.Context, verification: ServerVerification) -> None:
        self._context = context
        self._verification = verification

    # Called by Twisted.

    def serverConnectionForTLS(
        self,
        tlsProtocol: TLSMemoryBIOProtocol,  # noqa: N803 - Twisted's name
    ) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        policy = self._verification.policy
        if policy is not ClientCertificatePolicy.OFF:
            verify_peer(connection, _VERIFY[policy], self._verification.check)
        return connection


def _protocol_chooser(protocols: Sequence[bytes]) -> Any:
    """Return the callback of OpenSSL that selects from a client's protocols (:rfc:`7301`)."""

    def choose(_connection: SSL.Connection, offered: Sequence[bytes]) -> Any:
        if not protocols:
            return SSL.NO_OVERLAPPING_PROTOCOLS  # The extension is not answered.
        for protocol in protocols:
            if protocol in offered:
                return protocol
        # Section 3.2: the handshake fails with the alert no_application_protocol (120).
        raise SSL.Error([("SSL routines", "", "no application protocol")])

    return choose


def _to_openssl(certificate: Any) -> X509:
    return X509.from_cryptography(certificate)
