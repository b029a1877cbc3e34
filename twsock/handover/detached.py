"""
What ``detach()`` returns: socket or protocol → **detached value** → ``from_socket``.

A value holds the socket, and the bytes that its owner held outside of the kernel. Whoever gets the
value owns the socket: nothing else closes it.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

__all__ = ["DetachedConnection"]


@dataclass(frozen=True, slots=True)
class DetachedConnection:
    """
    A connection that was taken out of its reactor; ``detach()`` returns it.

    Both directions are open. To continue the connection, in this process or in another one, pass
    all three to ``from_socket``.

    :ivar socket: connected and non-blocking. The kernel may hold further received bytes.
    :ivar unread: bytes that were received and not read, such as the beginning of a message. The
        bytes that the kernel holds follow them.
    :ivar unsent: bytes that were written and that the kernel had not taken. They are sent before
        any further byte.
    """

    socket: socket.socket
    # Not in the text of the value: payloads are never logged.
    unread: bytes = field(default=b"", repr=False)
    unsent: bytes = field(default=b"", repr=False)

    def close(self) -> None:
        """Close the socket: no process continues the connection. Closing twice is harmless."""
        self.socket.close()
