"""
A certificate that is not trusted: its errors, and a second attempt that ignores them.

Run it:        python examples/certificate_retry.py
You will see:  client is trying to connect to localhost...
               client was shown: www.fabrikam.com, issued by www.fabrikam.com
               what is wrong with it: Untrusted, InvalidName
               how bad that is: Ignorable
               client is trying again, in spite of that
               client connected: TLSv1.2, with a server that might be anybody

With the argument ``fatal`` the certificate has a critical extension that no verifier knows. Then
there is no second attempt:

Run it:        python examples/certificate_retry.py fatal
You will see:  client is trying to connect to localhost...
               client was shown: www.fabrikam.com, issued by www.fabrikam.com
               what is wrong with it: Untrusted, UnknownCriticalExtension, InvalidName
               how bad that is: Fatal
               client gives up

A program with a user shows the errors and asks before the second attempt, with "no" as the default:
an attacker in the place of the server has such a certificate, too.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twsock import (
    Certificate,
    SocketError,
    SocketProtectionLevel,
    SocketSslErrorSeverity,
    StreamSocket,
    StreamSocketListener,
    StreamSocketListenerConnectionReceivedEventArgs,
)
from twsock.tls import CertificateError, ServerOptions

#: An object identifier reserved for examples (:rfc:`5612`), so no verifier knows the extension.
UNKNOWN_EXTENSION = x509.UnrecognizedExtension(
    x509.ObjectIdentifier("1.3.6.1.4.1.32473.1"), b"\x05\x00"
)


def make_certificate(is_fatal: bool) -> Certificate:
    """Make a self-signed certificate for another name than the one that the client asks for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name.from_rfc4514_string("CN=www.fabrikam.com")
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("www.fabrikam.com")]), False)
    )
    if is_fatal:
        builder = builder.add_extension(UNKNOWN_EXTENSION, critical=True)
    signed = builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
    return Certificate.from_pem(
        signed + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )


async def serve(
    _listener: StreamSocketListener, args: StreamSocketListenerConnectionReceivedEventArgs
) -> None:
    """Wait for the client to close."""
    async with args.socket as accepted:
        await accepted.input_stream.receive_some()


async def connect(client: StreamSocket, service: str) -> None:
    """Connect; if the certificate is refused, print why; try again if it can be ignored."""
    print("client is trying to connect to localhost...")
    try:
        await client.connect("localhost", service, SocketProtectionLevel.TLS12)
    except CertificateError:
        information = client.information
        shown = information.server_certificate
        assert shown is not None  # It was refused.
        errors = information.server_certificate_errors
        severity = information.server_certificate_error_severity
        print(f"client was shown: {shown.subject}, issued by {shown.issuer}")
        print(f"what is wrong with it: {', '.join(each.documented_name for each in errors)}")
        print(f"how bad that is: {severity.documented_name}")
        if severity is not SocketSslErrorSeverity.IGNORABLE:
            print("client gives up")
            return
        print("client is trying again, in spite of that")
        client.control.ignorable_server_certificate_errors.clear()
        client.control.ignorable_server_certificate_errors.extend(errors)
        await client.connect("localhost", service, SocketProtectionLevel.TLS12)
    version = client.information.negotiated_version
    print(f"client connected: {version}, with a server that might be anybody")


async def main(reactor: Any, is_fatal: bool) -> None:
    """Run server and client until both have closed."""
    listener = StreamSocketListener(reactor, tls=ServerOptions([make_certificate(is_fatal)]))
    listener.connection_received.add(serve)
    try:
        await listener.bind_endpoint("localhost", "")
        async with StreamSocket(reactor) as client:
            await connect(client, listener.information.local_port)
    except SocketError as error:
        sys.exit(f"certificate_retry: {error.summary}")
    await listener.close_all(timeout=5)


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["fatal"]):
        sys.exit(f"usage: {sys.argv[0]} [fatal]")
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, bool(sys.argv[1:]))))
