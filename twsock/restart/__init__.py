"""
Restart without loss: a new process takes the sockets and connections of an old one.

The two processes speak over the control socket of the old process. `twsock.restart.records` is the
format. `twsock.restart.old_side` and `twsock.restart.new_side` decide which process serves. The
services carry it out.
"""

from __future__ import annotations

__all__: list[str] = []
