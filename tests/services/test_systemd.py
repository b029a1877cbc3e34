"""Sockets that systemd opened are used, and stay in place after the stop."""

from __future__ import annotations

import os
import signal
import socket
import stat
import struct
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.services.processes import PATIENCE, echo, twistd
from twsock.ip.address_errors import EndpointError
from twsock.services.keeping_reactor import BindingReactor, KeepingReactor
from twsock.services.listening_sockets import ListeningSockets, SocketName
from twsock.services.systemd import systemd_endpoint


class EnvironmentTests(SynchronousTestCase):
    """The environment variables."""

    def socket_error(self, domain: str = "INET", **settings: Any) -> str:
        """Look for a socket; return the error."""
        error = self.assertRaises(
            EndpointError, systemd_endpoint, MemoryReactorClock(), domain, **settings
        )
        return str(error)

    def variables(self, **changed: str) -> dict[str, str]:
        """Return the variables for two sockets with names."""
        own = str(os.getpid())
        return {"LISTEN_FDS": "2", "LISTEN_PID": own, "LISTEN_FDNAMES": "a:b", **changed}

    def test_a_missing_or_wrong_variable_is_named(self) -> None:
        """The error is one line."""
        for variables, words in (
            ({}, "LISTEN_FDS is not set"),
            ({"LISTEN_FDS": "1"}, "LISTEN_PID is not set"),
            (self.variables(LISTEN_PID="1"), f"LISTEN_PID is 1, but this is process {os.getpid()}"),
            (self.variables(LISTEN_FDS="many"), "LISTEN_FDS is 'many'"),
            (self.variables(LISTEN_FDS="0"), "LISTEN_FDS is '0'"),
        ):
            self.assertIn(
                words, self.socket_error(index="0", environment=variables), f"{variables=}"
            )

    def test_an_index_beyond_the_last_is_refused(self) -> None:
        """The error lists the sockets."""
        line = self.socket_error(index="2", environment=self.variables())
        self.assertIn("LISTEN_FDS is 2, so there is no socket with index 2: use 0 to 1", line)
        line = self.socket_error(index="1", environment=self.variables(LISTEN_FDS="1"))
        self.assertIn("with index 1: use 0", line)

    def test_an_unknown_name_is_refused(self) -> None:
        """The error lists the names."""
        line = self.socket_error(name="c", environment=self.variables())
        self.assertEqual(line, "LISTEN_FDNAMES has no 'c': it is a, b")
        line = self.socket_error(name="c", environment=self.variables(LISTEN_FDNAMES=""))
        self.assertIn("not set", line)

    def test_unknown_settings_are_refused(self) -> None:
        """The error names each."""
        everything = self.variables()
        for settings, words in (
            ({"domain": "IPX", "index": "0"}, "INET, INET6, UNIX, not 'IPX'"),
            ({}, "either index= or name="),
            ({"index": "0", "name": "a"}, "either index= or name="),
            ({"index": "-1"}, "index is a number"),
        ):
            self.assertIn(
                words, self.socket_error(environment=everything, **settings), f"{settings=}"
            )


class KeptTests(TestCase):
    """A restarted process has the socket from the process before."""

    def setUp(self) -> None:
        self.sockets = ListeningSockets()
        self.addCleanup(self.sockets.close)
        self.keeping = KeepingReactor(reactor, self.sockets)

    async def listen(self, **settings: Any) -> Any:
        """Listen without a socket of systemd."""
        endpoint = systemd_endpoint(self.keeping, "INET", environment={}, **settings)
        port: Any = await endpoint.listen(Factory.forProtocol(Protocol))
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        return port

    async def test_an_inherited_socket_needs_no_variable(self) -> None:
        """Its name is that of the endpoint string."""
        for settings, name in (
            ({"name": "web"}, SocketName("systemd", "INET,web")),
            ({"index": "1"}, SocketName("systemd", "INET", 1)),
        ):
            inherited = socket.create_server(("127.0.0.1", 0))
            where = inherited.getsockname()
            self.sockets.inherit([(name, inherited)])
            port = await self.listen(**settings)
            self.assertEqual((port.getHost().host, port.getHost().port), where, f"{name=}")

    def test_a_parent_of_workers_fails_at_once(self) -> None:
        """It inherits nothing, so ``--check`` can say so."""
        binding = BindingReactor(reactor, [self.sockets])
        with self.assertRaisesRegex(EndpointError, "LISTEN_FDS is not set"):
            systemd_endpoint(binding, "INET", index="0", environment={})

    async def test_without_one_the_endpoint_fails_when_it_listens(self) -> None:
        """The options are checked before the sockets are taken over."""
        with self.assertRaises(EndpointError) as caught:
            await self.listen(index="0")
        self.assertIn("LISTEN_FDS is not set", str(caught.exception))


