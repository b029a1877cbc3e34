"""Network interfaces, the addresses of this machine, and membership in multicast groups."""

__all__: list[str] = []
