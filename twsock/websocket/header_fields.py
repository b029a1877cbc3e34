"""
The grammar of header fields: values of fields ↔ **lists of tokens and extensions**.

Used by both sides of the handshake. The source of fields is :rfc:`9110` section 5, of lists its
section 5.6.1, and of extensions :rfc:`6455` section 9.1. Nothing is held.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from twsock.errors import RemoteProtocolError

__all__ = [
    "Extension",
    "check_header",
    "check_subprotocols",
    "format_extension",
    "is_token",
    "parse_extensions",
    "parse_tokens",
]

#: The name of an extension, and its parameters in order; the value None stands for no value.
Extension = tuple[str, tuple[tuple[str, str | None], ...]]

_T: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TOKEN: Final = re.compile(_T)

#: RFC 9110 section 5.5, with bytes above ASCII (obs-text) as characters of Latin-1. Of the control
#: characters only the tab is allowed: CR and LF would begin another field.
_VALUE: Final = re.compile(r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")

_NAME_OF_EXTENSION: Final = re.compile(rf"[ \t]*({_T})[ \t]*")
#: RFC 6455 section 9.1: the content of a quoted string is a token, so it needs no backslash.
_PARAMETER: Final = re.compile(
    rf'[ \t]*({_T})[ \t]*(?:=[ \t]*(?:({_T})|"((?:[^"\\]|\\.)*)")[ \t]*)?'
)
_ESCAPE: Final = re.compile(r"\\(.)")

#: Fields that the handshake writes itself: a second one would contradict it (:rfc:`6455` section
#: 11.3). Also fields of a body, whose bytes would be taken for frames.
_RESERVED: Final = frozenset({"connection", "content-length", "transfer-encoding", "upgrade"})
_RESERVED_PREFIX: Final = "sec-websocket-"


def is_token(text: str) -> bool:
    """Return whether a text is a token, such as the name of a field or of a subprotocol."""
    return _TOKEN.fullmatch(text) is not None


def check_header(name: str, value: str) -> None:
    """
    Check a field that an application adds to a handshake.

    :param value: Latin-1 text; without control characters, and without spaces at its ends.
    :raises ValueError: when name or value is malformed, or the name is reserved for the handshake:
        ``Connection``, ``Upgrade``, the fields of a body, and all ``Sec-WebSocket-…`` fields.
    :raises TypeError: when name or value is no ``str``.
    """
    for text in (name, value):
        if not isinstance(text, str):
            raise TypeError(f"name and value of a header are str, not {type(text).__name__}")
    if not is_token(name):
        raise ValueError(f"{name!r} is no name of a header")
    lower = name.lower()
    if lower in _RESERVED or lower.startswith(_RESERVED_PREFIX):
        raise ValueError(f"the header {name} is set by the handshake only")
    if not _VALUE.fullmatch(value):
        # The value may be a secret.
        raise ValueError(f"the value of the header {name} has characters that are not allowed")


def check_subprotocols(subprotocols: Sequence[str]) -> tuple[str, ...]:
    """
    Return the subprotocols of an application as a tuple (:rfc:`6455` section 4.1, item 10).

    :raises ValueError: when a subprotocol is no token, or occurs twice.
    :raises TypeError: when ``subprotocols`` is one ``str``, which would be a list of letters.
    """
    if isinstance(subprotocols, str):
        raise TypeError("subprotocols are a list of str, not one str")
    names = tuple(subprotocols)
    for name in names:
        if not is_token(name):
            raise ValueError(f"{name!r} is no name of a subprotocol")
    if len(set(names)) != len(names):
        raise ValueError(f"a subprotocol is listed twice: {', '.join(names)}")
    return names


def parse_tokens(name: str, values: Iterable[str]) -> list[str]:
    """
    Parse a field that is a list of tokens.

    :param name: the name of the field, for the error.
    :param values: the values of all fields of this name, in order: together they are one list.
    :returns: the elements. Empty ones are ignored (:rfc:`9110` section 5.6.1.2).
    :raises RemoteProtocolError: when an element is no token.
    """
    words = [word.strip(" \t") for value in values for word in value.split(",")]
    tokens = [word for word in words if word]
    for token in tokens:
        if not is_token(token):
            raise RemoteProtocolError(f"the header {name} is malformed")
    return tokens


def parse_extensions(values: Iterable[str]) -> list[Extension]:
    """
    Parse the field ``Sec-WebSocket-Extensions``.

    :param values: the values of all fields of this name, in order: together they are one list.
    :returns: names and parameters as sent, values without quotes.
    :raises RemoteProtocolError: when the field is malformed.
    """
    return [extension for value in values for extension in _parse_extensions(value)]


def format_extension(extension: Extension) -> str:
    """Return one element of ``Sec-WebSocket-Extensions``."""
    name, parameters = extension
    words = [key if value is None else f"{key}={value}" for key, value in parameters]
    return "; ".join([name, *words])


def _parse_extensions(value: str) -> Iterable[Extension]:
    position = 0
    while True:
        position = _skip_empty(value, position)
        if position == len(value):
            return
        found = _NAME_OF_EXTENSION.match(value, position)
        if not found:
            raise _malformed()
        position = found.end()
        parameters = []
        while value[position : position + 1] == ";":
            parameter = _PARAMETER.match(value, position + 1)
            if not parameter:
                raise _malformed()
            parameters.append(_read_parameter(parameter))
            position = parameter.end()
        if position < len(value) and value[position] != ",":
            raise _malformed()
        yield found[1], tuple(parameters)


def _skip_empty(value: str, position: int) -> int:
    """Return the position of the next element of a list, or the end."""
    while position < len(value) and value[position] in ", \t":
        position += 1
    return position


def _read_parameter(found: re.Match[str]) -> tuple[str, str | None]:
    key, token, quoted = found.groups()
    if quoted is None:
        return key, token
    text = _ESCAPE.sub(r"\1", quoted)
    if not is_token(text):
        raise _malformed()
    return key, text


def _malformed() -> RemoteProtocolError:
    return RemoteProtocolError("the header Sec-WebSocket-Extensions is malformed")
