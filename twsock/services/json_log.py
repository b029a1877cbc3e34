r"""
Logs for machines: event → **one line of JSON** → file.

Each line is a JSON object, escaped to ASCII, and ends with a newline. Log collectors call this
format NDJSON or JSON Lines. The members of the object::

    time        RFC 3339, in UTC, with microseconds: "2026-01-31T23:59:59.000000Z"
    level       debug, info, warn, error or critical
    namespace   the module that logged, such as "twsock.services.listening"
    message     the text that a text log has
    fields      the values that the message names, by name: strings, numbers, true, false or null
    traceback   only where the event is about an exception

Twisted's own JSON observer writes the format string of a message instead of its text, and details
of exceptions in a form that only Twisted reads.
"""

from __future__ import annotations

import json
import math
import re
import string
from datetime import datetime, timezone
from typing import Any, Final, TextIO

from twisted.logger import FileLogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.reflect import safe_str

__all__ = ["JSON_EVENT", "JSON_FIELDS", "format_json_line", "json_log_observer"]

#: An event with this member has its value as the name of the event.
JSON_EVENT: Final = "json_event"

#: An event with this member has its value, a dictionary, as the fields.
JSON_FIELDS: Final = "json_fields"

#: The name before the attributes, items or call of a field.
_NAME: Final = re.compile(r"[^.\[(]+")


def json_log_observer(file: TextIO) -> FileLogObserver:
    """
    Make an observer for ``globalLogBeginner`` or a ``.tac`` file.

    :param file: receives one line for each event; it is flushed after each.
    """
    return FileLogObserver(file, format_json_line)


def format_json_line(event: LogEvent) -> str | None:
    """
    Format one event.

    :returns: the line with its newline; None for an event without text or failure, which is not
        logged.
    """
    message = formatEvent(event)
    failure: Any = event.get("log_failure")
    if not message and failure is None:
        return None
    level = event.get("log_level") or LogLevel.info
    line: dict[str, Any] = {
        "time": _format_time(event.get("log_time")),
        "level": level.name,
        "namespace": event.get("log_namespace") or "",
        "event": str(event.get(JSON_EVENT) or event.get("log_format") or ""),
        "message": message,
        "fields": _fields(event),
    }
    if failure is not None:
        line["traceback"] = failure.getTraceback()
    return json.dumps(line) + "\n"


def _format_time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")


def _fields(event: LogEvent) -> dict[str, Any]:
    if JSON_FIELDS in event:
        return {name: _json_value(value) for name, value in event[JSON_FIELDS].items()}
    names = [_NAME.match(field) for field in _field_names(event.get("log_format") or "")]
    found = {name[0]: event[name[0]] for name in names if name is not None and name[0] in event}
    return {
        name: _json_value(value) for name, value in found.items() if not name.startswith("log_")
    }


def _field_names(message: Any) -> list[str]:
    try:
        return [field for _, field, _, _ in string.Formatter().parse(str(message)) if field]
    except ValueError:
        # The message is not a valid format string; the text of the event already says so.
        return []


def _json_value(value: Any) -> str | int | float | bool | None:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or type(value) in (str, int, float, bool):
        plain: str | int | float | bool | None = value
        return plain
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else safe_str(value)
