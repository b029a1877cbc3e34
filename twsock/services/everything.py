"""
``twistd twsock``: every service with its defaults, to have something to talk to at once.

Collects the services of this room; each has more options under its own name.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from twisted.application.service import IService, MultiService
from typing_extensions import override

from twsock.errors import SocketError
from twsock.log import TextLogger
from twsock.protocols import UpgradePolicy
from twsock.services.datagram import datagram_service
from twsock.services.listening import default_endpoints
from twsock.services.multicast import DEFAULT_GROUP_ENDPOINT, multicast_service
from twsock.services.process import ProcessOptions, ProcessService
from twsock.services.security import Security, find_development_certificate
from twsock.services.stream import DEFAULT_PORT, stream_service

__all__ = ["Options", "everything_service", "makeService"]


class Options(ProcessOptions):
    """What ``twistd twsock`` takes; the services have more options under their own names."""

    longdesc = (
        "Runs every twsock service with its defaults; connections may be put into TLS. "
        "For options, see twistd twsock-stream, twsock-datagram and twsock-multicast."
    )


class _Everything(MultiService):
    """The services, and the lines that say what to type next."""

    _log = TextLogger()

    def __init__(self, reactor: Any, port: int, group_endpoint: str) -> None:
        super().__init__()
        self._reactor = reactor
        self._upgrade = ""
        self._problem: SocketError | None = None
        self._stream = stream_service(
            reactor, default_endpoints(port), security=self._find_security()
        )
        self._datagram = datagram_service(reactor, default_endpoints(port, "udp"))
        self._multicast = multicast_service(reactor, [group_endpoint])
        for service in (self._stream, self._datagram, self._multicast):
            service.setServiceParent(self)

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
        # The first of each is the one of IPv4.
        services = (self._stream, self._datagram, self._multicast)
        firsts: list[Any] = [service.ports[0] for service in services]
        stream, datagram, group = firsts
        # The interface is the one where the client looks anyway.
        member = self._multicast.describe_opened(group).removesuffix(":interface=lo")
        words = (
            f'tcp:127.0.0.1:{stream.getHost().port} "Hello, World!"{self._upgrade}',
            f'udp:127.0.0.1:{datagram.getHost().port} "Hello, World!"',
            f"{member} Hello",
        )
        self._reactor.callWhenRunning(self._tell_what_to_type, words)

    def _tell_what_to_type(self, lines: Sequence[str]) -> None:
        if self._problem is not None:
            self._log.warn("TLS is not offered: {problem}", problem=self._problem)
        for words in lines:
            self._log.info("talk to it: twsock echo {words}", words=words)


def everything_service(
    reactor: Any,
    *,
    port: int = DEFAULT_PORT,
    group_endpoint: str = DEFAULT_GROUP_ENDPOINT,
) -> MultiService:
    """
    Make all services with their defaults.

    Connections may be put into TLS, with a certificate that is made once for each user. Where none
    can be made, the log says why, and there is no TLS.

    :param port: of streams and of datagrams, on the loopback addresses; 0 lets the system choose
        each.
    :param group_endpoint: the group that is answered, and where it is heard.
    """
    return _Everything(reactor, port, group_endpoint)


def makeService(options: Options) -> IService:
    """Make the service that twistd runs."""
    from twisted.internet import reactor

    process = ProcessService(options)
    everything_service(reactor).setServiceParent(process)
    service: IService = process
    return service
