"""
``twistd twsock``: every service with its defaults, to have something to talk to at once.

Collects the services of this room; each has more options under its own name.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService, MultiService
from twisted.logger import Logger
from twisted.python import usage
from typing_extensions import override

from twsock.services.stream import DEFAULT_PORT, stream_service

__all__ = ["Options", "makeService"]


class Options(usage.Options):
    """What ``twistd twsock`` takes: nothing; the services have options under their own names."""

    longdesc = "Runs every twsock service with its defaults. For options, see twistd twsock-stream."


class _Everything(MultiService):
    """The services, and a line that says what to type next."""

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self._reactor = reactor

    @override
    def startService(self) -> None:
        super().startService()
        self._reactor.callWhenRunning(self._tell_what_to_type)

    def _tell_what_to_type(self) -> None:
        self._log.info(
            'talk to it: twsock echo tcp:127.0.0.1:{port} "Hello, World!"', port=DEFAULT_PORT
        )


def makeService(options: Options) -> IService:
    """Make the service that ``twistd twsock`` runs."""
    from twisted.internet import reactor

    services = _Everything(reactor)
    stream_service(reactor).setServiceParent(services)
    collected: IService = services
    return collected
