"""
A bar on the terminal for runs that take long.

Owned by `twsock.cli.screen`, which takes it away before it writes a line to the same terminal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TextIO

__all__ = ["LONG_RUN", "Progress", "draw_bar"]

#: Messages from which on a run is long: fewer are done before anybody has looked.
LONG_RUN: Final = 100

#: Seconds between two pictures of a bar that nothing has written over.
_REDRAW_INTERVAL: Final = 0.1

_ERASE: Final = "\r\x1b[K"


def draw_bar(done: int, total: int | None, columns: int) -> str:
    """
    Draw how far a run is.

    :param total: None where nobody knows: then there is a count and no bar.
    :param columns: the width of the terminal, of which the last column stays free.
    """
    if total is None:
        return f"{done} echoes"[: columns - 1]
    figures = f" {done}/{total} {done * 100 // total:3d}%"
    width = min(columns - 1 - len(figures) - 2, 40)
    if width < 5:
        return figures.strip()[: columns - 1]
    filled = done * width // total
    return f"[{'#' * filled}{'.' * (width - filled)}]{figures}"


class Progress:
    """
    One bar, in the last line of a terminal.

    :param terminal: where it is drawn.
    :param total: how many messages there will be; None where nobody knows.
    :param columns: gives the width of the terminal, in characters.
    :param now: gives the time, in seconds.
    """

    def __init__(
        self,
        terminal: TextIO,
        total: int | None,
        columns: Callable[[], int],
        now: Callable[[], float],
    ) -> None:
        self._terminal = terminal
        self._total = total
        self._columns = columns
        self._now = now
        self._done = 0
        self._is_visible = False
        self._drawn_at = 0.0

    def advance(self) -> None:
        """Count a message that came back."""
        self._done += 1
        if self._done < LONG_RUN if self._total is None else self._total < LONG_RUN:
            return
        now = self._now()
        if self._is_visible and now - self._drawn_at < _REDRAW_INTERVAL:
            return
        bar = draw_bar(self._done, self._total, self._columns())
        self._terminal.write(f"{_ERASE if self._is_visible else ''}{bar}")
        self._terminal.flush()
        self._is_visible = True
        self._drawn_at = now

    def erase(self) -> None:
        """Take the bar away; it comes back with the next message."""
        if self._is_visible:
            self._is_visible = False
            self._terminal.write(_ERASE)
            self._terminal.flush()
