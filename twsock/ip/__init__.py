"""IP addresses and packets: IPv6 zones, errors of bind and connect, DSCP marks."""

__all__: list[str] = []
