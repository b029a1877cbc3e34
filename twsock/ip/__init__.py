"""IP addresses and packets: zones of IPv6, errors of addresses, marks on packets."""

__all__: list[str] = []
