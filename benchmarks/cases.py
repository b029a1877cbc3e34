"""
The loads that `benchmarks.stream` puts on a server: sizes and counts only.

Read by `benchmarks.stream`, which goes through them, and `benchmarks.client`, which makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["CASES", "Case"]


@dataclass(frozen=True, slots=True)
class Case:
    """
    So many equal frames, always under way.

    :ivar payload: bytes in a frame, without the length in front.
    :ivar window: frames in flight on each connection.
    """

    key: str
    payload: int
    window: int
    connections: int = 1

    @property
    def title(self) -> str:
        """What is in flight, for people."""
        size = f"{self.payload} B" if self.payload < 1024 else f"{self.payload // 1024} KiB"
        title = f"{self.window} x {size}"
        return title if self.connections == 1 else f"{title} on each of {self.connections}"


CASES: Final = {
    case.key: case
    for case in (
        Case("A", payload=64, window=1),
        Case("B", payload=64, window=64),
        Case("C", payload=64, window=16, connections=50),
        Case("D", payload=1024, window=64),
        Case("E", payload=64 * 1024, window=4),
    )
}
