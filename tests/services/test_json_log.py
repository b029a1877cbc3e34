"""Log events become lines of JSON."""

from __future__ import annotations

import io
import json
from typing import Any

from twisted.logger import LogEvent, Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twsock.services.json_log import format_json_line, json_log_observer


class Unprintable:
    """A value whose conversion to text raises an error."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def read(**event: Any) -> Any:
    """Format an event, and parse the line."""
    line = format_json_line(event)
    assert line is not None
    assert line.count("\n") == 1
    return json.loads(line, parse_constant=lambda word: f"not JSON: {word}")


class JsonLineTests(SynchronousTestCase):
    """One JSON object a line."""

    def test_a_line_has_time_level_origin_text_and_values(self) -> None:
        """The text is that of a text log; the values are the fields that the text names."""
        line = read(
            log_time=1_769_903_999.5,
            log_level=LogLevel.warn,
            log_namespace="twsock.example",
            log_format="{peer} sent {size:d} bytes\nand {left.real} more",
            peer="127.0.0.1",
            size=7,
            left=3,
            secret="not named",
        )
        self.assertEqual(
            line,
            {
                "time": "2026-01-31T23:59:59.500000Z",
                "level": "warn",
                "namespace": "twsock.example",
                "event": "{peer} sent {size:d} bytes\nand {left.real} more",
                "message": "127.0.0.1 sent 7 bytes\nand 3 more",
                "fields": {"peer": "127.0.0.1", "size": 7, "left": 3},
            },
        )

    def test_any_value_becomes_json(self) -> None:
        """A value that JSON does not know becomes text."""
        values = [None, True, 1.5, float("inf"), float("nan"), b"\xffx", [1], LogLevel.info]
        event: LogEvent = {f"value{n}": value for n, value in enumerate(values)}
        event["log_format"] = "".join(f"{{{name}}}" for name in event)
        fields = list(read(**event)["fields"].values())
        self.assertEqual(fields[:5], [None, True, 1.5, "inf", "nan"])
        self.assertEqual(fields[5:], ["\\xffx", "[1]", str(LogLevel.info)])

    def test_an_event_that_cannot_be_formatted_is_a_line(self) -> None:
        """An observer that raises would be removed, and later events lost."""
        self.assertIn("unprintable", str(read(log_format="{value}", value=Unprintable())).lower())
        self.assertIn("{", read(log_format="{", value=1)["message"])
        self.assertEqual(read(log_format="{missing} x")["fields"], {})

    def test_an_exception_has_its_traceback_in_a_field(self) -> None:
        """The message does not have it."""
        line = read(log_format="failed", log_failure=Failure(ValueError("reason")))
        self.assertEqual(line["message"], "failed")
        self.assertIn("ValueError: reason", line["traceback"])

    def test_an_event_without_a_text_is_no_line(self) -> None:
        """As in a text log."""
        self.assertIsNone(format_json_line({"log_format": None}))
        self.assertIsNone(format_json_line({}))

    def test_an_observer_writes_lines(self) -> None:
        """It gets the events of a Twisted logger."""
        file = io.StringIO()
        log = Logger("here", observer=json_log_observer(file))
        log.info("{a}", a=1)
        log.error("{b}", b="\u263a")
        lines = [json.loads(line) for line in file.getvalue().splitlines()]
        self.assertEqual([line["message"] for line in lines], ["1", "\u263a"])
        self.assertEqual([line["level"] for line in lines], ["info", "error"])
