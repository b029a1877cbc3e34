"""A table, and tests that fail without some of its rows; for `tests.test_rows`."""

from __future__ import annotations

import enum
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

__all__ = ["COPY", "TABLE", "Color", "ExampleTests", "WholeTests"]


class Color(enum.Enum):
    """The keys of the table, each with a number."""

    RED = enum.auto()
    GREEN = enum.auto()
    BLUE = enum.auto()


#: Color and number → color.
TABLE: Final = {
    (Color.RED, 1): Color.GREEN,
    (Color.GREEN, 1): Color.BLUE,
    (Color.BLUE, 1): Color.RED,
    (Color.RED, 2): Color.BLUE,
    (Color.GREEN, 2): Color.GREEN,
}

#: A second name of the table, as an importing module has.
COPY = TABLE


class ExampleTests(SynchronousTestCase):
    """Tests that `tests.test_rows` runs by name; trial does not discover them."""

    def test_red_is_followed(self) -> None:
        """Without the row of red, the test fails."""
        self.assertIs(TABLE[Color.RED, 1], Color.GREEN)

    def test_green_may_be_followed(self) -> None:
        """Without the row of green, the test still passes."""
        self.assertIn(COPY.get((Color.GREEN, 1)), (None, Color.BLUE))

    def test_second_red_is_there(self) -> None:
        """It fails without the second row of red."""
        self.assertIn((Color.RED, 2), TABLE)


class WholeTests(SynchronousTestCase):
    """A test of the whole table."""

    def test_each_color_is_followed_by_one(self) -> None:
        """It fails without the second row of green, and uses all rows."""
        self.assertEqual(
            [value for value in TABLE.values() if value is Color.GREEN][1:], [Color.GREEN]
        )
