"""
How many connections a service accepts unless told otherwise: descriptors → **limit** → factory.

At the limit peers wait in the kernel's backlog. Without a limit a process would run out of file
descriptors, and could then not open a certificate or a log file.
"""

from __future__ import annotations

import resource
from typing import Final

__all__ = ["MOST_CONNECTIONS", "RESERVED_DESCRIPTORS", "default_max_connections"]

#: The default if the limit on open files allows it.
MOST_CONNECTIONS: Final = 10_000

#: Descriptors that are reserved for other uses: some 20 for ports, logs, the reactor and Python
#: itself, and the rest for files that are read while connections are open. With a low limit on open
#: files, an eighth of it is reserved instead, so that connections remain possible.
RESERVED_DESCRIPTORS: Final = 64


def default_max_connections() -> int:
    """
    Return the smaller of 10,000 and the limit on open files (``ulimit -n``) less a reserve.

    The limit is read at each call. The reserve is 64, or an eighth of the limit if that is less.
    The result is 1 or more.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    reserve = min(RESERVED_DESCRIPTORS, limit // 8)
    return max(1, min(MOST_CONNECTIONS, limit - reserve))
