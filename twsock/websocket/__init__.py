"""
WebSockets (:rfc:`6455`, :rfc:`7692`): messages above one stream connection.

`twsock.protocols` exports the protocol classes. ``masking``, ``frames``, ``close_frame`` and
``messages`` are the wire format, ``handshake`` and ``http`` the request and its response, and
``closing`` and ``keepalive`` the end: these are cores, without I/O and clock. ``connection`` has
one WebSocket above one connection, in both roles.
"""

from typing import TYPE_CHECKING

from twsock._lazy import import_when_used

if TYPE_CHECKING:
    from twsock.websocket.close_frame import CloseCode, WebSocketViolation
    from twsock.websocket.deflate import DeflateSettings
    from twsock.websocket.handshake import Acceptance, Refusal, RequestRules, refuse
    from twsock.websocket.http_message import Request
    from twsock.websocket.settings import WebSocketSettings

__all__ = [
    "Acceptance",
    "CloseCode",
    "DeflateSettings",
    "Refusal",
    "Request",
    "RequestRules",
    "WebSocketSettings",
    "WebSocketViolation",
    "refuse",
]

# Type checkers do not see this: they would take it for a promise that every name exists.
if not TYPE_CHECKING:
    __getattr__, __dir__ = import_when_used(
        __name__, ("close_frame", "http_message", "deflate", "handshake", "settings")
    )
