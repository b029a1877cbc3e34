"""
How many connections a service accepts unless told otherwise: descriptors → **limit** → factory.

At the limit peers wait in the kernel's backlog. Without one a process runs out of descriptors
first, and then cannot open a certificate or a log file either.
"""

from __future__ import annotations

import resource
from typing import Final

__all__ = ["MOST_CONNECTIONS", "RESERVED_DESCRIPTORS", "default_max_connections"]

#: The default where there are descriptors enough.
MOST_CONNECTIONS: Final = 10_000

#: Descriptors that are left for all that is no connection: some 20 of ports, logs, the reactor and
#: Python itself, and files that are read again while connections are open. Where there are few, an
#: eighth of them: a limit that leaves no connection would help nobody.
RESERVED_DESCRIPTORS: Final = 64


def default_max_connections() -> int:
    """
    Return the smaller of 10,000 and the limit on open files (``ulimit -n``) less a reserve.

    The limit is the one that is in force when this is called. The reserve is 64, or an eighth of
    the limit where that is less.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    reserve = min(RESERVED_DESCRIPTORS, limit // 8)
    return max(1, min(MOST_CONNECTIONS, limit - reserve))
