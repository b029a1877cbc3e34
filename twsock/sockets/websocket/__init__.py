"""Awaitable WebSockets."""

__all__: list[str] = []
