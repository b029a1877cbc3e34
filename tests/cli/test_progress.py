"""Long runs show how far they are."""

from __future__ import annotations

import io

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.progress import LONG_RUN, Progress, draw_bar


class DrawBarTests(SynchronousTestCase):
    """One picture."""

    def test_a_bar_is_filled_in_proportion(self) -> None:
        """Never full before the end."""
        self.assertEqual(draw_bar(50, 200, 35), "[#####...............] 50/200  25%")
        self.assertEqual(draw_bar(199, 200, 36), "[###################.] 199/200  99%")
        self.assertEqual(draw_bar(200, 200, 36), "[####################] 200/200 100%")

    def test_no_terminal_is_too_narrow(self) -> None:
        """The last column stays free, or some terminals go to the next line."""
        for columns in range(1, 120):
            self.assertLess(len(draw_bar(1234, 5000, columns)), columns)
            self.assertLess(len(draw_bar(1234, None, columns)), columns)

    def test_without_a_total_there_is_a_count(self) -> None:
        """Nobody knows how many lines standard input has."""
        self.assertEqual(draw_bar(1234, None, 80), "1234 echoes")


class ProgressTests(SynchronousTestCase):
    """A bar that comes and goes."""

    def make(self, total: int | None) -> Progress:
        self.clock = Clock()
        self.terminal = io.StringIO()
        return Progress(self.terminal, total, lambda: 80, self.clock.seconds)

    def test_a_short_run_has_none(self) -> None:
        """It is over before anybody looks."""
        progress = self.make(LONG_RUN - 1)
        for _ in range(LONG_RUN - 1):
            progress.advance()
        progress.erase()
        self.assertEqual(self.terminal.getvalue(), "")

    def test_a_long_run_has_one_from_the_start(self) -> None:
        """It is drawn ten times a second, however fast the run is, and goes without a trace."""
        progress = self.make(LONG_RUN)
        for _ in range(50):
            progress.advance()
        self.clock.advance(0.1)
        progress.advance()
        progress.erase()
        first, second, rest = self.terminal.getvalue().split("\r\x1b[K")
        self.assertIn(" 1/100 ", first)
        self.assertIn(" 51/100 ", second)
        self.assertEqual(rest, "")

    def test_a_run_without_an_end_counts_once_it_is_long(self) -> None:
        """What comes from standard input may be one line or millions."""
        progress = self.make(None)
        for _ in range(LONG_RUN - 1):
            progress.advance()
        self.assertEqual(self.terminal.getvalue(), "")
        progress.advance()
        self.assertEqual(self.terminal.getvalue(), "100 echoes")

    def test_an_erased_bar_comes_back_with_the_next_message(self) -> None:
        """A line that was written in its place does not end it."""
        progress = self.make(LONG_RUN)
        progress.advance()
        progress.erase()
        progress.advance()
        self.assertIn(" 2/100 ", self.terminal.getvalue())
