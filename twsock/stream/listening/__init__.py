"""Accepting connections: limits on their number and memory, UNIX sockets, and the PROXY header."""

__all__: list[str] = []
