"""
One message to many WebSockets: application → **broadcast** → connections.

The message is encoded once, and compressed once for all connections that agreed on the same
compression without context takeover. While the call runs it holds these results. What the kernel
does not take is queued at each connection, at most ``max_unsent`` bytes and one message.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final

from twsock.errors import SocketError
from twsock.log import TextLogger
from twsock.websocket.frames import Opcode
from twsock.websocket.protocol import WebSocketProtocol

__all__ = ["broadcast"]

_log: Final = TextLogger(__name__)


def broadcast(connections: Iterable[WebSocketProtocol], message: str | bytes) -> int:
    """
    Send a message to many WebSockets of this server, without waiting for any of them.

    A connection whose peer does not read is treated as with `WebSocketProtocol.send_text`: it is
    aborted when ``max_unsent`` bytes wait for it. Connections that are closed, or whose handshake
    is not done, are skipped. So are those that are sending a message in fragments, with one log
    line each. Any other error of a connection is logged and aborts that connection only.

    :param connections: may change while the call runs: those that it had at the beginning count. A
        connection that is lost meanwhile is skipped.
    :param message: a text as ``str``, or binary data.
    :returns: how many connections sent or queued the message. Whether a peer received it is
        unknown.
    :raises UnicodeEncodeError: when a text has no form in UTF-8; nothing is sent then.
    """
    opcode, data = (
        (Opcode.TEXT, message.encode()) if isinstance(message, str) else (Opcode.BINARY, message)
    )
    frames: dict[Hashable, bytes] = {}
    count = 0
    for connection in tuple(connections):
        try:
            count += connection.send_shared(opcode, data, frames)
        except SocketError as error:
            _log.warn("broadcast skips {peer}: {error}", peer=connection.peer, error=error)
        except Exception:  # noqa: BLE001 - logged; the other connections are not concerned
            _log.failure("broadcast failed: {peer} aborted", peer=connection.peer)
            connection.abort()
    return count
