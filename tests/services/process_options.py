"""Options of a service that a test parses together with options of ``twistd``."""

from __future__ import annotations

from typing import Any

from twsock.services.process_options import ProcessOptions

__all__ = ["process_options"]


def process_options(*words: str, **given: Any) -> ProcessOptions:
    """Parse the options of a service together with options of ``twistd``."""
    parsed = ProcessOptions()
    parsed.parent = ProcessOptions()
    parsed.parent.subCommand = "twsock-stream"
    parsed.parent.update({"nodaemon": True, "debug": False, **given})
    parsed.parseOptions(list(words))
    return parsed
