"""Awaitable stream sockets and listeners."""

__all__: list[str] = []
