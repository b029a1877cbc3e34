"""
Twisted's own classes, which ratios refer to: `Int32StringReceiver` echoes frames.

With ``--datagrams``, a plain `DatagramProtocol` echoes datagrams.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from twisted.internet.interfaces import IProtocolFactory, ITCPTransport, IUDPTransport
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.protocols.basic import Int32StringReceiver
from typing_extensions import override

from benchmarks.programs.serving import HOST, install, make_parser, serve

__all__ = ["DatagramEcho", "Echo", "main"]


class Echo(Int32StringReceiver):
    """Sends back each frame."""

    @override
    def connectionMade(self) -> None:
        transport = cast(ITCPTransport, self.transport)
        transport.setTcpNoDelay(True)

    @override
    def stringReceived(self, string: bytes) -> None:
        self.sendString(string)


class DatagramEcho(DatagramProtocol):
    """Sends back each datagram."""

    transport: IUDPTransport

    @override
    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.transport.write(datagram, addr)


def _add_tls(reactor: Any, factory: IProtocolFactory, certificate: Path) -> IProtocolFactory:
    # Not at the top, as a server without TLS needs no memory for it.
    from twisted.internet.ssl import CertificateOptions, PrivateCertificate
    from twisted.protocols.tls import TLSMemoryBIOFactory

    loaded = PrivateCertificate.loadPEM(certificate.read_bytes())
    # Twisted's defaults, and tickets: without them no session is ever resumed.
    options = CertificateOptions(
        # As pyOpenSSL wants them now; Twisted's annotations are older.
        privateKey=cast(Any, loaded.privateKey.original.to_cryptography_key()),
        certificate=cast(Any, loaded.original.to_cryptography()),
        enableSessionTickets=True,
    )
    # What `listenSSL` makes, and thereby the ``ssl:`` endpoint.
    return TLSMemoryBIOFactory(options, False, factory, reactor)


def main(argv: Sequence[str]) -> None:
    """Serve, as the command line says."""
    parser = make_parser()
    parser.add_argument("--datagrams", action="store_true", help="echo datagrams")
    options = parser.parse_args(argv)
    reactor = install(options.reactor)
    if options.datagrams:
        port = reactor.listenUDP(0, DatagramEcho(), interface=HOST)
        print(port.getHost().port, flush=True)
        reactor.run()
        return
    factory: IProtocolFactory = Factory.forProtocol(Echo)
    if options.tls is not None:
        factory = _add_tls(reactor, factory, options.tls)
    serve(reactor, factory)
