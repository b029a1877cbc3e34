"""
The restart of a process with ``--control``: performs the actions of `twsock.restart`.

A process uses `twsock.services.restart.process`. Its control socket is
`twsock.services.restart.control`, with one object for the role of the new process, and one for the
role of the old process.
"""

from __future__ import annotations

__all__: list[str] = []
