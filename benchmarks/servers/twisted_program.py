"""
What the servers on Twisted share: the choice of the reactor, a free port, its announcement.

Called by the programs `frame_echo`, `frame_handler` and `int32` with a factory, and by
`stream_socket` and `data_reader` with the handler of a listener.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IProtocolFactory

__all__ = ["run", "run_listener"]

#: Connections that may wait to be accepted; what the kernel allows caps it.
_BACKLOG = 1024


def run(make_factory: Callable[[Any], IProtocolFactory]) -> None:
    """
    Serve until a signal ends the process.

    :param make_factory: is given the reactor. The modules that define it must not import one, as
        the command line may ask for another.
    """
    reactor = _choose_reactor()
    port = reactor.listenTCP(0, make_factory(reactor), _BACKLOG, "127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()


def run_listener(handle: Any) -> None:
    """
    Serve until a signal ends the process.

    :param handle: a handler of ``StreamSocketListener.connection_received``.
    """
    reactor = _choose_reactor()
    from twsock import StreamSocketListener

    listener = StreamSocketListener(reactor)
    listener.connection_received.add(handle)
    listener.bind_endpoint("127.0.0.1", "")
    print(listener.information.local_port, flush=True)
    reactor.run()


def _choose_reactor() -> Any:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reactor", choices=("epoll", "twsock"), default="epoll")
    options = parser.parse_args()
    if options.reactor == "twsock":
        from twsock.transport import epoll

        epoll.install()
    else:
        from twisted.internet import epollreactor

        epollreactor.install()
    from twisted.internet import reactor

    return reactor
