"""Twisted's own class for this frame format, the one that ratios refer to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from twisted.internet.interfaces import IProtocolFactory, ITCPTransport
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.protocols.basic import Int32StringReceiver
from twisted.protocols.tls import TLSMemoryBIOFactory
from typing_extensions import override

from benchmarks.servers.twisted_program import run

__all__ = ["Echo"]


class Echo(Int32StringReceiver):
    """Sends back what comes, frame by frame."""

    @override
    def connectionMade(self) -> None:
        transport = cast(ITCPTransport, self.transport)
        transport.setTcpNoDelay(True)

    @override
    def stringReceived(self, string: bytes) -> None:
        self.sendString(string)


def _make_factory(_reactor: Any) -> IProtocolFactory:
    return Factory.forProtocol(Echo)


def _make_secure_factory(reactor: Any, certificate: Path) -> IProtocolFactory:
    loaded = PrivateCertificate.loadPEM(certificate.read_bytes())
    # Twisted's defaults, and tickets: without them no session is ever resumed.
    options = CertificateOptions(
        # As pyOpenSSL wants them now; Twisted's annotations are older.
        privateKey=cast(Any, loaded.privateKey.original.to_cryptography_key()),
        certificate=cast(Any, loaded.original.to_cryptography()),
        enableSessionTickets=True,
    )
    # What `listenSSL` makes, and thereby the ``ssl:`` endpoint.
    return TLSMemoryBIOFactory(options, False, _make_factory(reactor), reactor)


if __name__ == "__main__":
    run(_make_factory, _make_secure_factory)
