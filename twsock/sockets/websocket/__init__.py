"""
Awaitable WebSockets: application → **sockets** → `twsock.websocket` → stream connection.

Clients: ``message_socket`` and ``stream_socket`` have the two public classes, with their base class
in ``client``. A socket makes one protocol for each connect (``connecting``).

Servers: a ``listener`` makes one socket (``server``) and one protocol (``accepting``) for each
connection.

Both protocols have their base class in ``connection``. It passes received messages to a receiver
(``receiving``, ``stream_receiving``). The ``output`` of a socket encodes and queues messages. What
all sockets have in common is in ``web_socket`` and ``message_calls``. `twsock` exports the public
classes.
"""

__all__: list[str] = []
