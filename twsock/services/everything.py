"""
``twistd twsock``: all services with their defaults, for a first try.

Each service has more options under its own name.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.application.service import IService, MultiService
from typing_extensions import override

from twsock.errors import SocketError
from twsock.log import TextLogger
from twsock.protocols import UpgradePolicy
from twsock.services.datagram import datagram_service
from twsock.services.keeping_reactor import plain_reactor
from twsock.services.listening import default_endpoints
from twsock.services.multicast import DEFAULT_GROUP_ENDPOINT, multicast_service
from twsock.services.process import in_process
from twsock.services.process_options import ProcessOptions
from twsock.services.security import (
    Security,
    certificate_directory,
    find_development_certificate,
)
from twsock.services.stream import DEFAULT_PORT, stream_service
from twsock.services.websocket import DEFAULT_WEBSOCKET_PORT, websocket_service

__all__ = ["Options", "everything_service", "makeService"]


class Options(ProcessOptions):
    """The options of ``twistd twsock``; the services have more under their own names."""

    workers_refused = "run twsock-stream, twsock-websocket or twsock-datagram with workers"

    longdesc = (
        "Runs every twsock service with its defaults; connections can be upgraded to TLS. "
        "For options, see twistd twsock-stream, twsock-datagram, twsock-multicast and "
        "twsock-websocket."
    )


class _Everything(MultiService):
    """Contains the services, and logs a client command for each."""

    _log = TextLogger()

    def __init__(
        self,
        reactor: Any,
        port: int,
        group_endpoint: str,
        websocket_port: int,
        certificates: Path | None,
    ) -> None:
        super().__init__()
        self._reactor = plain_reactor(reactor)
        self._upgrade = ""
        self._problem: SocketError | None = None
        self._stream = stream_service(
            reactor, default_endpoints(port), security=self._find_security(certificates)
        )
        self._datagram = datagram_service(reactor, default_endpoints(port, "udp"))
        self._multicast = multicast_service(reactor, [group_endpoint])
        self._websocket = websocket_service(reactor, default_endpoints(websocket_port))
        for service in (self._stream, self._datagram, self._multicast, self._websocket):
            service.setServiceParent(self)

    def _find_security(self, certificates: Path | None) -> Security | None:
        """Return TLS with a development certificate; None if no certificate can be stored."""
        try:
            file = find_development_certificate(certificates)
            security = Security([file], UpgradePolicy.ALLOWED)
        except SocketError as error:
            self._problem = error
            return None
        self._upgrade = f" --upgrade --ca {shlex.quote(str(file.authority))}"
        return security

    @override
    def startService(self) -> None:
        super().startService()
        # The first port of each service is on IPv4.
        services = (self._stream, self._datagram, self._multicast, self._websocket)
        firsts: list[Any] = [service.ports[0] for service in services]
        stream, datagram, group, websocket = firsts
        # The client uses this interface by default.
        member = self._multicast.describe_opened(group).removesuffix(":interface=lo")
        words = (
            f'tcp:127.0.0.1:{stream.getHost().port} "Hello, World!"{self._upgrade}',
            f'udp:127.0.0.1:{datagram.getHost().port} "Hello, World!"',
            f"{member} Hello",
            f"ws://127.0.0.1:{websocket.getHost().port}/ Hello",
        )
        self._reactor.callWhenRunning(self._log_commands, words)

    def _log_commands(self, lines: Sequence[str]) -> None:
        if self._problem is not None:
            self._log.warn("TLS is not offered: {problem}", problem=self._problem)
        for words in lines:
            self._log.info("try it: twsock echo {words}", words=words)


def everything_service(
    reactor: Any,
    *,
    port: int = DEFAULT_PORT,
    group_endpoint: str = DEFAULT_GROUP_ENDPOINT,
    websocket_port: int = DEFAULT_WEBSOCKET_PORT,
    certificates: Path | None = None,
) -> MultiService:
    """
    Make all services with their defaults.

    Connections may be upgraded to TLS, with a certificate that is made once for each user. If none
    can be made, a warning is logged and TLS is not offered.

    :param port: port of streams and of datagrams on the loopback addresses; 0 lets the system
        choose both.
    :param group_endpoint: endpoint string of the group that is answered.
    :param websocket_port: port of WebSockets on the loopback addresses; 0 lets the system choose.
    :param certificates: the folder of the certificate; None for that of the user.
    """
    return _Everything(reactor, port, group_endpoint, websocket_port, certificates)


def makeService(options: Options) -> IService:
    """Make the service that ``twistd twsock`` runs."""
    with certificate_directory(options) as directory:
        service = everything_service(options.reactor, certificates=directory)
    return in_process(options, service)
