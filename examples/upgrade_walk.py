"""
The upgrade of the sockets guide: plaintext first, then TLS on the same connection.

Run it:        python examples/upgrade_walk.py
You will see:  client connected without TLS
               client sent 22 bytes in plaintext
               server read in plaintext: "Hello, World! ☺ "
               server is secure: TLSv1.2
               client is secure: TLSv1.2, and the server is localhost
               server read inside: "This is secret."
               client closed its socket
               server closed its socket

The 22 bytes are a count, ``00 00 00 12``, and 18 bytes of UTF-8. The server does not answer them.
Both ends know that TLS begins behind them, so the server reads these bytes and no more: the next
byte is the first of the client's handshake. WinRT has the client's half only; the server's is
twsock's own.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twsock import (
    Certificate,
    DataReader,
    DataWriter,
    RemoteProtocolError,
    SocketError,
    SocketProtectionLevel,
    StreamSocket,
    StreamSocketListener,
    StreamSocketListenerConnectionReceivedEventArgs,
)
from twsock.tls.development import make_certificates

#: Bytes in a text; a longer one ends the connection.
MAX_TEXT = 1024


async def serve(
    certificate: Certificate,
    _listener: StreamSocketListener,
    args: StreamSocketListenerConnectionReceivedEventArgs,
) -> None:
    """Read one text in plaintext, and one over TLS."""
    async with args.socket as accepted:
        print(f'server read in plaintext: "{await read_text(accepted)}"')
        await accepted.upgrade_to_ssl(SocketProtectionLevel.TLS13, certificate=certificate)
        print(f"server is secure: {accepted.information.negotiated_version}")
        print(f'server read inside: "{await read_text(accepted)}"')


async def walk(reactor: Any, service: str, authority: Certificate) -> None:
    """Connect, send in plaintext, upgrade, send over TLS."""
    async with StreamSocket(reactor) as client:
        client.control.trust_roots = [authority]
        await client.connect("localhost", service)
        print("client connected without TLS")
        print(f"client sent {await write_text(client, 'Hello, World! ☺ ')} bytes in plaintext")
        await client.upgrade_to_ssl(SocketProtectionLevel.TLS12, "localhost")
        version = client.information.negotiated_version
        print(f"client is secure: {version}, and the server is localhost")
        await write_text(client, "This is secret.")
        await client.input_stream.receive_some()  # Until the server closes.
    print("client closed its socket")


async def read_text(peer: StreamSocket) -> str:
    """Read the bytes of one text and no more."""
    reader = DataReader(peer.input_stream)
    await reader.load(4)
    size = reader.read_uint32()
    if size > MAX_TEXT:
        raise RemoteProtocolError(f"peer announced {size} bytes, limit is {MAX_TEXT}")
    await reader.load(size)
    reader.detach_stream()
    return reader.read_string(size)


async def write_text(peer: StreamSocket, text: str) -> int:
    """Send one text; return the number of bytes."""
    writer = DataWriter(peer.output_stream)
    writer.write_uint32(writer.measure_string(text))
    writer.write_string(text)
    size = await writer.store()
    writer.detach_stream()
    return size


async def main(reactor: Any, folder: str) -> None:
    """Run server and client until both have closed."""
    files = make_certificates(folder)
    listener = StreamSocketListener(reactor)
    listener.connection_received.add(functools.partial(serve, Certificate.load(files.server)))
    try:
        await listener.bind_endpoint("localhost", "")
        await walk(reactor, listener.information.local_port, Certificate.load(files.authority))
    except SocketError as error:
        sys.exit(f"upgrade_walk: {error.summary}")
    await listener.close_all(timeout=5)
    print("server closed its socket")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(f"usage: {sys.argv[0]}")
    with tempfile.TemporaryDirectory() as folder:
        react(lambda reactor: Deferred.fromCoroutine(main(reactor, folder)))
