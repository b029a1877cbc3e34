"""Awaitable datagram sockets."""

__all__: list[str] = []
