"""
Logs of workers: output of a worker → lines → **events** → the log of the parent.

A worker logs one JSON object a line on its standard output, as `twsock.services.json_log` writes
them. The parent logs each line again, with its level and namespace and the number of the worker. So
the options for logs, log files and syslog apply to all workers. Any other line, for example of a
library in C, is logged as text. Holds at most one line, of `MAX_LOG_LINE` bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from twisted.logger import InvalidLogLevelError, LogLevel

from twsock.log import TextLogger
from twsock.services.json_log import JSON_EVENT, JSON_FIELDS

__all__ = ["MAX_LOG_LINE", "LogLines", "log_line"]

#: Bytes of the longest line; the rest of a longer one is dropped.
MAX_LOG_LINE: Final = 64 * 1024

_NAMESPACE: Final = "twsock.services.workers"

#: Reports the start and the end of each process. The parent reports those of its workers itself.
_TWISTD: Final = "twisted.scripts._twistd_unix.UnixAppLogger"


class LogLines:
    """Splits the output of a worker into lines."""

    __slots__ = ("_buffer", "_is_cut")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._is_cut = False

    def feed(self, data: bytes) -> Iterator[str]:
        """Return the lines that are complete now; none of them is empty."""
        *ended, rest = data.split(b"\n")
        for piece in ended:
            self._store(piece)
            yield from self.end()
        self._store(rest)

    def end(self) -> Iterator[str]:
        """Return the line without an ending, at the end of the output."""
        line = self._buffer.decode(errors="backslashreplace").strip("\r")
        if self._is_cut:
            line += "…"
        self._buffer.clear()
        self._is_cut = False
        if line:
            yield line

    def _store(self, piece: bytes) -> None:
        room = MAX_LOG_LINE - len(self._buffer)
        self._buffer += piece[:room]
        self._is_cut = self._is_cut or len(piece) > room


def log_line(line: str, worker: int, level: Any = LogLevel.info) -> None:
    """
    Log a line of a worker, unless ``twistd`` reports the start or the end of the process in it.

    :param level: that of a line that is not a JSON object.
    """
    event = _parse(line)
    if event is None:
        _emit(_NAMESPACE, level, worker, line, {}, "")
        return
    namespace = str(event.get("namespace") or _NAMESPACE)
    if namespace == _TWISTD and _level(event.get("level")) is LogLevel.info:
        return
    text = str(event.get("message"))
    if isinstance(event.get("traceback"), str):
        text += "\n" + event["traceback"]
    fields = event["fields"] if isinstance(event.get("fields"), dict) else {}
    name = str(event.get("event") or "")
    _emit(namespace, _level(event.get("level")), worker, text, fields, name)


def _emit(
    namespace: str, level: Any, worker: int, text: str, fields: dict[str, Any], name: str
) -> None:
    # JSON can have surrogates, which no log file can encode.
    text = text.encode(errors="backslashreplace").decode()
    extra = {JSON_FIELDS: {**fields, "worker": worker}, JSON_EVENT: name}
    TextLogger(namespace).emit(level, "worker {worker}: {text}", worker=worker, text=text, **extra)


def _parse(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and "message" in event else None


def _level(name: object) -> Any:
    try:
        return LogLevel.levelWithName(str(name))
    except InvalidLogLevelError:
        return LogLevel.info
