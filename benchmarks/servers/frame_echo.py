"""twsock's own echo, as it ships: idle timeout, counters and limits on."""

from __future__ import annotations

from benchmarks.servers.twisted_program import run
from twsock.protocols import FrameEchoFactory

__all__: list[str] = []

if __name__ == "__main__":
    run(FrameEchoFactory)
