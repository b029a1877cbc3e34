"""What a peer can cause as often as it likes is logged once a minute."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import Logger, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from twsock.rate_limited_log import OccasionalLog


class OccasionalLogTests(SynchronousTestCase):
    """Lines, and what is kept back."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.occasional = OccasionalLog(Logger(), self.clock.seconds)

    def warn(self, count: int) -> list[str]:
        with capturedLogs() as events:
            for number in range(count):
                self.occasional.warn("{number} is odd", number=number)
        return [formatEvent(event) for event in events]

    def test_the_first_is_logged(self) -> None:
        """As it is."""
        self.assertEqual(self.warn(1), ["0 is odd"])

    def test_what_follows_is_kept_back(self) -> None:
        """However much it is."""
        self.assertEqual(self.warn(1000), ["0 is odd"])

    def test_after_a_minute_their_number_is_told(self) -> None:
        """With the next, and only once."""
        self.warn(5)
        self.clock.advance(60)
        self.assertEqual(self.warn(2), ["0 is odd (and 4 more like it before)"])
        self.clock.advance(60)
        self.assertEqual(self.warn(1), ["0 is odd (and 1 more like it before)"])

    def test_two_logs_do_not_count_together(self) -> None:
        """One kind of event does not hide another."""
        self.warn(5)
        self.occasional = OccasionalLog(Logger(), self.clock.seconds)
        self.assertEqual(self.warn(1), ["0 is odd"])
