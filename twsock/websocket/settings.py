"""
The settings of a WebSocket server: factory → **settings** → protocol.

All connections of a server share one object. A factory makes it, and each protocol reads it.
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
    The settings of all WebSockets of a server.

    :ivar rules: the rules that judge the requests.
    :ivar handshake_timeout: seconds until the request is answered, from the start of the connection
        or the end of its TLS handshake; then the connection is aborted. Above 0. Of a request to a
        `WebSocketResource` they start when the request is complete.
    :ivar ping_interval: seconds between two pings; above 0. None for no pings.
    :ivar ping_timeout: seconds after a ping within which a byte of the peer has to arrive;
        otherwise the connection is aborted. Above 0. None for no such limit.
    :ivar max_fragments: how many frames one received message may have; 1 or more. A message with
        more closes the WebSocket with the code 1008.
    :ivar max_fragment_size: a sent message with more bytes is divided into frames of this size; 1
        or more. None for one frame for each message.
    :raises ValueError: when a number is out of bounds.
    :raises TypeError: when a number of frames or bytes is no integer.
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
