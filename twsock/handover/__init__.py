"""
Hand-over: a live socket moves to another owner, with the bytes that are not in the kernel.

``detach()`` of a socket or protocol returns a `DetachedConnection`, and ``from_socket`` continues
the connection. `twsock.handover.channel` moves the value to another process.
"""

from twsock.handover.detached import DetachedConnection

__all__ = ["DetachedConnection"]
