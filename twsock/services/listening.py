"""
Endpoint strings for servers, and what to say when one cannot be used.

Between the options of a service and the ports it listens on: turns text into endpoints, and
failures into one line that names the text.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint

from twsock.errors import SocketError

__all__ = ["default_endpoints", "describe_failure", "describe_port", "parse_server_endpoint"]


def default_endpoints(port: int) -> list[str]:
    """
    Name the loopback endpoints of a port: IPv4 always, IPv6 where this machine has it.

    :param port: 0 lets the system choose, for each of them.
    """
    endpoints = [f"tcp:{port}:interface=127.0.0.1"]
    if _has_ipv6_loopback():
        endpoints.append(f"tcp:{port}:interface=\\:\\:1")
    return endpoints


def parse_server_endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """
    Make an endpoint of Twisted from its string.

    :raises ValueError: when the string names none, with a line for the user.
    """
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    # Each endpoint type has its own parser, with its own mistakes: a missing file is an OSError, a
    # string that ends too soon a RuntimeError, a bad certificate an error of OpenSSL.
    except Exception as error:
        # What a TypeError says is about Python's arguments, not about the user's.
        problem = "an argument is missing or unknown" if type(error) is TypeError else error
        raise ValueError(
            f"cannot use the endpoint {description!r}: {problem}; "
            "give one such as tcp:1337:interface=127.0.0.1 or unix:/run/echo.sock"
        ) from error
    return endpoint


def describe_failure(description: str, error: BaseException) -> str:
    """Say in one line why an endpoint could not be listened on."""
    return f"cannot listen on {description}: {SocketError.from_exception(error).summary}"


def describe_port(port: IListeningPort) -> str:
    """Name the address and the port that the system gave: what a client connects to."""
    return _describe_address(port.getHost())


def _describe_address(address: IAddress) -> str:
    host = getattr(address, "host", None)
    if host is None:
        name = getattr(address, "name", address)
        return f"unix:{name.decode(errors='replace') if isinstance(name, bytes) else name}"
    escaped = host.replace(":", "\\:")
    return f"tcp:{escaped}:{getattr(address, 'port', '')}"


def _has_ipv6_loopback() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
