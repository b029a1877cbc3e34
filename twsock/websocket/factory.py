"""
The server factory of WebSockets: endpoint → **factory** → connections.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory
from typing_extensions import override
from zope.interface import implementer

from twsock.stream.factory import StreamServerFactory
from twsock.stream.protocol import StreamProtocol
from twsock.websocket.accepting import check_upgrade
from twsock.websocket.deflate import DeflateSettings
from twsock.websocket.handshake import ALPN_PROTOCOLS, RequestRules
from twsock.websocket.keepalive import DEFAULT_PING_INTERVAL, DEFAULT_PING_TIMEOUT
from twsock.websocket.messages import DEFAULT_MAX_FRAGMENTS
from twsock.websocket.ping_schedule import PingSchedule
from twsock.websocket.protocol import WebSocketProtocol
from twsock.websocket.settings import DEFAULT_WEBSOCKET_TIMEOUT, WebSocketSettings

__all__ = ["WebSocketFactory"]


@implementer(IProtocolNegotiationFactory)
class WebSocketFactory(StreamServerFactory):
    """
    Serves WebSockets on any number of stream endpoints.

    There is no idle timeout: pings show whether a peer is alive.

    :param reactor: measures the timeouts; any ``IReactorTime``.
    :param protocol: a subclass of `WebSocketProtocol`, made without arguments for each connection.
    :param hosts: names and addresses of this server, without ports; see `RequestRules`. On a
        loopback address only ``localhost``, loopback addresses and these names are accepted. So a
        server behind a proxy on the same machine needs the names that the proxy passes on.
    :param origins: origins whose pages may connect, besides those of the same host; ``*`` for all.
    :param subprotocols: those that the server has, the preferred one first. If there are any, a
        request that offers none of them is refused.
    :param path: the only path that is accepted; None for any path.
    :param compression: how to compress messages, if the client offers it; None for no compression.
    :param max_message_size: largest message accepted, in bytes; None for the ``max_payload`` of the
        protocol class, which is 1 MiB if the class does not set it.
    :param handshake_timeout: see `WebSocketSettings`, also for ``ping_interval``,
        ``ping_timeout``, ``max_fragments`` and ``max_fragment_size``.
    :param limits: keyword arguments of `StreamServerFactory`: ``max_unsent``, ``max_connections``,
        ``max_connections_per_address``, ``max_buffered``, ``close_timeout`` and ``upgrade``. The
        policy of ``upgrade``, here or of the protocol class, has to be ``UpgradePolicy.IMPLICIT``:
        TLS from the first byte.
    :raises ValueError: when a number is out of bounds, a name is malformed, or ``upgrade`` has
        another policy.
    :raises TypeError: when an argument has the wrong type.
    """

    def __init__(
        self,
        reactor: Any,
        protocol: type[WebSocketProtocol],
        *,
        hosts: Collection[str] = (),
        origins: Collection[str] = (),
        subprotocols: Sequence[str] = (),
        path: str | None = None,
        compression: DeflateSettings | None = None,
        max_message_size: int | None = None,
        handshake_timeout: float = DEFAULT_WEBSOCKET_TIMEOUT,
        ping_interval: float | None = DEFAULT_PING_INTERVAL,
        ping_timeout: float | None = DEFAULT_PING_TIMEOUT,
        max_fragments: int = DEFAULT_MAX_FRAGMENTS,
        max_fragment_size: int | None = None,
        **limits: Any,
    ) -> None:
        self.settings = WebSocketSettings(
            rules=RequestRules(
                hosts=hosts,
                origins=origins,
                subprotocols=subprotocols,
                compression=compression,
                path=path,
            ),
            handshake_timeout=handshake_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            max_fragments=max_fragments,
            max_fragment_size=max_fragment_size,
        )
        upgrade = limits.get("upgrade") or protocol.upgrade
        if upgrade is not None:
            check_upgrade(upgrade)
        super().__init__(
            reactor, protocol, max_payload=max_message_size, idle_timeout=None, **limits
        )

        self._ping_schedule = (
            None if ping_interval is None else PingSchedule(self.group.clock, ping_interval)
        )

    @override
    def buildProtocol(self, addr: IAddress | None) -> StreamProtocol | None:
        built = super().buildProtocol(addr)
        if isinstance(built, WebSocketProtocol):
            built.settings = self.settings
            built.ping_schedule = self._ping_schedule
        return built

    def acceptableProtocols(self) -> list[bytes]:
        """Return the names for ALPN; see `twsock.websocket.handshake.ALPN_PROTOCOLS`."""
        return list(ALPN_PROTOCOLS)
