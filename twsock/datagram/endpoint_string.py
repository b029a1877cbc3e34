r"""
Endpoint strings in their parts: **text** → words → `twsock.datagram.endpoint`.

The grammar is that of Twisted's endpoint strings, with brackets added for IPv6::

    string  = field *(":" field)         the first one is the kind
    field   = [name "="] value
    value   = *(character / "\" any) / "[" *(not "]") "]"

A backslash takes any meaning from the next character. In a value another ``=`` is a character as
any other. Brackets count only around a whole value, keep all that is between them, and are not part
of it. What the words mean is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from twisted.internet.endpoints import quoteStringArgument
from typing_extensions import override

__all__ = ["EndpointString", "parse_endpoint_string"]

#: A name and its ``=``, where the field has both.
_NAME: Final = re.compile(r"((?:[^\\:=]|\\.)*)=", re.DOTALL)
_VALUE: Final = re.compile(r"(?:[^\\:]|\\.)*", re.DOTALL)
_BRACKETED: Final = re.compile(r"\[([^\]]*)\]")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class EndpointString:
    """
    The parts of an endpoint string, with nothing escaped.

    As text, it is a string that has these parts again.

    :ivar kind: what comes first, in lower case.
    :ivar arguments: the fields without a name, in their order; a field may be empty.
    :ivar keywords: the values of the fields with one.
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
    Take an endpoint string apart.

    :param description: such as ``udp:1337:interface=127.0.0.1``, ``multicast:[ff15::1]:22113``
        or, with the colons escaped, ``multicast:ff15\:\:1:22113``.
    :raises ValueError: when there is no kind, a name comes twice, a bracket stays open, or nothing
        follows a backslash; one line, which does not repeat the string.
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
    """Give name and value of each field; there is one field more than there are colons."""
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
    """Give the value that begins at ``start``, and where the colon after it is, or the end."""
    if not description.startswith("[", start):
        found = _VALUE.match(description, start)
        assert found is not None  # It matches an empty value, too.
        end = found.end()
        if description[end:] == "\\":
            raise ValueError("it ends with a backslash, which nothing follows")
        return _unescape(found[0]), end
    bracketed = _BRACKETED.match(description, start)
    if bracketed is None:
        raise ValueError(f"the bracket of {description[start:]!r} is not closed")
    end = bracketed.end()
    if description[end : end + 1] not in ("", ":"):
        raise ValueError(f"after {bracketed[0]!r} comes a colon or the end")
    return bracketed[1], end


def _unescape(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)


def _quote(text: str) -> str:
    # Twisted's function is for values: it leaves alone what divides only names from them.
    quoted = quoteStringArgument(text).replace("=", "\\=")
    return f"\\{quoted}" if quoted.startswith("[") else quoted
