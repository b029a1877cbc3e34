"""
WebSockets (:rfc:`6455`, :rfc:`7692`): messages above one stream connection.

These modules do no I/O and read no clock:

- the wire format: ``frames``, ``masking``, ``messages`` (decoder and encoder), ``deflate`` and
  ``close_frame``;
- the opening handshake: ``http`` parses, ``http_message`` and ``header_fields`` have the values,
  ``uri`` compares hosts, and ``handshake`` (server) and ``client_handshake`` judge;
- the times and the end: ``keepalive`` decides when to ping, ``closing`` is the table of the end.

The other modules use these. ``connection`` has the control frames and the end of one WebSocket, of
a client or of a server; ``ping_schedule`` calls it at the times of its pings. On a server,
``factory`` makes one ``protocol`` for each connection, with the ``settings``. The base class of the
protocol, in ``accepting``, answers the request, after ``judging``; then the protocol calls the
handlers. ``resource`` serves a factory beside a web site, and ``broadcast`` sends one message to
many connections. `twsock.protocols` exports the classes for applications. The awaitable WebSockets
are in ``twsock.sockets.websocket``.
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
