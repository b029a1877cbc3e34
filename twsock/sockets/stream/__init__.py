"""Stream sockets and listeners to await."""

__all__: list[str] = []
