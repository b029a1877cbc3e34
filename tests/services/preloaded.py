"""A process that has imported the services, and forks for each ``twistd``; see `tests.forking`."""

from __future__ import annotations

import os
import resource
import sys
from typing import Any

# No reactor: twistd installs one.
from twisted.scripts.twistd import run

import twsock.services.datagram
import twsock.services.everything
import twsock.services.multicast
import twsock.services.restart.new_process
import twsock.services.restart.old_process
import twsock.services.stream
import twsock.services.websocket  # noqa: F401
from tests.forking import run_forked

__all__: list[str] = []


def work(request: dict[str, Any]) -> None:
    """Run ``twistd`` in a folder, after a statement."""
    assert "twisted.internet.reactor" not in sys.modules
    os.chdir(request["folder"])
    if (count := request["max_files"]) is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
    exec(request["before"], {})
    sys.argv = ["twistd", *request["words"]]
    run()


if __name__ == "__main__":
    run_forked(work)
