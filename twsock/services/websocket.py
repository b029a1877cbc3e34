"""
``twistd twsock-websocket``: an echo for WebSockets, over TCP, UNIX sockets and TLS.

Options → `websocket_service` → `twsock.services.stream.StreamService` →
`twsock.protocols.WebSocketFactory` with `WebSocketEcho`. The service owns the ports and the drain;
the factory owns the connections.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.python import usage
from typing_extensions import override

from twsock.protocols import UpgradePolicy, WebSocketEcho, WebSocketFactory
from twsock.services.keeping_reactor import plain_reactor
from twsock.services.listening import default_endpoints
from twsock.services.options import count_option, seconds_option
from twsock.services.security import Security
from twsock.services.stream import StreamService, default_max_connections
from twsock.services.stream_endpoints import StreamEndpointSettings, parse_server_endpoints
from twsock.services.stream_options import DEFAULT_DRAIN_TIMEOUT, StreamServiceOptions
from twsock.stream.connection import FIRST_MESSAGE_TIME
from twsock.websocket.deflate import DeflateSettings
from twsock.websocket.handshake import RequestRules
from twsock.websocket.keepalive import DEFAULT_PING_INTERVAL

if TYPE_CHECKING:
    from twsock.services.site import FileSite

__all__ = [
    "DEFAULT_SITE_PATH",
    "DEFAULT_WEBSOCKET_PORT",
    "Options",
    "SiteService",
    "makeService",
    "websocket_service",
]

#: The port of the service.
DEFAULT_WEBSOCKET_PORT: Final = 1338

#: The path of the WebSockets beside a site.
DEFAULT_SITE_PATH: Final = "/ws"


class SiteService(StreamService):
    """
    Serves the files of a folder and WebSockets on the same ports; see `StreamService`.

    :param factory: serves the WebSockets; it has a path.
    :param folder: the files.
    """

    def __init__(
        self,
        reactor: Any,
        factory: WebSocketFactory,
        endpoints: Sequence[tuple[str, IStreamServerEndpoint]],
        *,
        folder: Path,
        drain_timeout: float = DEFAULT_DRAIN_TIMEOUT,
    ) -> None:
        super().__init__(reactor, factory, endpoints, drain_timeout=drain_timeout)
        self._web_sockets = factory
        self._folder = folder
        self._site: FileSite | None = None

    @override
    def listen_on(self, endpoint: IStreamServerEndpoint) -> Deferred[IListeningPort]:
        # Loads the HTTP server of Twisted, which other services do not need.
        from twsock.services.site import FileSite, SiteEndpoint

        if self._site is None:
            path = self._web_sockets.settings.rules.path or DEFAULT_SITE_PATH
            self._site = FileSite(self._reactor, self._web_sockets, self._folder, path)
        self._site.is_draining = False
        wrapped: Any = SiteEndpoint(endpoint, self._site)
        return super().listen_on(wrapped)

    @override
    def hurry(self) -> None:
        super().hurry()
        if self._site is not None and self._site.is_draining:
            self._site.abort()

    @override
    async def stop(self) -> None:
        site = self._site
        if site is None:
            await super().stop()
            return
        draining = site.drain(0 if self.is_hurried else self.drain_timeout)
        await super().stop()
        await draining
        # Connections that came before the ports were closed.
        await site.drain(0 if self.is_hurried else FIRST_MESSAGE_TIME)


class Options(StreamServiceOptions):
    """The options of ``twistd twsock-websocket``."""

    optFlags = [["compression", None, "Compress messages, if the client offers it."]]
    optParameters = [
        ["path", None, None, "The only path of WebSockets. [default: any; with --site /ws]"],
        ["site", None, None, "Folder whose files are served over HTTP on the same ports."],
        ["max-message-size", None, None, "Largest message accepted, in bytes. [default: 1 MiB]"],
        [
            "ping-interval",
            None,
            DEFAULT_PING_INTERVAL,
            "Seconds between two pings of each client; 0: no pings.",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["hosts"] = []
        self["origins"] = []
        self["subprotocols"] = []

    def opt_endpoint(self, description: str) -> None:
        """
        Server endpoint string to listen on; repeatable. [default: port 1338 on 127.0.0.1 and ::1]
        """
        self["endpoints"].append(description)

    opt_e = opt_endpoint

    def opt_host(self, name: str) -> None:
        """
        Name or address of this server, as its clients write it; repeatable. [default: on a loopback
        address localhost and loopback addresses, otherwise any name]
        """
        self["hosts"].append(name)

    def opt_origin(self, origin: str) -> None:
        """
        Origin whose pages may connect, such as https://example.com, or * for all; repeatable.
        [default: pages of the same host]
        """
        self["origins"].append(origin)

    def opt_subprotocol(self, name: str) -> None:
        """
        Subprotocol of this server, the preferred one first; repeatable. Requests that offer none of
        them are refused.
        """
        self["subprotocols"].append(name)

    @override
    def check_format(self) -> None:
        if self["upgrade"] is not None:
            raise usage.UsageError("--upgrade is not for WebSockets: use --tls")
        self["max-message-size"] = count_option(self, "max-message-size", 0)
        self["ping-interval"] = seconds_option(self, "ping-interval") or None
        for option, rule in (
            ("host", {"hosts": self["hosts"]}),
            ("origin", {"origins": self["origins"]}),
            ("subprotocol", {"subprotocols": self["subprotocols"]}),
            ("path", {"path": self["path"]}),
        ):
            try:
                RequestRules(**rule)
            except ValueError as error:
                raise usage.UsageError(f"--{option}: {error}") from error
        if self["site"] is not None:
            self["site"] = _check_site(self["site"])

    def postOptions(self) -> None:
        """
        Check the options, so that a mistake is reported in one line before anything starts.

        :raises UsageError: when an option is invalid; names the option and what it takes.
        """
        super().postOptions()
        if self["site"] is not None and self["security"] is not None:
            raise usage.UsageError("--site cannot be used with --tls: give an ssl: endpoint")


def _check_site(text: str) -> Path:
    if not text:  # For example an unset variable of a shell; it would be the current folder.
        raise usage.UsageError("--site: the name of the folder is empty")
    folder = Path(text).absolute()
    try:
        with os.scandir(folder):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise usage.UsageError(f"--site: cannot read the folder {text!r}: {reason}") from error
    if not os.access(folder, os.X_OK):
        raise usage.UsageError(f"--site: may not open files in the folder {text!r}")
    return folder


def websocket_service(
    reactor: Any,
    endpoints: Sequence[str] = (),
    *,
    path: str | None = None,
    site: Path | None = None,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    subprotocols: Sequence[str] = (),
    compression: bool = False,
    max_message_size: int | None = None,
    ping_interval: float | None = DEFAULT_PING_INTERVAL,
    max_connections: int | None = None,
    max_connections_per_address: int | None = None,
    max_buffered: int | None = None,
    drain_timeout: float = DEFAULT_DRAIN_TIMEOUT,
    security: Security | None = None,
    endpoint_settings: StreamEndpointSettings | None = None,
) -> StreamService:
    """
    Make the WebSocket echo service.

    :param endpoints: server endpoint strings; if empty, port 1338 on the loopback addresses.
    :param path: see `WebSocketFactory`, also for ``hosts``, ``origins``, ``subprotocols`` and
        ``max_message_size``.
    :param site: a folder whose files are served on the same ports, over HTTP; ``path`` is then
        ``/ws`` if it is None. TLS is that of the endpoints.
    :param compression: whether to compress messages, if the client offers it.
    :param ping_interval: seconds between two pings; above 0. None for no pings.
    :param max_connections: how many may be open at once; None for `default_max_connections`.
    :param max_connections_per_address: see `StreamServerFactory`, also for ``max_buffered``.
    :param drain_timeout: see `StreamService`.
    :param security: TLS from the first byte; None for no TLS.
    :param endpoint_settings: defaults for arguments that the strings omit; None for the defaults of
        twsock.
    :raises ValueError: when an endpoint, a name or a number cannot be used, the policy of
        ``security`` is not ``UpgradePolicy.IMPLICIT``, or both ``site`` and ``security`` are given.
        The text of the error is one line for users.
    """
    if site is not None and security is not None:
        raise ValueError("a site has no security of its own: give endpoints with TLS")
    if security is not None and security.upgrade.policy is not UpgradePolicy.IMPLICIT:
        raise ValueError("TLS of WebSockets begins with the first byte")
    plain = plain_reactor(reactor)
    factory = WebSocketFactory(
        plain,
        WebSocketEcho,
        path=DEFAULT_SITE_PATH if path is None and site is not None else path,
        hosts=hosts,
        origins=origins,
        subprotocols=subprotocols,
        compression=DeflateSettings() if compression else None,
        max_message_size=max_message_size,
        ping_interval=ping_interval,
        max_connections=default_max_connections() if max_connections is None else max_connections,
        max_connections_per_address=max_connections_per_address,
        max_buffered=max_buffered,
        upgrade=None if security is None else security.upgrade,
    )
    strings = list(endpoints) or default_endpoints(DEFAULT_WEBSOCKET_PORT)
    parsed = parse_server_endpoints(reactor, strings, endpoint_settings)
    if site is not None:
        return SiteService(plain, factory, parsed, folder=site, drain_timeout=drain_timeout)
    return StreamService(plain, factory, parsed, security=security, drain_timeout=drain_timeout)


def makeService(options: Options) -> IService:
    """Make the service that ``twistd twsock-websocket`` runs."""
    return options.make_process(
        websocket_service,
        path=options["path"],
        site=options["site"],
        hosts=options["hosts"],
        origins=options["origins"],
        subprotocols=options["subprotocols"],
        compression=bool(options["compression"]),
        max_message_size=options["max-message-size"],
        ping_interval=options["ping-interval"],
    )
