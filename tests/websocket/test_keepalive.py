"""Pings leave at their times, and a silent peer is given up at its time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twsock.websocket.keepalive import Due, KeepAlive, check_times

_SECONDS = st.integers(min_value=1, max_value=60)


def _events(keepalive: KeepAlive, until: float, heard: set[int] | None = None) -> list[str]:
    """Return what is due, and when; a byte arrives just before each second of ``heard``."""
    found = []
    last = 0.0
    while (now := keepalive.next_deadline) <= until:
        if heard is not None and any(last < second <= now for second in heard):
            keepalive.has_received = True
        last = now
        due = keepalive.advance(now)
        found.append(f"{due.name} {now:g}")
        if due is Due.END:
            break
    return found


class KeepAliveTests(SynchronousTestCase):
    """The times of pings and of the end."""

    def test_silent_peer_is_pinged_and_given_up(self) -> None:
        """With 20 seconds each, the ping leaves after 20 seconds and the end comes after 40."""
        self.assertEqual(_events(KeepAlive(20, 20, 0), 100), ["PING 20", "END 40"])

    def test_answered_pings_go_on(self) -> None:
        """A peer that answers each ping is pinged in each interval."""
        events = _events(KeepAlive(20, 20, 0), 100, {21, 41, 61, 81})
        self.assertEqual(events, [f"PING {second}" for second in (20, 40, 60, 80, 100)])

    def test_byte_before_the_ping_is_no_answer(self) -> None:
        """The sign of life has to arrive after the ping."""
        self.assertEqual(_events(KeepAlive(20, 20, 0), 100, {19}), ["PING 20", "END 40"])

    def test_long_timeout_covers_several_pings(self) -> None:
        """The wait begins with the first ping that is not answered."""
        events = _events(KeepAlive(10, 25, 0), 100)
        self.assertEqual(events, ["PING 10", "PING 20", "PING 30", "END 35"])

    def test_short_timeout_ends_between_two_pings(self) -> None:
        """The end does not wait for the next ping."""
        self.assertEqual(_events(KeepAlive(20, 5, 0), 100), ["PING 20", "END 25"])

    def test_without_a_timeout_nothing_ends(self) -> None:
        """Pings alone keep proxies from dropping the connection."""
        events = _events(KeepAlive(30, None, 0), 100)
        self.assertEqual(events, ["PING 30", "PING 60", "PING 90"])

    def test_the_clock_stands_while_nothing_is_read(self) -> None:
        """The peer has the whole timeout once this end reads again."""
        keepalive = KeepAlive(20, 20, 0)
        self.assertIs(keepalive.advance(20), Due.PING)
        self.assertIs(keepalive.advance(40, ignores_silence=True), Due.PING)
        self.assertIs(keepalive.advance(60, ignores_silence=True), Due.PING)
        self.assertIs(keepalive.advance(79), Due.NOTHING)
        self.assertIs(keepalive.advance(80), Due.END)

    def test_late_call_sends_one_ping(self) -> None:
        """A process that was blocked does not send the pings that it missed."""
        keepalive = KeepAlive(20, 20, 0)
        self.assertIs(keepalive.advance(1000), Due.PING)
        self.assertEqual(keepalive.next_deadline, 1020)

    @given(_SECONDS, st.none() | _SECONDS, st.sets(st.integers(1, 300)))
    def test_deadline_moves_on(self, interval: int, timeout: int | None, heard: set[int]) -> None:
        """Each call moves the deadline into the future, whenever bytes arrive."""
        keepalive = KeepAlive(interval, timeout, 0)
        for _ in range(50):
            now = keepalive.next_deadline
            keepalive.has_received = round(now) in heard
            keepalive.advance(now)
            self.assertGreater(keepalive.next_deadline, now)

    @given(_SECONDS, _SECONDS)
    def test_silence_ends_in_time(self, interval: int, timeout: int) -> None:
        """A peer that never sends is given up after one interval and one timeout."""
        events = _events(KeepAlive(interval, timeout, 0), 1000)
        self.assertEqual(events[-1], f"END {interval + timeout}")

    @given(_SECONDS, _SECONDS, st.integers(1, 60))
    def test_peer_that_answers_stays(self, interval: int, timeout: int, delay: int) -> None:
        """A peer that sends a byte within the timeout after each ping is never given up."""
        delay = min(delay, timeout)
        keepalive = KeepAlive(interval, timeout, 0)
        answer_at = None
        for _ in range(50):
            now = keepalive.next_deadline
            if answer_at is not None and answer_at <= now:
                keepalive.has_received = True
                answer_at = None
            due = keepalive.advance(now)
            self.assertIsNot(due, Due.END, f"at {now}")
            if due is Due.PING and answer_at is None:
                answer_at = now + delay

    def test_wait_begins_anew_when_silence_counts_again(self) -> None:
        """Until then no pong could come; a ping in between does not extend the wait."""
        keepalive = KeepAlive(20, 30, 0)
        self.assertIs(keepalive.advance(20), Due.PING)
        self.assertIs(keepalive.advance(30, ignores_silence=True), Due.NOTHING)
        self.assertIs(keepalive.advance(40), Due.PING)
        self.assertEqual(keepalive.next_deadline, 60)
        self.assertIs(keepalive.advance(60), Due.END)


class CheckTests(SynchronousTestCase):
    """The numbers that are accepted."""

    def test_times_are_above_zero(self) -> None:
        """0 is no interval and no timeout; None stands for neither."""
        check_times(None, None)
        check_times(0.5, 1)
        for interval, timeout in ((0, 1), (-1, 1), (1, 0), (float("nan"), 1)):
            with self.assertRaisesRegex(ValueError, "above 0 seconds"):
                check_times(interval, timeout)
