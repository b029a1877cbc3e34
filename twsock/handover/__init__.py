"""
Hand-over: a live socket moves to another process, with the bytes that are not in the kernel.

``detach()`` of a socket or protocol returns a value of this package; ``from_socket`` continues.
`twsock.handover.channel` moves the value to another process.
"""

from twsock.handover.detached import DetachedConnection

__all__ = ["DetachedConnection"]
