"""
One message to many WebSockets: application → **broadcast** → connections.

The message is encoded once, and compressed once for all connections that agreed on the same
compression without context takeover. The results are held while the call runs. Bytes that the
kernel does not take are queued at each connection: at most ``max_unsent`` bytes and one message.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final

from twsock.errors import SocketError
from twsock.log import TextLogger
from twsock.websocket.frames import Opcode
from twsock.websocket.protocol import WebSocketProtocol
from twsock.wire.byte_queue import Buffer, as_bytes

__all__ = ["broadcast"]

_log: Final = TextLogger(__name__)


def broadcast(connections: Iterable[WebSocketProtocol], message: str | Buffer) -> int:
    """
    Send a message to many WebSockets of this server, without waiting for any of them.

    A connection whose peer does not read is aborted when ``max_unsent`` bytes are queued, as with
    `WebSocketProtocol.send_text`. Connections that are closed, or whose handshake is not done, are
    skipped. A connection that is sending a message in fragments is skipped, and one line is logged.
    Any other error of a connection is logged, and aborts that connection only.

    :param connections: the WebSockets. The collection may change while the call runs: the message
        goes to those that it had at the beginning. A connection that is lost during the call is
        skipped.
    :param message: a text as ``str``, or a binary message as any buffer.
    :returns: how many connections sent or queued the message. Whether a peer received it is
        unknown.
    :raises UnicodeEncodeError: when a text has no form in UTF-8; nothing is sent then.
    :raises TypeError: when it is neither a text nor a buffer; nothing is sent then.
    """
    if isinstance(message, str):
        opcode, data = Opcode.TEXT, message.encode()
    else:
        opcode, data = Opcode.BINARY, as_bytes(message)
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
