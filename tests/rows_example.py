"""A table and its tests, which notice the removal of some rows only: for `tests.test_rows`."""

from __future__ import annotations

import enum
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

__all__ = ["COPY", "TABLE", "Color", "ExampleTests"]


class Color(enum.Enum):
    """The keys, with a number each."""

    RED = enum.auto()
    GREEN = enum.auto()
    BLUE = enum.auto()


#: Color and number → color.
TABLE: Final = {
    (Color.RED, 1): Color.GREEN,
    (Color.GREEN, 1): Color.BLUE,
    (Color.BLUE, 1): Color.RED,
}

#: The name under which another module might have it.
COPY = TABLE


class ExampleTests(SynchronousTestCase):
    """Trial finds them by name only."""

    def test_red_is_followed(self) -> None:
        """It fails without the row of red."""
        self.assertIs(TABLE[Color.RED, 1], Color.GREEN)

    def test_green_may_be_followed(self) -> None:
        """It does not fail without the row of green."""
        self.assertIn(COPY.get((Color.GREEN, 1)), (None, Color.BLUE))
