"""
The checks of ``--check``: options → services → **check** → lines for the user.

The options were parsed before. This module checks what a start would use: addresses of this
machine, paths of UNIX sockets, and endpoints that are given twice. A socket is bound to a free
port of an address for a moment, and listens on nothing. No file is made.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from twisted.internet.error import CannotListenError

from twsock.datagram.endpoint_string import EndpointString, parse_endpoint_string
from twsock.datagram.network.interfaces import find_interface
from twsock.errors import SocketError
from twsock.ip.address_errors import listening_error
from twsock.services.listening import ListeningService, describe_failure
from twsock.services.stream_endpoints import inner_endpoint, named_arguments
from twsock.stream.listening.unix_socket import check_unix_path

__all__ = ["describe_check"]


def describe_check(services: Iterable[ListeningService], control: str | None = None) -> list[str]:
    """
    Return what services would do, a line each.

    :param control: the path of ``--control``; None without this option.
    :raises ValueError: when one of them could not listen; the text is a line for the user.
    """
    uses = [(each.purpose, text) for each in services for text in each.descriptions]
    descriptions = [text for _, text in uses]
    for description in descriptions:
        try:
            _check(description)
        except (CannotListenError, OSError, SocketError) as error:
            raise ValueError(describe_failure(description, error)) from error
    _check_uniqueness(descriptions)
    lines = [f"would {purpose} on {description}" for purpose, description in uses]
    if control is not None:
        _check_control(control)
        lines.append(f"would let a new process take over at {control}")
    return [*lines, "the options are valid; nothing was started"]


def _check_control(path: str) -> None:
    """
    Check that the socket of ``--control`` can be made; that of a running process may be there.

    :raises ValueError: when it cannot; the text is a line for the user.
    """
    try:
        _check_path(path)
    except (CannotListenError, OSError) as error:
        reason = listening_error(error).summary
        raise ValueError(f"--control: cannot use {path}: {reason}") from error


def _check(description: str) -> None:
    try:
        words = parse_endpoint_string(inner_endpoint(description))
    except ValueError:
        return  # An endpoint of a plugin may have a grammar of its own.
    arguments = named_arguments(words)
    if words.kind == "unix":
        _check_path(arguments["address"])
    elif arguments.get("interface"):
        check = find_interface if words.kind == "multicast" else _check_address
        check(arguments["interface"])


def _check_address(host: str) -> None:
    """
    Check that this machine has an address; bind a socket to it for a moment.

    :raises OSError: when the machine does not have it, or the name of a host is not known.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"{host!r} is not the name of a host") from error
    family, kind, _, _, address = found[0]
    with socket.socket(family, kind) as probe:
        probe.bind(address)


def _check_path(text: str) -> None:
    """
    Check that a UNIX socket can be made.

    :raises OSError: when the folder is missing, or this user may not write there.
    :raises CannotListenError: when the path is too long, or is not that of a socket.
    """
    if text.startswith("\0"):
        return
    check_unix_path(Path(text))
    folder = Path(text).absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"this user may not make files in {folder}")


def _check_uniqueness(descriptions: Sequence[str]) -> None:
    for description, count in Counter(descriptions).items():
        if count > 1 and not _may_be_repeated(parse_endpoint_string(inner_endpoint(description))):
            raise ValueError(f"cannot listen on {description}: it is given {count} times")


def _may_be_repeated(words: EndpointString) -> bool:
    """Return whether the system chooses a port, or many programs may use it."""
    return words.kind == "multicast" or named_arguments(words).get("port") == "0"
