"""
The server's side of handshakes: certificates, whom to let in → **server TLS** → TLS engine.

Made once per listener; asked for each connection. Which certificate is shown depends on the name
that the client asks for (SNI), as ``service_identity`` compares names. A client's certificate is
verified by OpenSSL; an error there is never forgiven.
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
from twsock.tls.certificates import Certificate
from twsock.tls.identity import use_certificate
from twsock.tls.levels import SocketProtectionLevel, choose_versions
from twsock.tls.naming import from_openssl, is_named
from twsock.tls.openssl import verify_peer
from twsock.tls.validation import ChainValidationResult, Findings

__all__ = ["ClientCertificatePolicy", "ServerOptions", "ServerTls", "ServerVerification"]


class ClientCertificatePolicy(enum.Enum):
    """Whether a client has to identify itself: not asked, asked, or turned away without."""

    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """
    What a server offers in its handshakes.

    :ivar certificates: with their keys; the first is shown where no other is for the name that the
        client asks for.
    :ivar protection_level: the highest version.
    :ivar min_protection_level: the lowest; ``UNSPECIFIED`` for TLS 1.2.
    :ivar client_certificate: whether clients identify themselves.
    :ivar client_authorities: who may have issued their certificates.
    :ivar application_protocols: supported inside TLS (ALPN), the preferred first. A client whose
        offer has none of them is refused with the alert ``no_application_protocol``. If this is
        empty, every offer is ignored.
    :raises ValueError: when there is no certificate, one has no key, or clients have to be
        identified and no authority is given.
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
    Whether a client may come in; filled in during its handshake.

    :ivar certificate: the client's, verified; None where it showed none.
    :ivar policy: what was asked of it.
    """

    def __init__(self, policy: ClientCertificatePolicy) -> None:
        self.certificate: Certificate | None = None
        self.policy = policy
        self._findings = Findings()
        # Whether the client's own certificate was reached; OpenSSL may report errors after it.
        self._is_judged = False

    @property
    def errors(self) -> tuple[ChainValidationResult, ...]:
        """All errors of the certificate that the client showed, each once."""
        return self._findings.errors

    @property
    def is_accepted(self) -> bool:
        """Whether it identified itself, or need not."""
        if self.errors:
            return False
        return self.certificate is not None or self.policy is not ClientCertificatePolicy.REQUIRED

    def refusal(self) -> SocketError | None:
        """Make the error that says why the certificate was refused; None while it was not."""
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
        """Note one step of the verification; decide with the last, as the client does."""
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
    The contexts of one listener.

    :raises OperationNotSupported: for a level that this machine's OpenSSL cannot do.
    :raises SocketError: for a certificate that it does not take.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._contexts = self._make_contexts(options.certificates)

    @property
    def protection_level(self) -> SocketProtectionLevel:
        """The configured highest version."""
        return self._options.protection_level

    @property
    def identifies_clients(self) -> bool:
        """Whether clients are asked who they are."""
        return self._options.client_certificate is not ClientCertificatePolicy.OFF

    def replace_certificates(self, certificates: Sequence[Certificate]) -> None:
        """
        Show others from the next handshake on; connections that stand are not touched.

        :raises ValueError: when one has no key; then nothing is replaced.
        :raises SocketError: when OpenSSL does not take one; neither then.
        """
        ServerOptions(certificates)
        self._contexts = self._make_contexts(certificates)

    def begin(self) -> tuple[Any, ServerVerification]:
        """
        Prepare one handshake.

        :returns: an ``IOpenSSLServerConnectionCreator`` for Twisted's engine, and the verdict.
        """
        verification = ServerVerification(self._options.client_certificate)
        return _Creator(self._contexts[0][1], verification), verification

    def _make_contexts(
        self, certificates: Sequence[Certificate]
    ) -> list[tuple[Certificate, SSL.Context]]:
        made = [(certificate, self._make_context(certificate)) for certificate in certificates]
        if len(made) > 1:
            made[0][1].set_tlsext_servername_callback(self._choose)
        return made

    def _make_context(self, certificate: Certificate) -> SSL.Context:
        options = self._options
        versions = choose_versions(options.protection_level, options.min_protection_level)
        # Twisted's options bring its choice of ciphers. A client that has to identify itself does
        # so in each connection: no ticket of an earlier one takes the place of its certificate.
        asks = options.client_certificate is not ClientCertificatePolicy.OFF
        made = CertificateOptions(enableSessionTickets=not asks)
        context: SSL.Context = made.getContext()
        context.set_min_proto_version(versions.lowest)
        context.set_max_proto_version(versions.highest)
        # A peer that begins one in TLS 1.2 and stops would keep all that is written waiting.
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
        """Show the certificate of the name that the client asked for."""
        asked = connection.get_servername()
        try:
            host = HostName((asked or b"").decode("ascii"))
        except ValueError:
            return  # None, or no name: the first certificate will do.
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
    """Makes the connection of one handshake."""

    def __init__(self, context: SSL.Context, verification: ServerVerification) -> None:
        self._context = context
        self._verification = verification

    # Called by Twisted.

    def serverConnectionForTLS(
        self,
        tlsProtocol: TLSMemoryBIOProtocol,  # noqa: N803 - Twisted's name
    ) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)
        policy = self._verification.policy
        if policy is not ClientCertificatePolicy.OFF:
            verify_peer(connection, _VERIFY[policy], self._verification.check)
        return connection


def _protocol_chooser(protocols: Sequence[bytes]) -> Any:
    """Make the callback of OpenSSL that answers a client's list of protocols (:rfc:`7301`)."""

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
