r"""
Parser of endpoint strings: **text** → fields → `twsock.datagram.endpoint`.

The grammar is that of Twisted's endpoint strings, with brackets added for IPv6::

    string  = field *(":" field)         the first field is the kind
    field   = [name "="] value
    value   = *(character / "\" any) / "[" *(not "]") "]"

A backslash escapes the next character. An ``=`` inside a value is an ordinary character. Brackets
have a meaning only around a whole value: no character between them is special, and the brackets are
not part of the value. This module does not know the meaning of the fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from twisted.internet.endpoints import quoteStringArgument
from typing_extensions import override

__all__ = ["EndpointString", "parse_endpoint_string"]

#: The name of a field with its ``=``.
_NAME: Final = re.compile(r"((?:[^\\:=]|\\.)*)=", re.DOTALL)
_VALUE: Final = re.compile(r"(?:[^\\:]|\\.)*", re.DOTALL)
_BRACKETED: Final = re.compile(r"\[([^\]]*)\]")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class EndpointString:
    """
    The fields of an endpoint string, unescaped.

    ``str`` returns an endpoint string with the same fields.

    :ivar kind: the first field, in lower case.
    :ivar arguments: the values of the fields without a name, in order; a value may be empty.
    :ivar keywords: the values of the fields with a name.
    """

    kind: str
    arguments: tuple[str, ...]
    keywords: Mapping[str, str]

    @override
    def __str__(self) -> str:
        named = (f"{_quote(name)}={_quote(value)}" for name, value in self.keywords.items())
        return ":".join([_quote(self.kind), *map(_quote, self.arguments), *named])


def parse_endpoint_string(description: str) -> EndpointString:
    r"""
    Parse an endpoint string.

    :param description: such as ``udp:1337:interface=127.0.0.1``, ``multicast:[ff15::1]:22113``
        or, with the colons escaped, ``multicast:ff15\:\:1:22113``.
    :raises ValueError: when there is no kind, a name occurs twice, a bracket is not closed, or the
        string ends with a backslash. The message is one line and does not contain the string.
    """
    (no_name, kind), *fields = _fields(description)
    if no_name is not None or not kind:
        raise ValueError("it does not begin with a kind, such as udp")
    arguments: list[str] = []
    keywords: dict[str, str] = {}
    for name, value in fields:
        if name is None:
            arguments.append(value)
        elif name in keywords:
            raise ValueError(f"{name!r} is given twice")
        else:
            keywords[name] = value
    return EndpointString(kind.lower(), tuple(arguments), keywords)


def _fields(description: str) -> Iterator[tuple[str | None, str]]:
    """Yield name and value of each field; the name is None if the field has none."""
    start = -1
    while start < len(description):
        start += 1
        name = None
        if not description.startswith("[", start) and (found := _NAME.match(description, start)):
            name = _unescape(found[1])
            start = found.end()
        value, start = _value(description, start)
        yield name, value


def _value(description: str, start: int) -> tuple[str, int]:
    """Return the value that begins at ``start``, and the index of the next colon or of the end."""
    if not description.startswith("[", start):
        found = _VALUE.match(description, start)
        assert found is not None  # The pattern also matches an empty value.
        end = found.end()
        if description[end:] == "\\":
            raise ValueError("it ends with a backslash")
        return _unescape(found[0]), end
    bracketed = _BRACKETED.match(description, start)
    if bracketed is None:
        raise ValueError(f"the bracket of {description[start:]!r} is not closed")
    end = bracketed.end()
    if description[end : end + 1] not in ("", ":"):
        raise ValueError(f"after {bracketed[0]!r} a colon or the end must follow")
    return bracketed[1], end


def _unescape(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)


def _quote(text: str) -> str:
    # Twisted's function quotes values only, so it does not escape the "=" after a name.
    quoted = quoteStringArgument(text).replace("=", "\\=")
    return f"\\{quoted}" if quoted.startswith("[") else quoted
