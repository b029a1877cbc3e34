"""
Restart without loss, of a process with ``--control``: `twsock.restart` with its sockets and calls.

`twsock.services.restart.control` is what a process uses. It has one object for the role of the new
process, and one for that of the old process.
"""

from __future__ import annotations

__all__: list[str] = []
