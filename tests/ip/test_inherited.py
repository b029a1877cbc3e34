"""A bound socket of another process is checked before its use."""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import SocketError, SocketErrorStatus
from twsock.ip.inherited import check_inherited


class CheckTests(SynchronousTestCase):
    """Options that are set before the bind."""

    def open(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        opened = socket.socket(family, kind)
        self.addCleanup(opened.close)
        return opened

    def bound(self, host: str = "127.0.0.1", family: int = socket.AF_INET) -> socket.socket:
        opened = self.open(family)
        opened.bind((host, 0))
        return opened

    def refusal(self, inherited: socket.socket, fresh: socket.socket, where: object) -> str:
        """Return the line of the refusal."""
        error = self.assertRaises(SocketError, check_inherited, inherited, fresh, where)
        self.assertIs(error.status, SocketErrorStatus.ADDRESS_ALREADY_IN_USE)
        line = str(error)
        self.assertEqual(line.count("\n"), 0)
        return line

    def test_the_same_socket_is_accepted(self) -> None:
        """With its port, and with any port."""
        inherited = self.bound()
        for port in (0, inherited.getsockname()[1]):
            check_inherited(inherited, self.open(), ("127.0.0.1", port))

    def test_a_zone_is_not_compared(self) -> None:
        """It is part of the name of the socket."""
        inherited = self.bound("::1", socket.AF_INET6)
        check_inherited(inherited, self.open(socket.AF_INET6), ("::1%lo", 0, 0, 1))

    def test_another_family_type_or_address_is_refused(self) -> None:
        """The line names the difference."""
        inherited = self.bound()
        for fresh in (self.open(socket.AF_INET6), self.open(kind=socket.SOCK_DGRAM)):
            line = self.refusal(inherited, fresh, ("127.0.0.1", 0))
            self.assertIn("another family or type", line, f"{fresh=}")
        for where in (("127.0.0.2", 0), ("127.0.0.1", 1)):
            line = self.refusal(inherited, self.open(), where)
            self.assertIn("is bound to 127.0.0.1 port ", line, f"{where=}")

    def test_another_fixed_option_is_refused(self) -> None:
        """It cannot be changed after the bind."""
        fresh = self.open()
        fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        line = self.refusal(self.bound(), fresh, ("127.0.0.1", 0))
        self.assertIn("has SO_REUSEPORT 0 instead of 1", line)
        fresh = self.open(socket.AF_INET6)
        fresh.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        inherited = self.open(socket.AF_INET6)
        inherited.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        inherited.bind(("::", 0))
        self.assertIn("IPV6_V6ONLY 0 instead of 1", self.refusal(inherited, fresh, ("::", 0)))
