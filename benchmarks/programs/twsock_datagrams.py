"""
twsock's own echo of datagrams, as it ships, on twsock's own port.

With ``--twisted-port``, on Twisted's port, where one datagram is one call.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.programs.serving import HOST, import_first, install, make_parser
from twsock.protocols import DatagramEcho

__all__ = ["main"]


def main(argv: Sequence[str]) -> None:
    """Serve, as the command line says."""
    parser = make_parser()
    parser.add_argument("--twisted-port", action="store_true", help="on Twisted's port")
    options = parser.parse_args(argv)
    reactor = install(options.reactor)
    if options.twisted_port:
        port = reactor.listenUDP(0, DatagramEcho(), interface=HOST)
    else:
        ports = import_first("twsock.datagram.port", "twsock.transport.datagrams")
        port = ports.listen_datagrams(reactor, DatagramEcho(), 0, HOST)
    print(port.getHost().port, flush=True)
    reactor.run()
