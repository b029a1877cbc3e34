"""The errors of reads that the peer's bytes cannot complete; see `twsock.sockets.stream.input`."""

from __future__ import annotations

from typing import Final

from twsock.errors import BrokenError, RemoteProtocolError

__all__ = ["DelimiterNotFoundError", "EndOfStreamError"]

# ERROR_HANDLE_EOF of Win32.
_END_OF_FILE: Final = 0x8007_0026


class EndOfStreamError(BrokenError):
    """
    The peer ended its output before all requested bytes arrived. Those that arrived can be read.

    :ivar wanted: how many bytes were requested; None for bytes up to a delimiter.
    :ivar available: how many arrived; 0 if the peer ended between two messages.
    """

    _class_hresult = _END_OF_FILE

    def __init__(self, wanted: int | None, available: int) -> None:
        asked = "the delimiter" if wanted is None else f"{wanted} bytes"
        super().__init__(f"the peer ended its output after {available} bytes, before {asked}")
        self.wanted = wanted
        self.available = available


class DelimiterNotFoundError(RemoteProtocolError):
    """
    The peer sent more than the limit without the delimiter. All of it can still be read.

    :ivar limit: how many bytes may precede the delimiter.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"peer sent more than {limit} bytes without the delimiter")
        self.limit = limit
