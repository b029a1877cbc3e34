"""
The settings of a WebSocket server: factory → **settings** → protocol.

One object for all connections.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from twsock._integers import checked_integer
from twsock.websocket.handshake import RequestRules
from twsock.websocket.keepalive import DEFAULT_PING_INTERVAL, DEFAULT_PING_TIMEOUT, check_times
from twsock.websocket.messages import DEFAULT_MAX_FRAGMENTS

__all__ = ["DEFAULT_WEBSOCKET_TIMEOUT", "WebSocketSettings"]

#: Default of ``handshake_timeout``, in seconds.
DEFAULT_WEBSOCKET_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class WebSocketSettings:
    """
    What all WebSockets of a server have in common.

    :ivar rules: judge the requests.
    :ivar handshake_timeout: seconds from the connection, or from the end of a TLS handshake, to the
        answer of `WebSocketProtocol.accept`; then the connection is aborted. Above 0.
    :ivar ping_interval: seconds between two pings; None for no pings. Above 0.
    :ivar ping_timeout: seconds after a ping within which any byte of the peer has to arrive;
        otherwise the connection is aborted. None to ping without this wait. Above 0.
    :ivar max_fragments: the most frames of one message; 1 or more.
    :ivar max_fragment_size: messages with more bytes are sent in several frames; None for one frame
        each. 1 or more.
    :raises ValueError: when a number is out of bounds.
    """

    rules: RequestRules = field(default_factory=RequestRules)
    handshake_timeout: float = DEFAULT_WEBSOCKET_TIMEOUT
    ping_interval: float | None = DEFAULT_PING_INTERVAL
    ping_timeout: float | None = DEFAULT_PING_TIMEOUT
    max_fragments: int = DEFAULT_MAX_FRAGMENTS
    max_fragment_size: int | None = None

    def __post_init__(self) -> None:
        if not self.handshake_timeout > 0:
            raise ValueError(
                f"handshake_timeout is above 0 seconds, not {self.handshake_timeout:g}"
            )
        check_times(self.ping_interval, self.ping_timeout)
        if checked_integer(self.max_fragments, "max_fragments") < 1:
            raise ValueError(f"max_fragments is 1 or more, not {self.max_fragments}")
        size = self.max_fragment_size
        if size is not None and checked_integer(size, "max_fragment_size") < 1:
            raise ValueError(f"max_fragment_size is 1 byte or more, not {size}")
