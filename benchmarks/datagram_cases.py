"""
The loads that `benchmarks.datagram` puts on a server: sizes and counts, and what they may cost.

Read by `benchmarks.datagram`, which goes through them, `benchmarks.datagram_client`, which makes
them, and `benchmarks.datagram_report`, which holds the figures against the aims.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["DATAGRAM_CASES", "DatagramCase"]


@dataclass(frozen=True, slots=True)
class DatagramCase:
    """
    So many equal datagrams, sent together; the next ones follow when all have come back.

    :ivar payload: bytes in a datagram.
    :ivar window: datagrams in flight.
    :ivar is_run: whether the client sends them in one call, as one run. Only then may the kernel
        hand them over as one: what was sent one by one is received one by one on loopback.
    :ivar aims: by server that ratios refer to, what twsock may cost at most beside it.
    """

    key: str
    payload: int
    window: int
    is_run: bool = False
    aims: Mapping[str, float] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What is in flight, for people."""
        title = f"{self.window} x {self.payload} B"
        if self.window == 1:
            return title
        return f"{title}, sent {'as one run' if self.is_run else 'one by one'}"


_RUN_AIMS: Final = {"twisted": 0.1, "c": 0.4}

DATAGRAM_CASES: Final = {
    case.key: case
    for case in (
        DatagramCase("A", payload=64, window=1, aims={"twisted": 1.0}),
        DatagramCase("B", payload=100, window=32, is_run=True, aims=_RUN_AIMS),
        DatagramCase("B-single", payload=100, window=32),
        DatagramCase("C", payload=1200, window=32, is_run=True, aims=_RUN_AIMS),
        DatagramCase("C-single", payload=1200, window=32),
    )
}
