"""
Awaitable WebSockets of clients: application → **sockets** → `twsock.websocket` → stream connection.

``message_socket`` and ``stream_socket`` have the two public classes, whose base is in ``client``.
For each connect, a socket makes one protocol (``connection``, with its base in ``connecting``). The
protocol passes messages to a receiver (``receiving``, ``stream_socket``). The socket's ``output``
encodes and queues messages. `twsock` exports the public classes.
"""

__all__: list[str] = []
