"""
The options that all services of stream connections have: command line → **options** → service.

They are those for endpoints, limits of connections, TLS, and the process. `twsock.services.stream`
and `twsock.services.websocket` add the options of their formats. Holds the values of one command.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.application.service import IService
from twisted.python import usage

from twsock.ip.address_errors import EndpointError
from twsock.services.listening import describe_mistake
from twsock.services.options import count_option, mode_option, seconds_option
from twsock.services.process import in_process
from twsock.services.process_options import ProcessOptions
from twsock.services.security import SecurityOptions
from twsock.services.stream_endpoints import (
    StreamEndpointSettings,
    inner_endpoint,
    parse_server_endpoint,
)
from twsock.services.twistd_options import process_owner
from twsock.stream.listening.proxy_endpoint import LOOPBACK, parse_networks
from twsock.stream.listening.unix_socket import DEFAULT_SOCKET_MODE

__all__ = [
    "DEFAULT_DRAIN_TIMEOUT",
    "MOST_CONNECTIONS",
    "RESERVED_DESCRIPTORS",
    "StreamServiceOptions",
]

#: Seconds that a stop waits for connections to end by themselves.
DEFAULT_DRAIN_TIMEOUT: Final = 10.0

#: The default of ``--max-connections``, if the limit on open files allows it.
MOST_CONNECTIONS: Final = 10_000

#: Descriptors that are reserved for other uses: some 20 for ports, logs, the reactor and Python
#: itself, and the rest for files that are read while connections are open. With a low limit on open
#: files, an eighth of it is reserved instead, so that connections remain possible.
RESERVED_DESCRIPTORS: Final = 64

#: The help text of the option ``--max-connections``.
_MAX_CONNECTIONS: Final = (
    f"Accept at most N connections at once. [default: {MOST_CONNECTIONS}, or the limit on open "
    f"files minus {RESERVED_DESCRIPTORS} if that is smaller]"
)


class StreamServiceOptions(SecurityOptions, ProcessOptions):
    """The options of a service of stream connections."""

    optParameters = [
        ["max-connections", None, None, _MAX_CONNECTIONS],
        [
            "max-connections-per-address",
            None,
            None,
            "Close further connections of an address that has N.",
        ],
        [
            "max-buffered",
            None,
            None,
            "Limit of buffered bytes, all connections. [default: 256 MiB or more]",
        ],
        ["drain-timeout", None, DEFAULT_DRAIN_TIMEOUT, "Seconds to end connections on SIGTERM."],
        ["socket-mode", None, f"{DEFAULT_SOCKET_MODE:o}", "Permissions of UNIX sockets, in octal."],
    ]

    optFlags = [["log-connections", None, "Log a line at the end of each connection."]]

    def __init__(self) -> None:
        super().__init__()
        self["endpoints"] = []
        self["endpoint-settings"] = None
        self["proxy-from"] = ()

    def opt_proxy_from(self, networks: str) -> None:
        """
        Networks whose PROXY headers haproxy: accepts; repeatable. [default: 127.0.0.0/8,::1]
        """
        try:
            self["proxy-from"] += parse_networks(networks)
        except ValueError as error:
            raise usage.UsageError(f"--proxy-from: {error}") from error

    def postOptions(self) -> None:
        """
        Check the options, so that a mistake is reported in one line before anything starts.

        :raises UsageError: when an option is invalid. The error names the option and what it takes.
        """
        super().postOptions()
        self.check_format()
        self["max-connections"] = count_option(self, "max-connections", 1)
        name = "max-connections-per-address"
        self[name] = count_option(self, name, 1)
        self["max-buffered"] = count_option(self, "max-buffered", 1)
        self["drain-timeout"] = seconds_option(self, "drain-timeout")
        self["endpoint-settings"] = StreamEndpointSettings(
            socket_mode=mode_option(self, "socket-mode"),
            socket_owner=process_owner(self),
            proxy_from=self["proxy-from"] or LOOPBACK,
        )
        for description in self["endpoints"]:
            try:
                parse_server_endpoint(self.reactor, description, self["endpoint-settings"])
            except EndpointError as error:
                raise usage.UsageError(f"--endpoint: {describe_mistake(error)}") from error
        self._check_proxies()
        self["security"] = self.read_security()
        if self["security"] is not None:
            self._check_endpoints()

    def check_format(self) -> None:
        """
        Check the options of the format.

        :raises UsageError: when an option is invalid. The error names the option and what it takes.
        """
        raise NotImplementedError

    def make_process(self, make_service: Callable[..., Any], **settings: Any) -> IService:
        """
        Make the service of a process of ``twistd``.

        :param make_service: makes a `StreamService`; called with the reactor, the endpoints, and
            the settings that all services of stream connections have.
        :param settings: those of the format.
        """
        service = make_service(
            self.reactor,
            self["endpoints"],
            max_connections=self["max-connections"],
            max_connections_per_address=self["max-connections-per-address"],
            max_buffered=self["max-buffered"],
            drain_timeout=self["drain-timeout"],
            security=self["security"],
            endpoint_settings=self["endpoint-settings"],
            **settings,
        )
        if self["log-connections"]:
            service.log_connections()
        return in_process(self, service)

    def _check_proxies(self) -> None:
        behind = [text for text in self["endpoints"] if inner_endpoint(text) != text]
        if self["proxy-from"] and not behind:
            raise usage.UsageError("--proxy-from needs a haproxy: endpoint")

    def _check_endpoints(self) -> None:
        for description in self["endpoints"]:
            if inner_endpoint(description).partition(":")[0].lower() in ("ssl", "tls"):
                raise usage.UsageError(
                    f"--endpoint: {description!r} already uses TLS: remove --tls and --upgrade"
                )
