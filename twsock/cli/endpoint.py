"""
The ENDPOINT argument: text → endpoint of Twisted. Those of datagrams are read in
`twsock.cli.datagram_target`.

What would fail later without a word, or with a traceback of Twisted, is refused here.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

from twisted.internet.endpoints import HostnameEndpoint, clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint

from twsock.cli.failure import UsageError

__all__ = ["find_host", "parse_endpoint"]

#: ``tcp:HOST:PORT`` and no more: HOST in brackets, or with its colons escaped, or without any.
_TCP: Final = re.compile(
    r"tcp:(?:\[(?P<bracketed>[^][]*)\]|(?P<host>(?:\\.|[^:\\=])*)):(?P<port>[^:=]*)", re.IGNORECASE
)
#: One argument of an endpoint string, and those that may be the host of a ``tcp:`` one.
_ARGUMENT: Final = re.compile(r"(?:\\.|[^:\\])+")
_HOST: Final = re.compile(r"(?:host=)?(?P<host>(?:\\.|[^:\\=])+)")
_UNIX: Final = re.compile(r"unix:(?:path=)?(?P<path>(?:\\.|[^:\\])*)", re.IGNORECASE)
_ESCAPED: Final = re.compile(r"\\(.)")

#: unix(7): ``sun_path`` has 108 bytes on Linux and 104 on the BSDs, of which one is a NUL.
_MAX_PATH: Final = 107 if sys.platform == "linux" else 103


def parse_endpoint(reactor: Any, description: str, timeout: float) -> IStreamClientEndpoint:
    """
    Make a client endpoint of Twisted from its string.

    ``tcp:HOST:PORT`` tries every address of HOST, IPv6 and IPv4, as `HostnameEndpoint` does;
    Twisted itself takes only the IPv4 ones from such a string.

    :param timeout: seconds for one attempt to connect over TCP.
    :raises UsageError: when the string names no endpoint.
    """
    try:
        if tcp := _TCP.fullmatch(description):
            return _tcp_endpoint(reactor, tcp, timeout)
        if unix := _UNIX.match(description):
            _check_path(_unescape(unix["path"]))
        endpoint: IStreamClientEndpoint = clientFromString(reactor, description)
        return endpoint
    except TypeError:
        # A parser of Twisted was called with too many words, or too few.
        raise _bad_endpoint(description, "an argument is missing, or not known") from None
    except RuntimeError:
        # A generator of Twisted ran out of characters.
        raise _bad_endpoint(description, "it ends with a backslash") from None
    # Each endpoint type has its own parser with its own mistakes: a bad number, a missing file, a
    # certificate that OpenSSL cannot read; a plugin's may raise anything.
    except Exception as error:
        raise _bad_endpoint(description, str(error)) from error


def find_host(description: str) -> str | None:
    """
    Give the host that an endpoint string leads to.

    :param description: one that `parse_endpoint` takes.
    :returns: a name or an address as it is written there; None where there is none in it, as in
        all that are not ``tcp:``.
    """
    if tcp := _TCP.fullmatch(description):
        return tcp["bracketed"] or _unescape(tcp["host"])
    kind, _, rest = description.partition(":")
    if kind.lower() != "tcp":
        return None
    hosts = map(_HOST.fullmatch, _ARGUMENT.findall(rest))
    return next((_unescape(found["host"]) for found in hosts if found), None)


def _bad_endpoint(description: str, reason: str) -> UsageError:
    return UsageError(
        f"cannot use the endpoint {description!r}: {reason[:1].lower()}{reason[1:]}; "
        "give one such as tcp:127.0.0.1:1337 or unix:/run/echo.sock"
    )


def _tcp_endpoint(reactor: Any, tcp: re.Match[str], timeout: float) -> IStreamClientEndpoint:
    host = tcp["bracketed"] or _unescape(tcp["host"] or "")
    if not host:
        raise ValueError("the host is missing")
    port = tcp["port"]
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65_535):
        raise ValueError(f"the port is a number, 1 to 65535, not {port!r}")
    return HostnameEndpoint(reactor, host, int(port), timeout=timeout)


def _check_path(path: str) -> None:
    size = len(path.encode(errors="surrogateescape"))
    # Twisted connects later, and a path that no address can hold ends there in a traceback.
    if not 1 <= size <= _MAX_PATH:
        raise ValueError(f"the path has {size} bytes, it may have 1 to {_MAX_PATH}")


def _unescape(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)