class TwistdTests(SynchronousTestCase):
    """Real processes, started as systemd starts them."""

    def listen(self, family: int, where: Any) -> socket.socket:
        """Open the socket of a .socket unit."""
        listening = socket.socket(family)
        self.addCleanup(listening.close)
        listening.bind(where)
        listening.listen()
        return listening

    def test_an_index_works_without_names(self) -> None:
        """LISTEN_FDNAMES may be missing."""
        listening = self.listen(socket.AF_INET, ("127.0.0.1", 0))
        arguments = ["twsock-stream", "-e", "systemd:domain=INET:index=0"]
        environment = {"LISTEN_FDS": "1"}
        with twistd(*arguments, inherited=listening, environment=environment) as server:
            server.wait_for("listening on")
            self.assertEqual(echo(listening.getsockname()[1]), b"Hello, World!")

    def test_a_name_chooses_the_socket(self) -> None:
        """It is the FileDescriptorName= of the unit."""
        listening = self.listen(socket.AF_INET6, ("::1", 0))
        arguments = ["twsock-stream", "-e", "systemd:INET6:name=echo"]
        environment = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "echo"}
        with twistd(*arguments, inherited=listening, environment=environment) as server:
            (port,) = server.wait_for_ports()
            self.assertEqual(port, listening.getsockname()[1])

    def test_a_unix_socket_stays_for_the_next_start(self) -> None:
        """Its path belongs to systemd, which continues to listen."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "echo.sock"
            listening = self.listen(socket.AF_UNIX, str(path))
            path.chmod(0o600)
            arguments = ["twsock-stream", "-e", "systemd:UNIX:0"]
            environment = {"LISTEN_FDS": "1"}
            with twistd(*arguments, inherited=listening, environment=environment) as server:
                server.wait_for("listening on unix:")
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.settimeout(PATIENCE)
                    connection.connect(str(path))
                    connection.sendall(struct.pack(">I", 1) + b"x")
                    self.assertEqual(connection.recv(5), b"\0\0\0\1x")
                server.terminate()
                self.assertEqual(server.wait(), -signal.SIGTERM)
                self.assertNotIn("Traceback", server.log)
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))

    def test_a_socket_of_the_wrong_kind_is_refused_in_one_line(self) -> None:
        """Of another domain, of another type, or one that does not listen."""
        kinds = (
            (self.listen(socket.AF_INET6, ("::1", 0)), "domain INET6, not INET"),
            (socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "ListenStream="),
            (socket.socket(socket.AF_INET), "Accept=no"),
        )
        for inherited, words in kinds:
            with inherited:
                arguments = ["twsock-stream", "-e", "systemd:INET:0"]
                environment = {"LISTEN_FDS": "1"}
                with twistd(*arguments, inherited=inherited, environment=environment) as server:
                    self.assertEqual(server.wait(), 1, f"{inherited=}")
                    self.assertNotIn("Traceback", server.log, f"{inherited=}: {server.log}")
                    last = server.log.splitlines()[-1]
                    self.assertIn(
                        "CannotAssignRequestedAddress (11)", last, f"{inherited=}: {last}"
                    )
                    self.assertIn(words, last, f"{inherited=}: {last}")
