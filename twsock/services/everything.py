"""
``twistd twsock``: every service with its defaults, to have something to talk to at once.

Collects the services of this room; each has more options under its own name.
"""

from __future__ import annotations

import shlex
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.logger import Logger
from twisted.python import usage
from typing_extensions import override

from twsock.errors import SocketError
from twsock.protocols import UpgradePolicy
from twsock.services.security import Security, find_development_certificate
from twsock.services.stream import DEFAULT_PORT, stream_service

__all__ = ["Options", "everything_service", "makeService"]


class Options(usage.Options):
    """What ``twistd twsock`` takes: nothing; the services have options under their own names."""

    longdesc = (
        "Runs every twsock service with its defaults; connections may be put into TLS. "
        "For options, see twistd twsock-stream."
    )


class _Everything(MultiService):
    """The services, and the lines that say what to type next."""

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self._reactor = reactor
        self._upgrade = ""
        self._problem: SocketError | None = None
        stream_service(reactor, security=self._find_security()).setServiceParent(self)

    def _find_security(self) -> Security | None:
        """Offer TLS, unless there is no place for a certificate: that is no reason not to run."""
        try:
            file = find_development_certificate()
            security = Security([file], UpgradePolicy.ALLOWED)
        except SocketError as error:
            self._problem = error
            return None
        self._upgrade = f" --upgrade --ca {shlex.quote(str(file.authority))}"
        return security

    @override
    def startService(self) -> None:
        super().startService()
        self._reactor.callWhenRunning(self._tell_what_to_type)

    def _tell_what_to_type(self) -> None:
        if self._problem is not None:
            self._log.warn("TLS is not offered: {problem}", problem=self._problem)
        self._log.info(
            'talk to it: twsock echo tcp:127.0.0.1:{port} "Hello, World!"{upgrade}',
            port=DEFAULT_PORT,
            upgrade=self._upgrade,
        )


def everything_service(reactor: Any) -> MultiService:
    """
    Make all services with their defaults.

    Connections may be put into TLS, with a certificate that is made once for each user. Where none
    can be made, the log says why, and there is no TLS.
    """
    return _Everything(reactor)


def makeService(options: Options) -> IService:
    """Make the service that twistd runs."""
    from twisted.internet import reactor

    service: IService = everything_service(reactor)
    return service
