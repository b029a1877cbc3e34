"""Twisted's own class for this frame format, the one that ratios refer to."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory
from twisted.protocols.basic import Int32StringReceiver
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


def _make_factory(_reactor: Any) -> Factory:
    return Factory.forProtocol(Echo)


if __name__ == "__main__":
    run(_make_factory)
