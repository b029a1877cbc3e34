"""A process that has imported the command, and forks for each run; see `tests.forking`."""

from __future__ import annotations

from typing import Any

import twsock.cli.datagram
import twsock.cli.stream
import twsock.cli.websocket  # noqa: F401
from tests.forking import run_forked
from twsock.cli import main

__all__: list[str] = []


def work(request: dict[str, Any]) -> None:
    """Run the command with the words of a request."""
    main(request["words"])


if __name__ == "__main__":
    run_forked(work)
