"""Plugin of ``twistd``: the lean reactor, ``twistd --reactor=twsock``."""

from twisted.application.reactors import Reactor

reactor = Reactor(
    "twsock",
    "twsock.reactor",
    "Twisted's epoll reactor without a log context per event (Linux).",
)
