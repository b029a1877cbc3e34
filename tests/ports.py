"""
UDP ports for programs that have to be told a number, and cannot be passed an open socket.
"""

from __future__ import annotations

import itertools
import os
import socket

__all__ = ["free_udp_port"]

# Below those that Linux chooses by itself (from 32768), so that nobody gets one between the check
# and its use. Workers of ``trial -j`` begin at different numbers.
_candidates = itertools.cycle(range(10_000 + os.getpid() * 97 % 20_000, 32_000))


def free_udp_port() -> int:
    """Return a port of 127.0.0.1 that is not in use, another one at each call."""
    for port in _candidates:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("unreachable")
