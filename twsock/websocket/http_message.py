"""
Requests and responses of HTTP as values: parser → **request** → rules → **response** → bytes.

Made by `twsock.websocket.http`; `Request.from_bytes` takes what another parser returns, such as
that of ``twisted.web``. `twsock.websocket.handshake` judges requests. Nothing is held. The format
is that of :rfc:`9112`. No I/O, no clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from http import HTTPStatus
from typing import Final

from twsock.errors import RemoteProtocolError
from twsock.websocket.header_fields import parse_tokens

__all__ = ["Headers", "Request", "Response"]

#: Names and values in order.
Headers = tuple[tuple[str, str], ...]

#: A target in absolute form (:rfc:`9112` section 3.2.2), with the schemes of :rfc:`6455` section
#: 4.2.1: authority, path, query.
_ABSOLUTE: Final = re.compile(r"(?:http|https)://([^/?]*)(/[^?]*)?(\?.*)?", re.IGNORECASE)

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


class _Head:
    """Look-ups of header fields, for requests and responses."""

    headers: Headers

    def values(self, name: str) -> list[str]:
        """
        Return the values of all fields of one name, in order.

        :param name: in upper or lower case.
        """
        # No index by name: it would take as much memory as the fields. They are at most 100; 500 if
        # twisted.web has parsed the request.
        wanted = name.lower()
        return [value for known, value in self.headers if known.lower() == wanted]

    def header(self, name: str) -> str | None:
        """
        Return the value of a field; the values of several fields are joined by commas.

        The source is :rfc:`9110`, section 5.3.

        :param name: in upper or lower case.
        :returns: None if there is no such field.
        """
        values = self.values(name)
        return ", ".join(values) if values else None

    def only(self, name: str) -> str | None:
        """
        Return the value of a field that may occur once.

        :returns: None if there is no such field.
        :raises RemoteProtocolError: when the field occurs several times.
        """
        values = self.values(name)
        if len(values) > 1:
            raise RemoteProtocolError(f"the header {name} occurs {len(values)} times")
        return values[0] if values else None

    def tokens(self, name: str) -> list[str]:
        """
        Return the elements of a field that is a list of tokens; an empty list without the field.

        :raises RemoteProtocolError: when the field is malformed.
        """
        return parse_tokens(name, self.values(name))

    def has_token(self, name: str, token: str) -> bool:
        """
        Return whether a field that is a list has a token, whose case does not matter.

        :param token: in lower case.
        :raises RemoteProtocolError: when the field is malformed.
        """
        return any(word.lower() == token for word in self.tokens(name))


@dataclass(frozen=True)
class Request(_Head):
    """
    The request of an opening handshake.

    :ivar method: such as ``GET``; an accepted request has no other method.
    :ivar target: path and query as sent, or an absolute URI.
    :ivar headers: names and values in the order sent, decoded as Latin-1.
    :ivar http_version: such as ``1.1``.
    """

    method: str
    target: str
    headers: Headers
    http_version: str = "1.1"

    @classmethod
    def from_bytes(
        cls,
        method: bytes,
        target: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        http_version: bytes = b"1.1",
    ) -> Request:
        """Make a request from the bytes that a parser returns; they are decoded as Latin-1."""
        return cls(
            method.decode("latin-1"),
            target.decode("latin-1"),
            tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers),
            http_version.decode("latin-1"),
        )

    def to_json(self) -> str:
        """Return the request as one string, for `from_json`."""
        return json.dumps((self.method, self.target, self.headers, self.http_version))

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Return the request of a string that `to_json` has returned."""
        method, target, headers, http_version = json.loads(text)
        return cls(method, target, tuple((name, value) for name, value in headers), http_version)

    @property
    def path(self) -> str:
        """The path, percent-encoded as sent; ``/`` if the target has none."""
        return self.resource.partition("?")[0]

    @property
    def query(self) -> str:
        """The text after ``?``, percent-encoded as sent; empty if there is none."""
        return self.resource.partition("?")[2]

    @property
    def origin(self) -> str | None:
        """The origin of the page whose script connects; None if the client is not a browser."""
        return self.header("Origin")

    @property
    def subprotocols(self) -> list[str]:
        """
        The subprotocols that the client offers, the preferred one first.

        :raises RemoteProtocolError: when the field is malformed. `WebSocketProtocol.accept` gets no
            such request.
        """
        return self.tokens("Sec-WebSocket-Protocol")

    @property
    def resource(self) -> str:
        """Path and query, percent-encoded as sent: the "resource name" of :rfc:`6455` section 3."""
        found = _ABSOLUTE.fullmatch(self.target)
        return (found[2] or "/") + (found[3] or "") if found else self.target

    @property
    def target_authority(self) -> str | None:
        """Host and port of a target that is an absolute URI; None for other targets."""
        found = _ABSOLUTE.fullmatch(self.target)
        return found[1] if found else None


@dataclass(frozen=True)
class Response(_Head):
    """
    A response of HTTP/1.1.

    :ivar status: such as 101.
    :ivar headers: names and values in order.
    :ivar body: empty with status 101.
    :ivar phrase: the text after the status; None for the usual text of the status.
    :ivar http_version: the version of a received response, such as ``1.1``.
    """

    status: int
    headers: Headers = ()
    body: bytes = b""
    phrase: str | None = None
    http_version: str = "1.1"

    def encode(self, now: float | None = None) -> bytes:
        """
        Return the bytes of the response.

        :param now: seconds since 1970, for the field ``Date`` (:rfc:`9110` section 6.6.1), if
            ``headers`` has none; None for no such field.
        """
        headers = self.headers
        if now is not None and not self.values("Date"):
            headers = (*headers, ("Date", _http_date(now)))
        phrase = HTTPStatus(self.status).phrase if self.phrase is None else self.phrase
        lines = [
            f"HTTP/1.1 {self.status} {phrase}",
            *(f"{name}: {value}" for name, value in headers),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


def _http_date(now: float) -> str:
    """Return a time in the form of :rfc:`9110` section 5.6.7, whatever the locale is."""
    at = datetime.fromtimestamp(now, timezone.utc)
    day, month = _DAYS[at.weekday()], _MONTHS[at.month - 1]
    return f"{day}, {at.day:02} {month} {at.year} {at:%H:%M:%S} GMT"
