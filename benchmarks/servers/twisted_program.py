"""
What the servers on Twisted share: the choice of the reactor, a free port, its announcement.

Called by the programs `frame_echo`, `frame_handler` and `int32` with a factory, by `stream_socket`
and `data_reader` with the handler of a listener, and by those for datagrams with a way to listen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from twisted.internet.interfaces import IListeningPort, IProtocolFactory

__all__ = ["HOST", "run", "run_listener", "run_port"]

HOST: Final = "127.0.0.1"
#: Connections that may wait to be accepted; what the kernel allows caps it.
_BACKLOG = 1024


def run(
    make_factory: Callable[[Any], IProtocolFactory],
    make_secure_factory: Callable[[Any, Path], IProtocolFactory] | None = None,
) -> None:
    """
    Serve until a signal ends the process.

    :param make_factory: is given the reactor. The modules that define it must not import one, as
        the command line may ask for another.
    :param make_secure_factory: is given the reactor and the file of the key and the certificate,
        where the command line asks for TLS; None for a program that offers none.
    """
    options = _read_options(offers_tls=make_secure_factory is not None)
    reactor = _install(options.reactor)
    if make_secure_factory is None or options.tls is None:
        factory = make_factory(reactor)
    else:
        factory = make_secure_factory(reactor, options.tls)
    port = reactor.listenTCP(0, factory, _BACKLOG, HOST)
    print(port.getHost().port, flush=True)
    reactor.run()


def run_listener(handle: Any) -> None:
    """
    Serve until a signal ends the process.

    :param handle: a handler of ``StreamSocketListener.connection_received``.
    """
    options = _read_options(offers_tls=True)
    reactor = _install(options.reactor)
    # Not at the top, so that a program without twsock needs no memory for it.
    from twsock import StreamSocketListener
    from twsock.tls import Certificate, ServerOptions

    tls = None if options.tls is None else ServerOptions([Certificate.load(options.tls)])
    listener = StreamSocketListener(reactor, tls=tls)
    listener.connection_received.add(handle)
    listener.bind_endpoint(HOST, "")
    print(listener.information.local_port, flush=True)
    reactor.run()


def run_port(listen: Callable[[Any], IListeningPort]) -> None:
    """
    Serve until a signal ends the process.

    :param listen: is given the reactor, and listens on a free port of `HOST`. The modules that
        define it must not import a reactor, as the command line may ask for another.
    """
    options = _read_options(offers_tls=False)
    reactor = _install(options.reactor)
    print(cast(Any, listen(reactor).getHost()).port, flush=True)
    reactor.run()


def _read_options(*, offers_tls: bool) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reactor", choices=("epoll", "twsock"), default="epoll")
    if offers_tls:
        parser.add_argument("--tls", type=Path, metavar="FILE", help="key and certificate, for TLS")
    return parser.parse_args()


def _install(name: str) -> Any:
    if name == "twsock":
        from twsock import reactor as epoll

        epoll.install()
    else:
        from twisted.internet import epollreactor

        epollreactor.install()
    from twisted.internet import reactor

    return reactor
