"""The logs of workers in the log of the parent."""

from __future__ import annotations

import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twsock.services.json_log import format_json_line, json_log_observer
from twsock.services.workers.logs import MAX_LOG_LINE, LogLines, log_line


def in_steps(data: bytes, step: int) -> list[str]:
    """Return the lines of an output that arrives in pieces."""
    lines = LogLines()
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    return [*(line for piece in pieces for line in lines.feed(piece)), *lines.end()]


class LinesTests(SynchronousTestCase):
    """Output is split into lines."""

    @given(st.lists(st.text("abc…", min_size=1)), st.integers(1, 9))
    def test_any_split_gives_the_same_lines(self, lines: list[str], step: int) -> None:
        """A line may arrive in pieces, also within a character."""
        self.assertEqual(in_steps("\n".join(lines).encode(), step), lines)

    def test_empty_lines_and_carriage_returns_are_dropped(self) -> None:
        """Terminals need them."""
        self.assertEqual(in_steps(b"one\r\n\n\ntwo", 4), ["one", "two"])

    def test_a_long_line_is_cut(self) -> None:
        """The next one is whole."""
        data = b"x" * MAX_LOG_LINE + b"\n" + b"y" * (3 * MAX_LOG_LINE) + b"\nz\n"
        expected = ["x" * MAX_LOG_LINE, "y" * MAX_LOG_LINE + "…", "z"]
        for step in (1000, len(data)):
            self.assertEqual(in_steps(data, step), expected, step)

    def test_bytes_that_are_no_text_are_escaped(self) -> None:
        """No error escapes."""
        self.assertEqual(in_steps(b"\xff!\n", 9), ["\\xff!"])


class EventTests(SynchronousTestCase):
    """A line becomes an event of the parent."""

    def setUp(self) -> None:
        self.events: list[dict[str, Any]] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def relayed(self, line: str, **options: Any) -> dict[str, Any]:
        """Log a line; return the JSON of the parent."""
        log_line(line, 2, **options)
        (event,) = self.events
        formatted = format_json_line(event)
        assert formatted is not None
        parsed: dict[str, Any] = json.loads(formatted)
        return parsed

    def logged_by_a_worker(self, **fields: Any) -> str:
        """Return the line that a worker writes."""
        file = io.StringIO()
        observer = json_log_observer(file)
        Logger("twsock.example", observer=observer).warn("{peer} sent {size} bytes", **fields)
        return file.getvalue()

    def test_an_event_keeps_level_namespace_and_fields(self) -> None:
        """The number of the worker is a further field."""
        relayed = self.relayed(self.logged_by_a_worker(peer="127.0.0.1:5", size=3))
        del relayed["time"]
        self.assertEqual(
            relayed,
            {
                "level": "warn",
                "namespace": "twsock.example",
                "event": "{peer} sent {size} bytes",
                "message": "worker 2: 127.0.0.1:5 sent 3 bytes",
                "fields": {"peer": "127.0.0.1:5", "size": 3, "worker": 2},
            },
        )

    def test_a_traceback_follows_the_text(self) -> None:
        """It is not lost."""
        failure = Failure(ValueError("wrong"))
        event = {"log_format": "failed", "log_failure": failure, "log_level": LogLevel.critical}
        relayed = self.relayed(format_json_line(event) or "")
        self.assertTrue(relayed["message"].startswith("worker 2: failed\n"))
        self.assertIn("ValueError: wrong", relayed["message"])
        self.assertEqual(relayed["level"], "critical")

    def test_a_line_without_json_is_text(self) -> None:
        """Braces in it are no format."""
        relayed = self.relayed("{warning} of a library", level=LogLevel.warn)
        self.assertEqual(relayed["message"], "worker 2: {warning} of a library")
        self.assertEqual([relayed["level"], relayed["fields"]], ["warn", {"worker": 2}])

    def test_a_line_with_surrogates_can_be_written(self) -> None:
        """They have an escape in JSON, and no encoding."""
        log_line(r'{"message": "price\ud800"}', 1)
        self.assertEqual(self.events[-1]["text"], r"price\ud800")

    def test_any_json_is_logged(self) -> None:
        """Whatever its members are."""
        for line in ("[]", "1", "{}", "[" * 20_000):
            self.events.clear()
            self.assertIn(line[:50], self.relayed(line)["message"], line[:50])
        values: list[Any] = [None, [], {}, 1, "x", "{x}"]
        for value in values:
            self.events.clear()
            names = ("message", "level", "namespace", "fields", "traceback")
            relayed = self.relayed(json.dumps(dict.fromkeys(names, value)))
            self.assertEqual(relayed["fields"], {"worker": 2}, value)
            self.assertEqual(relayed["level"], "info", value)
