"""
Shared by the programs on Twisted: the reactor, TLS, a free port and its announcement.

A program imports twsock's public names only, which every checkout has. Where a module was moved
between checkouts, `import_first` finds it.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

__all__ = ["BACKLOG", "HOST", "MAX_PAYLOAD", "import_first", "install", "make_parser", "serve"]

HOST: Final = "127.0.0.1"
#: Connections that may wait to be accepted; what the kernel allows caps it.
BACKLOG: Final = 1024
#: Largest frame accepted, in bytes, as a server that faces a network needs one.
MAX_PAYLOAD: Final = 16 * 1024 * 1024


def make_parser() -> argparse.ArgumentParser:
    """Make a parser with the options of all servers on Twisted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--reactor", choices=("epoll", "twsock"), default="epoll")
    parser.add_argument("--tls", type=Path, metavar="FILE", help="key and certificate, for TLS")
    return parser


def import_first(*names: str) -> Any:
    """
    Import the first of several modules that exists: its name in this checkout, then older ones.

    :raises ModuleNotFoundError: when none of them exists.
    """
    for name in names[:-1]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            # What is missing must be the module itself or its package, nothing that it imports.
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
    return importlib.import_module(names[-1])


def install(name: str) -> Any:
    """Install a reactor and return it. Nothing may have imported another one."""
    if name == "twsock":
        import_first("twsock.reactor", "twsock.transport.epoll").install()
    else:
        from twisted.internet import epollreactor

        epollreactor.install()
    from twisted.internet import reactor

    return reactor


@implementer(IStreamServerEndpoint)
class Loopback:
    """A free port of 127.0.0.1, without Twisted's endpoints, whose modules take memory."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen; the Deferred has fired."""
        return execute(self._reactor.listenTCP, 0, factory, BACKLOG, HOST)


def _announce(port: Any) -> None:
    print(port.getHost().port, flush=True)


def serve(reactor: Any, factory: Any) -> None:
    """
    Serve streams until a signal ends the process.

    A factory of twsock listens through `StreamServerFactory.listen`, as twsock's services do.
    """
    endpoint = Loopback(reactor)
    listen = getattr(factory, "listen", None)
    listening = endpoint.listen(factory) if listen is None else listen(endpoint)
    listening.addCallback(_announce)
    reactor.run()
