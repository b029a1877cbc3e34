"""
HTTP of the opening handshake, parsed by h11: bytes ↔ **requests, responses** ↔ rules of WebSockets.

On a server, `twsock.websocket.accepting` feeds a `ServerHttp` until the head of the request is
complete, and `twsock.websocket.handshake` judges the request. On a client, a `ClientHttp` does the
same with the response, for `twsock.websocket.client_handshake`. Each holds the bytes of one head,
at most 16 KiB, and the bytes after it that came with the same read. No I/O. The format is that of
:rfc:`9112`.

h11 accepts a line that ends with LF alone, and a field that continues on a second line. Proxies and
servers read these in different ways, which can be used to smuggle requests (:rfc:`9112` section
11.2). So this module refuses such requests before h11 sees them.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

import h11

from twsock.errors import RemoteProtocolError
from twsock.websocket.handshake import Refusal, refuse
from twsock.websocket.http_message import Request, Response

__all__ = ["MAX_FIELDS", "MAX_HEAD", "ClientHttp", "ServerHttp"]

#: The largest head, in bytes, with the empty line at its end.
MAX_HEAD: Final = 16 * 1024
#: How many header fields a head has at most.
MAX_FIELDS: Final = 100

_END: Final = b"\r\n\r\n"
#: The beginning of every response (RFC 9112 section 2.3).
_RESPONSE: Final = b"HTTP/"
#: A control character, CR without LF, or LF without CR. The first byte of TLS is one, too.
_FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?=[^\n])|(?<!\r)\n")
#: A line that continues the one before it (RFC 9112 section 5.2).
_FOLD: Final = re.compile(rb"\r\n[ \t]")


class _HeadError(RemoteProtocolError):
    """
    The bytes are no head, or exceed a limit.

    :ivar http_status: the status of the response, if the bytes should be a request.
    """

    def __init__(self, http_status: int, message: str) -> None:
        super().__init__(message)
        self.http_status = http_status


class _HeadReader:
    """
    Collects the bytes of a head. The result does not depend on how the bytes are cut.

    :ivar stored: the bytes that were not returned.
    """

    __slots__ = ("_room", "_searched", "stored")

    def __init__(self) -> None:
        self.stored = bytearray()
        self._room = MAX_HEAD
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Store received bytes."""
        self.stored += data

    def next_head(self) -> bytes | None:
        """
        Return the head, with the empty line at its end, and remove it from the stored bytes.

        :returns: None if more bytes are needed.
        :raises _HeadError: as soon as the bytes cannot be a head, or exceed a limit.
        """
        stored, searched = self.stored, self._searched
        available = min(len(stored), self._room)
        found = stored.find(_END, max(0, searched - len(_END) + 1), available)
        end = available if found < 0 else found + len(_END)
        # The last byte is searched again, since a CR there may or may not be followed by LF.
        if _FORBIDDEN.search(stored, max(0, searched - 1), end):
            raise _HeadError(
                HTTPStatus.BAD_REQUEST, "the head has a control character, or half of a line end"
            )
        self._searched = available
        if found < 0:
            if available == self._room:
                raise _HeadError(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    f"the head does not end within {MAX_HEAD} bytes",
                )
            return None
        head = bytes(memoryview(stored)[:end])
        del stored[:end]
        self._room -= end
        self._searched = 0
        _check_fields(head)
        return head


def _check_fields(head: bytes) -> None:
    # The first line and the empty line are no fields.
    count = head.count(b"\r\n") - 2
    if count > MAX_FIELDS:
        raise _HeadError(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"the head has {count} header fields, limit is {MAX_FIELDS}",
        )


class ServerHttp:
    """
    Reads the request of an opening handshake.

    :ivar leftover: the bytes after the request, which the client sent without waiting for the
        response; empty until the request is complete.
    """

    __slots__ = ("_reader", "leftover")

    def __init__(self) -> None:
        self._reader = _HeadReader()
        self.leftover = b""

    def feed(self, data: bytes) -> Request | Refusal | None:
        """
        Take received bytes. After a result, make no further call.

        :returns: the request, which is not judged; a refusal as soon as the bytes cannot be a
            request, or exceed a limit; None if more bytes are needed.
        """
        self._reader.feed(data)
        try:
            head = self._reader.next_head()
            if head is None:
                return None
            request = _parse_request(head)
        except _HeadError as error:
            return refuse(error.http_status, str(error))
        self.leftover = bytes(self._reader.stored)
        return request


def _parse_request(head: bytes) -> Request:
    if _FOLD.search(head):
        # RFC 9112 section 5.2: a server refuses the request, or replaces the line end by spaces.
        raise _HeadError(HTTPStatus.BAD_REQUEST, "a header field continues on a second line")
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise _HeadError(error.error_status_hint, _describe("request", error)) from None
    if not isinstance(event, h11.Request):
        raise _HeadError(HTTPStatus.BAD_REQUEST, "the head is no request")
    return Request.from_bytes(event.method, event.target, event.headers, event.http_version)


class ClientHttp:
    """
    Writes one request, and reads the head of its response.

    The request may also be a ``CONNECT`` to a proxy.

    :param request: sent as it is, except that ``Host`` is sent first.
    :ivar request_bytes: the bytes to send.
    :ivar leftover: the bytes after the head; empty until it is complete.
    """

    __slots__ = ("_connection", "_reader", "leftover", "request_bytes")

    def __init__(self, request: Request) -> None:
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        sent = h11.Request(method=request.method, target=request.target, headers=[*request.headers])
        self.request_bytes: bytes = self._connection.send(sent) or b""
        self._connection.send(h11.EndOfMessage())
        self._reader = _HeadReader()
        self.leftover = b""

    def feed(self, data: bytes) -> Response | None:
        """
        Take received bytes. After a result, make no further call.

        Interim responses are skipped (:rfc:`9110` section 15.2). Their bytes count for the limit.

        :returns: the response without its body; None if more bytes are needed.
        :raises RemoteProtocolError: as soon as the bytes cannot be a response, or exceed a limit.
        """
        self._reader.feed(data)
        while True:
            # Checked at once: a server of another protocol may never send the end of a head.
            if not _RESPONSE.startswith(self._reader.stored[: len(_RESPONSE)]):
                raise RemoteProtocolError("the response is not HTTP")
            head = self._reader.next_head()
            if head is None:
                return None
            response = self._parse(head)
            if response.status == HTTPStatus.SWITCHING_PROTOCOLS or response.status >= 200:
                self.leftover = bytes(self._reader.stored)
                return response

    def _parse(self, head: bytes) -> Response:
        self._connection.receive_data(head)
        try:
            event = self._connection.next_event()
        except h11.RemoteProtocolError as error:
            raise RemoteProtocolError(_describe("response", error)) from None
        if not isinstance(event, h11.InformationalResponse | h11.Response):
            raise RemoteProtocolError("the response is not HTTP")
        headers = tuple(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers
        )
        return Response(
            event.status_code,
            headers,
            phrase=event.reason.decode("latin-1"),
            http_version=event.http_version.decode("latin-1"),
        )


def _describe(kind: str, error: h11.RemoteProtocolError) -> str:
    # After the colon, h11 repeats what it received. That may be long, and may be secret.
    return f"the {kind} is malformed: {str(error).partition(':')[0]}"
