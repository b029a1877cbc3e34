"""
The transport that applications use: application → **application transport** → Twisted's transport.

A protocol collects its answers and sends them in one piece. Before each write, this transport sends
the collected answers, so the order of all writes is kept. When this transport is closed or aborted,
the protocol handles no further message. `twsock.protocols.StreamProtocol` makes this transport at
the first access to its ``transport``. It holds no bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twsock._interfaces import provide_same

__all__ = ["ApplicationTransport"]


class ApplicationTransport:
    """
    Twisted's transport; before each call it sends the bytes that the protocol has written.

    It provides the interfaces of Twisted's transport, and has all other attributes of that object.

    :param transport: any stream transport.
    :param send: sends all bytes that the protocol has written.
    :param prepare_write: called before each write, in place of ``send``.
    :param close: ends the connection in order, after all bytes written before.
    :param abort: drops queued bytes, and ends the connection.
    :param is_ending: returns whether this end was closed or aborted.
    :param may_start_tls: called before TLS is started; returns False to refuse it.
    """

    def __init__(
        self,
        transport: Any,
        *,
        send: Callable[[], object],
        prepare_write: Callable[[], object],
        close: Callable[[], object],
        abort: Callable[[], object],
        is_ending: Callable[[], bool],
        may_start_tls: Callable[[], bool],
    ) -> None:
        self.__dict__.update(
            _transport=transport,
            _send=send,
            _prepare_write=prepare_write,
            _close=close,
            _abort=abort,
            _is_ending=is_ending,
            _may_start_tls=may_start_tls,
        )
        provide_same(self, transport)

    def release(self) -> None:
        """Drop the references to the protocol, whose connection is lost."""
        self.__dict__.update(
            _send=_do_nothing,
            _prepare_write=_do_nothing,
            _close=_do_nothing,
            _abort=_do_nothing,
            _is_ending=lambda: True,
            _may_start_tls=lambda: False,
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("__"):
            object.__setattr__(self, name, value)  # Attributes that zope.interface sets.
        else:
            setattr(self._transport, name, value)

    # Called by applications.

    def write(self, data: bytes) -> None:
        """Send bytes after all bytes written before."""
        self._prepare_write()
        self._transport.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send bytes after all bytes written before."""
        self._prepare_write()
        self._transport.writeSequence(data)

    @property
    def disconnecting(self) -> bool:
        """Whether this end was closed or aborted, through the transport or the protocol."""
        return bool(self._is_ending() or self._transport.disconnecting)

    def loseConnection(self, *_arguments: object) -> None:
        """End the connection as `StreamProtocol.close` does, after all bytes written before."""
        self._close()

    def abortConnection(self) -> None:
        """End the connection as `StreamProtocol.abort` does; nothing more is sent."""
        self._abort()

    def loseWriteConnection(self) -> None:
        """Send FIN after all bytes written before."""
        self._send()
        self._transport.loseWriteConnection()

    def sendFileDescriptor(self, descriptor: int) -> None:
        """Send a descriptor over a UNIX socket after all bytes written before."""
        self._send()
        self._transport.sendFileDescriptor(descriptor)

    def startTLS(self, *arguments: Any) -> None:
        """Start TLS after all bytes written before; abort if unhandled plaintext is left."""
        self._send()
        if self._may_start_tls():
            self._transport.startTLS(*arguments)


def _do_nothing() -> None:
    """Replaces a method of the protocol after its connection is lost."""
