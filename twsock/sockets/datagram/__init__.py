"""Datagram sockets to await."""

__all__: list[str] = []
