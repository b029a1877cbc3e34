"""
twsock's own echo of frames, as it ships: idle timeout, counters and limits on.

With ``--handler``, a protocol with a method that is called for each frame and answers it by itself;
with ``--coroutine``, that method is a coroutine, which does not wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from benchmarks.programs.serving import BACKLOG, HOST, install, make_parser
from twsock.protocols import FrameEchoFactory, FrameProtocol, StreamServerFactory

__all__ = ["Answer", "AnswerInCoroutine", "main"]


class Answer(FrameProtocol):
    """Sends back each frame by itself."""

    @override
    def frame_received(self, payload: bytes) -> None:
        self.send_frame(payload)


class AnswerInCoroutine(FrameProtocol):
    """Sends back each frame by itself, from a coroutine that does not wait."""

    @override
    async def frame_received(self, payload: bytes) -> None:
        self.send_frame(payload)


def _serve(reactor: Any, factory: StreamServerFactory) -> None:
    """Serve as twsock's own services do, through the factory; see `StreamServerFactory.listen`."""
    from twisted.internet.endpoints import TCP4ServerEndpoint

    listening = factory.listen(TCP4ServerEndpoint(reactor, 0, BACKLOG, HOST))
    listening.addCallback(_print_port)
    reactor.run()


def _print_port(port: Any) -> None:
    print(port.getHost().port, flush=True)


def main(argv: Sequence[str]) -> None:
    """Serve, as the command line says."""
    parser = make_parser()
    parser.add_argument("--handler", action="store_true", help="answer each frame by itself")
    parser.add_argument("--coroutine", action="store_true", help="do so in a coroutine")
    options = parser.parse_args(argv)
    reactor = install(options.reactor)
    if options.handler or options.coroutine:
        protocol = AnswerInCoroutine if options.coroutine else Answer
        _serve(reactor, StreamServerFactory(reactor, protocol))
    elif options.tls is None:
        _serve(reactor, FrameEchoFactory(reactor))
    else:
        # Not at the top, as a server without TLS needs no memory for it.
        from twsock.protocols import UpgradePolicy, UpgradeToSsl
        from twsock.tls import Certificate, ServerOptions, ServerTls

        tls = ServerTls(ServerOptions([Certificate.load(options.tls)]))
        upgrade = UpgradeToSsl(tls, UpgradePolicy.IMPLICIT)
        _serve(reactor, FrameEchoFactory(reactor, upgrade=upgrade))
