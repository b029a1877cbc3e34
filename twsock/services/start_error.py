"""
Why a service cannot start: endpoints, options → **error** → one line on the terminal.

Raised by endpoints, options and processes; `twsock.services.process` handles it. Nothing is held.
"""

from __future__ import annotations

__all__ = ["StartError"]


class StartError(SystemExit, Exception):
    """
    A service cannot start; the text of the error is the line for the user.

    Python prints the line of a ``SystemExit`` without a traceback, and ends with status 1. The
    class is an ``Exception`` too, so that ``twistd`` cleans up first.
    """
