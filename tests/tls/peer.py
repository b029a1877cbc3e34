"""The other end of a handshake, by Python's ``ssl``: TLS in memory, driven by the test."""

from __future__ import annotations

import ssl
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet.ssl import CertificateOptions

__all__ = [
    "AUTHORITY",
    "SERVER",
    "ClientPeer",
    "Peer",
    "ServerPeer",
    "client_context",
    "issue",
    "trusting",
    "twisted_options",
]

AUTHORITY = trustme.CA(organization_name="twsock tests")
SERVER = AUTHORITY.issue_cert("localhost", "127.0.0.1", common_name="server")


class _Peer:
    """
    One side of TLS in memory.

    :ivar received: the bytes that arrived inside TLS.
    :ivar is_ended: whether the other end's close_notify was read.
    """

    def __init__(self) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._inside = self._make_inside()
        self._is_done = False
        self.received = b""
        self.is_ended = False

    def _make_inside(self) -> ssl.SSLObject:
        raise NotImplementedError

    @property
    def is_done(self) -> bool:
        """Whether the handshake is done, and the other end verified if this side verifies."""
        return self._is_done

    def take(self, data: bytes) -> bytes:
        """Take bytes from the other end; return bytes to be sent to it."""
        self._incoming.write(data)
        self._go_on()
        return self._outgoing.read()

    def say(self, data: bytes) -> bytes:
        """Return data, encrypted."""
        self._inside.write(data)
        return self._outgoing.read()

    def end(self) -> bytes:
        """Return close_notify."""
        try:
            self._inside.unwrap()
        except ssl.SSLWantReadError:
            pass
        return self._outgoing.read()

    def _go_on(self) -> None:
        try:
            if not self._is_done:
                self._inside.do_handshake()
                self._is_done = True
            while data := self._inside.read(65536):
                self.received += data
            self.is_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.is_ended = True  # Raised if this side's close_notify was sent before.


class Peer(_Peer):
    """A client that trusts `AUTHORITY` and expects ``localhost``."""

    def hello(self) -> bytes:
        """Return a ClientHello."""
        self._go_on()
        return self._outgoing.read()

    def _make_inside(self) -> ssl.SSLObject:
        context = trusting()
        return context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")


class ServerPeer(_Peer):
    """
    A server.

    :param issued: its certificate.
    :param requests_certificate: whether it requests a certificate of the client.
    :param highest: the highest version of TLS.

    :ivar server_name: the name that the client sent (SNI); None without one.
    """

    server_name: str | None = None

    def __init__(
        self,
        issued: trustme.LeafCert = SERVER,
        *,
        requests_certificate: bool = False,
        highest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> None:
        self._issued = issued
        self._requests_certificate = requests_certificate
        self._highest = highest
        super().__init__()

    @property
    def certificate(self) -> bytes | None:
        """The certificate that the client sent, as DER; None if it sent none."""
        return self._inside.getpeercert(binary_form=True)

    def _make_inside(self) -> ssl.SSLObject:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._issued.configure_cert(context)
        context.maximum_version = self._highest
        context.sni_callback = self._note_name
        if self._requests_certificate:
            AUTHORITY.configure_trust(context)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def _note_name(self, _inside: object, name: str | None, _context: object) -> None:
        self.server_name = name


class ClientPeer(_Peer):
    """
    A client with a context of the test.

    :param session: a session of an earlier connection with that context, to be resumed.

    :ivar error: why the other end was refused, or refused this one; None while neither did.
    """

    def __init__(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        self._context, self._offered = context, session
        self.error: ssl.SSLError | None = None
        super().__init__()

    def hello(self) -> bytes:
        """Return a ClientHello."""
        return self.take(b"")

    def take(self, data: bytes) -> bytes:
        """Take bytes from the other end; return bytes to be sent to it, at least an alert."""
        try:
            return super().take(data)
        except ssl.SSLError as error:
            self.error = error
            return self._outgoing.read()

    @property
    def session(self) -> ssl.SSLSession | None:
        """A session that can be offered to a server another time."""
        return self._inside.session

    @property
    def is_resumed(self) -> bool:
        """Whether the server resumed an offered session."""
        return bool(self._inside.session_reused)

    def _make_inside(self) -> ssl.SSLObject:
        return self._context.wrap_bio(
            self._incoming, self._outgoing, server_hostname="localhost", session=self._offered
        )


def trusting(authority: trustme.CA = AUTHORITY) -> ssl.SSLContext:
    """Make the context of a client that trusts one authority; loading the system's takes 50 ms."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def client_context(
    pem: bytes | None = None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    """
    Make the context of a client that trusts `AUTHORITY`.

    :param pem: key and certificate of the client, if it has one.
    :param version: the highest version.
    """
    context = trusting()
    context.maximum_version = version
    if pem is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "client.pem")
            path.write_bytes(pem)
            context.load_cert_chain(path)
    return context


def twisted_options(pem: bytes) -> CertificateOptions:
    """
    Make the server options of Twisted, from objects that cause no warning of pyOpenSSL.

    :param pem: key and certificate.
    """
    shown: Any = x509.load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERTIFICATE") :])
    key: Any = serialization.load_pem_private_key(pem, None)
    return CertificateOptions(privateKey=key, certificate=shown)


def issue(
    authority: trustme.CA | None = AUTHORITY,
    *,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    begins: timedelta = timedelta(hours=-1),
    ends: timedelta = timedelta(hours=1),
) -> bytes:
    """
    Issue a client's certificate, with one fault if the test wants one.

    :param authority: the signer; None for a self-signed certificate.
    :param usage: its extended key usage.
    :param begins: the start of its validity, counted from now.
    :returns: key and certificate as PEM.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mallory")])
    issuer, signs = subject, key
    if authority is not None:
        issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
        loaded = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signs = loaded
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signs.public_key()), critical=False
        )
        .sign(signs, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
