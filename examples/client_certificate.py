"""
A client with a certificate, which it finds in a folder; the server prints the client's name.

Run it:        python examples/client_certificate.py
You will see:  with a key: localhost, twsock client
               for clients: twsock client
               server let in: twsock client
               client was greeted: "Welcome, twsock client!"
               client without a certificate was not let in: CertificateIsInvalid

The folder is made for this run. It may hold PEM, DER and PKCS#12 files; a `CertificateQuery`
selects certificates, here by their extended key usage.

With TLS 1.3 a refused client gets the error when it reads: its own half of the handshake ends
before the server has verified it. The server's application gets no event of such a client.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twsock import (
    Certificate,
    CertificateQuery,
    CertificateStores,
    SocketError,
    SocketProtectionLevel,
    StreamSocket,
    StreamSocketListener,
    StreamSocketListenerConnectionReceivedEventArgs,
)
from twsock.tls import ClientCertificatePolicy, ServerOptions
from twsock.tls.development import CertificateFiles, make_certificates

#: An extended key usage (:rfc:`5280`, section 4.2.1.12).
CLIENT_AUTHENTICATION = "1.3.6.1.5.5.7.3.2"

#: Bytes in a greeting.
MAX_LINE = 1024


async def greet(
    _listener: StreamSocketListener, args: StreamSocketListenerConnectionReceivedEventArgs
) -> None:
    """Print the client's name, and send a greeting."""
    async with args.socket as accepted:
        guest = accepted.information.client_certificate
        assert guest is not None  # A client without one is refused.
        print(f"server let in: {guest.subject}")
        await accepted.output_stream.write(f"Welcome, {guest.subject}!\r\n".encode())
        await accepted.input_stream.receive_some()  # Until the client closes.


async def visit(
    reactor: Any, service: str, authority: Certificate, certificate: Certificate | None
) -> str:
    """Connect with or without a certificate; return the greeting."""
    async with StreamSocket(reactor) as client:
        client.control.trust_roots = [authority]
        client.control.client_certificate = certificate
        await client.connect("localhost", service, SocketProtectionLevel.TLS13)
        greeting = await client.input_stream.receive_until(b"\r\n", MAX_LINE)
        return greeting.decode()


def find_for_clients(folder: Path) -> Certificate:
    """Find the one certificate in a folder that a client can use."""
    found = CertificateStores(folder).find_all(CertificateQuery(has_private_key=True))
    print(f"with a key: {', '.join(sorted(each.subject for each in found))}")
    query = CertificateQuery(has_private_key=True, enhanced_key_usages=[CLIENT_AUTHENTICATION])
    (certificate,) = CertificateStores(folder).find_all(query)
    print(f"for clients: {certificate.subject}")
    return certificate


async def main(reactor: Any, files: CertificateFiles) -> None:
    """Run server and client until both have closed."""
    authority = Certificate.load(files.authority)
    options = ServerOptions(
        [Certificate.load(files.server)],
        client_certificate=ClientCertificatePolicy.REQUIRED,
        client_authorities=[authority],
    )
    listener = StreamSocketListener(reactor, tls=options)
    listener.connection_received.add(greet)
    certificate = find_for_clients(files.directory)
    await listener.bind_endpoint("localhost", "")
    port = listener.information.local_port
    print(f'client was greeted: "{await visit(reactor, port, authority, certificate)}"')
    try:
        await visit(reactor, port, authority, None)
    except SocketError as error:
        print(f"client without a certificate was not let in: {error.status.documented_name}")
    await listener.close_all(timeout=5)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(f"usage: {sys.argv[0]}")
    with tempfile.TemporaryDirectory() as folder:
        made = make_certificates(folder)
        react(lambda reactor: Deferred.fromCoroutine(main(reactor, made)))
