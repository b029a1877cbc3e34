r"""
Messages between the parent and a worker: values ↔ **lines of JSON** ↔ pipes. No I/O.

Each worker has two pipes to its parent. The parent sends the lines of `WorkerCommand`, the worker
those of `WorkerReport`::

    {"command": "measure"}
    {"report": "ready"}
    {"report": "failed", "reason": "cannot listen on tcp:80: ..."}
    {
        "report": "measured",
        "is_final": false,
        "values": [
            ["twsock_connections", "", "counter", "Accepted connections.", {"protocol": "..."}, 7]
        ],
    }

A line has at most `MAX_MESSAGE` bytes. `twsock.wire.lines.LineDecoder` holds an incomplete one.
The end of either pipe is the end of the other process.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.services.measurements import Kind, Measurement

__all__ = [
    "MAX_FAILURE",
    "MAX_MESSAGE",
    "WorkerCommand",
    "WorkerFailed",
    "WorkerMeasured",
    "WorkerReady",
    "WorkerReport",
    "encode_command",
    "encode_report",
    "parse_command",
    "parse_report",
]

#: Bytes of the longest line. The numbers of a service with a hundred ports have some 200,000.
MAX_MESSAGE: Final = 1024 * 1024

#: Characters of the longest reason; longer ones are cut.
MAX_FAILURE: Final = 1000


class WorkerCommand(enum.Enum):
    """
    What a worker does for its parent.

    ``MEASURE``: report its numbers. ``STOP``: stop listening, drain its connections, and end.
    ``HURRY``: abort its connections, and end.
    """

    MEASURE = "measure"
    STOP = "stop"
    HURRY = "hurry"


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """All services of the worker listen, and its reactor runs."""


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """
    The worker cannot start, and ends.

    :ivar reason: one line for the user.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class WorkerMeasured:
    """
    The numbers of the worker.

    :ivar is_final: whether the worker has stopped, so that the numbers change no more.
    """

    values: tuple[Measurement, ...]
    is_final: bool


#: What a worker reports.
WorkerReport = WorkerReady | WorkerFailed | WorkerMeasured


def encode_command(command: WorkerCommand) -> bytes:
    """Return the line of a command."""
    return _encode({"command": command.value})


def parse_command(line: bytes) -> WorkerCommand:
    """
    Parse a line without its ending.

    :raises RemoteProtocolError: when it is not a command.
    """
    value = _parse(line).get("command")
    try:
        return WorkerCommand(value)
    except ValueError:
        raise RemoteProtocolError(f"the parent sent the command {str(value)[:50]!r}") from None


def encode_report(report: WorkerReport) -> bytes:
    """
    Return the line of a report.

    :raises LocalProtocolError: when the line would be longer than `MAX_MESSAGE`.
    """
    if isinstance(report, WorkerReady):
        return _encode({"report": "ready"})
    if isinstance(report, WorkerFailed):
        return _encode({"report": "failed", "reason": report.reason[:MAX_FAILURE]})
    values = [_encode_measurement(value) for value in report.values]
    line = _encode({"report": "measured", "is_final": report.is_final, "values": values})
    if len(line) > MAX_MESSAGE:
        raise LocalProtocolError(
            f"{len(values)} numbers need {len(line)} bytes, limit {MAX_MESSAGE}"
        )
    return line


def parse_report(line: bytes) -> WorkerReport:
    """
    Parse a line without its ending.

    :raises RemoteProtocolError: when it is not a report.
    """
    members = _parse(line)
    kind = members.get("report")
    if kind == "ready":
        return WorkerReady()
    if kind == "failed":
        return WorkerFailed(_text(members.get("reason"))[:MAX_FAILURE])
    if kind == "measured":
        values, is_final = members.get("values"), members.get("is_final")
        if not isinstance(values, list) or not isinstance(is_final, bool):
            raise RemoteProtocolError("the worker sent an incomplete report of its numbers")
        return WorkerMeasured(tuple(_parse_measurements(values)), is_final)
    raise RemoteProtocolError(f"the worker sent the report {str(kind)[:50]!r}")


def _encode(members: dict[str, Any]) -> bytes:
    return json.dumps(members, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any]:
    try:
        members = json.loads(line)
    # Python limits the depth of the nesting, and the digits of an integer.
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"the line is not JSON: {str(error)[:100]}") from error
    if not isinstance(members, dict):
        raise RemoteProtocolError("the line is not a JSON object")
    return members


def _encode_measurement(value: Measurement) -> list[Any]:
    return [
        value.name,
        value.suffix,
        value.kind.value,
        value.meaning,
        dict(value.labels),
        value.value,
    ]


def _parse_measurements(values: Iterable[Any]) -> Iterable[Measurement]:
    for value in values:
        if not isinstance(value, list) or len(value) != 6:
            raise RemoteProtocolError("the worker sent a measurement without its six members")
        name, suffix, kind, meaning, labels, number = value
        if not isinstance(labels, dict):
            raise RemoteProtocolError("the worker sent labels that are not an object")
        checked = {label: _text(text) for label, text in labels.items()}
        try:
            parsed = Kind(kind)
        except ValueError:
            raise RemoteProtocolError(f"the worker sent the kind {str(kind)[:50]!r}") from None
        yield Measurement(
            _text(name), _text(meaning), parsed, checked, _number(number), _text(suffix)
        )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise RemoteProtocolError(f"the worker sent {str(value)[:50]!r} in place of a text")
    return value


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            if math.isfinite(value):
                return value
        except OverflowError:
            pass  # An integer above all floats.
    raise RemoteProtocolError(f"the worker sent {str(value)[:50]!r} in place of a number")
