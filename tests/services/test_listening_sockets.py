"""A table keeps sockets by name, for the process that comes next."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis.strategies import from_regex, integers, just, one_of, sampled_from
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from tests.datagram.fake_ports import log_lines
from twsock.services.listening_sockets import ListeningSockets, SocketName

_NAMES = (
    (SocketName("tcp", "127.0.0.1", 1337), "tcp:127.0.0.1:1337"),
    (SocketName("tcp", "", 0, 1), "tcp::0#1"),
    (SocketName("tcp", "fe80::1%eth0", 1337), "tcp:[fe80::1%eth0]:1337"),
    (SocketName("unix", "/run/echo.sock"), "unix:/run/echo.sock"),
    (SocketName("unix", "/run/a:1"), "unix:/run/a:1"),
    (SocketName("unix", "/run/a#1"), "unix:/run/a#1#0"),
    (SocketName("unix", "\0echo"), "unix:@echo"),
    (SocketName("udp", "232.1.1.1%eth0,192.0.2.7", 22113), "udp:232.1.1.1%eth0,192.0.2.7:22113"),
    (SocketName("systemd", "INET,web", 0), "systemd:INET,web:0"),
)


def listen() -> socket.socket:
    """Open a socket on a port that the system chooses."""
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen()
    return made


def is_listened_on(where: object) -> bool:
    """Return whether a connection is possible."""
    with socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET) as peer:
        return peer.connect_ex(where) == 0  # type: ignore[arg-type]


def count_descriptors() -> int:
    """Return the number of open descriptors."""
    return len(list(Path("/proc/self/fd").iterdir()))


class SocketNameTests(SynchronousTestCase):
    """The name of a socket as text."""

    def test_a_name_has_a_text_and_back(self) -> None:
        """As in log lines."""
        for name, text in _NAMES:
            self.assertEqual(str(name), text)
            self.assertEqual(SocketName.parse(text), name, text)

    @given(
        sampled_from(["tcp", "udp", "systemd", "adopted"]),
        one_of(just("::1"), from_regex(r"[^:\[\]\0]*", fullmatch=True)),
        integers(0, 65_535),
        integers(0, 65_535),
    )
    def test_every_name_survives(self, kind: str, address: str, port: int, number: int) -> None:
        """Whatever the address contains."""
        name = SocketName(kind, address, port, number)
        self.assertEqual(SocketName.parse(str(name)), name)

    def test_other_text_is_refused(self) -> None:
        """It comes from another process."""
        for text in (
            "",
            "tcp",
            "tcp:",
            ":1:2",
            "tcp:a:x",
            "tcp:a:99999",
            "unix:/a#x",
            "tcp:a:1#99999",
            "tcp:a:1#0",
            "tcp:a:01",
            "tcp:a:1#" + "1" * 5000,
        ):
            self.assertRaises(ValueError, SocketName.parse, text)

    def test_names_have_an_order(self) -> None:
        """By kind, address, port and number."""
        self.assertLess(SocketName("tcp", "a", 1), SocketName("tcp", "a", 1, 1))


class TableTests(SynchronousTestCase):
    """Claims, closes and paths."""

    def setUp(self) -> None:
        self.table = ListeningSockets()
        self.addCleanup(self.table.close)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "echo.sock"
        self.before = count_descriptors()

    def listen_on_path(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(self.path))
        made.listen()
        return made

    def inherit(self, *names: SocketName) -> list[tuple[str, int]]:
        """Inherit listening sockets; return their addresses."""
        given = [(name, listen()) for name in names]
        self.table.inherit(given)
        return [each.getsockname() for _, each in given]

    def test_a_claimed_socket_is_opened_once(self) -> None:
        """The table has a duplicate, and the close of the socket closes both."""
        kept, is_inherited = self.table.claim("tcp", "127.0.0.1", 0, listen)
        self.assertFalse(is_inherited)
        ((name, copy),) = self.table.held()
        self.assertEqual(str(name), "tcp:127.0.0.1:0")
        self.assertEqual(copy.getsockname(), kept.getsockname())
        self.assertFalse(kept.getblocking())
        where = kept.getsockname()
        kept.close()
        kept.close()
        self.assertEqual(self.table.held(), [])
        self.assertFalse(is_listened_on(where))
        self.assertEqual(count_descriptors(), self.before)

    def test_sockets_of_one_address_are_numbered(self) -> None:
        """By port 0 twice, two ports; a number that is free again is given again."""
        first, _ = self.table.claim("tcp", "", 0, listen)
        second, _ = self.table.claim("tcp", "", 0, listen)
        self.assertEqual([str(name) for name, _ in self.table.held()], ["tcp::0", "tcp::0#1"])
        first.close()
        third, _ = self.table.claim("tcp", "", 0, listen)
        self.assertEqual([str(name) for name, _ in self.table.held()], ["tcp::0#1", "tcp::0"])
        second.close()
        third.close()

    def test_an_inherited_socket_is_claimed_by_its_name(self) -> None:
        """In the order of their numbers; further ones are opened."""
        zero, one = SocketName("tcp", "", 0), SocketName("tcp", "", 0, 1)
        second, first = self.inherit(one, zero)
        self.assertTrue(self.table.has("tcp", "", 0))
        for where in (first, second):
            kept, is_inherited = self.table.claim("tcp", "", 0, self.fail)
            self.addCleanup(kept.close)
            self.assertTrue(is_inherited)
            self.assertEqual(kept.getsockname(), where)
        self.assertFalse(self.table.has("tcp", "", 0))
        kept, is_inherited = self.table.claim("tcp", "", 0, listen)
        self.addCleanup(kept.close)
        self.assertFalse(is_inherited)

    def test_what_nobody_claims_is_closed(self) -> None:
        """The configuration of the new process has no such endpoint."""
        name, other = SocketName("tcp", "", 1), SocketName("tcp", "", 2)
        (claimed, unclaimed) = self.inherit(name, other)
        kept, _ = self.table.claim("tcp", "", 1, self.fail)
        self.addCleanup(kept.close)
        self.assertEqual(self.table.close_unclaimed(), [other])
        self.assertTrue(is_listened_on(claimed))
        self.assertFalse(is_listened_on(unclaimed))

    def test_the_same_name_twice_is_refused(self) -> None:
        """Everything given is closed."""
        name = SocketName("tcp", "", 1)
        self.assertRaises(ValueError, self.inherit, name, name)
        self.inherit(name)
        self.assertRaises(ValueError, self.inherit, name)
        self.table.close()
        self.assertEqual(count_descriptors(), self.before)

    def test_an_error_of_the_open_leaves_nothing(self) -> None:
        """The error is that of the call."""

        def fail() -> socket.socket:
            raise OSError("no")

        self.assertRaises(OSError, self.table.claim, "tcp", "", 1, fail)
        self.assertEqual(self.table.held(), [])

    def test_a_path_is_removed_with_its_socket(self) -> None:
        """The table has opened it."""
        kept, _ = self.table.claim("unix", str(self.path), 0, self.listen_on_path)
        kept.close()
        self.assertFalse(self.path.exists())

    def test_a_path_that_was_given_away_stays(self) -> None:
        """Another process removes it."""
        kept, _ = self.table.claim("unix", str(self.path), 0, self.listen_on_path)
        self.table.owns_paths = False
        kept.close()
        self.assertTrue(self.path.exists())

    def test_an_inherited_path_stays_until_it_is_owned(self) -> None:
        """A process that cannot start removes nothing."""
        name = SocketName("unix", str(self.path))
        for owns in (False, True):
            self.path.unlink(missing_ok=True)
            self.table.inherit([(name, self.listen_on_path())])
            self.table.claim("unix", str(self.path), 0, self.fail)[0].detach()
            if owns:
                self.table.owns_paths = True
            self.table.close()
            self.assertEqual(self.path.exists(), not owns, f"{owns=}")

    def test_the_path_of_an_unclaimed_socket_is_removed_later(self) -> None:
        """When the process that listened there has ended; another file at the path stays."""
        name = SocketName("unix", str(self.path))
        for is_replaced in (False, True):
            self.path.unlink(missing_ok=True)
            self.table.inherit([(name, self.listen_on_path())])
            self.assertEqual(self.table.close_unclaimed(), [name])
            self.table.owns_paths = True
            self.assertTrue(self.path.exists())
            if is_replaced:
                self.path.rename(self.path.with_name("old"))
                self.path.write_text("")
            self.table.remove_unused_paths()
            self.assertEqual(self.path.exists(), is_replaced, f"{is_replaced=}")
            self.table.remove_unused_paths()

    def test_a_socket_whose_path_is_gone_is_opened_again(self) -> None:
        """No client could reach the inherited one."""
        name = SocketName("unix", str(self.path))
        self.table.inherit([(name, self.listen_on_path())])
        self.path.unlink()
        self.assertFalse(self.table.has("unix", str(self.path), 0))
        kept, is_inherited = self.table.claim("unix", str(self.path), 0, self.listen_on_path)
        self.assertFalse(is_inherited)
        self.assertTrue(is_listened_on(str(self.path)))
        kept.close()
        self.assertFalse(self.path.exists())

    def test_a_socket_whose_path_is_gone_is_not_given(self) -> None:
        """Nor one whose path another program has replaced."""
        kept, _ = self.table.claim("unix", str(self.path), 0, self.listen_on_path)
        self.addCleanup(kept.close)
        self.assertEqual(len(self.table.held()), 1)
        self.path.unlink()
        self.assertEqual(self.table.held(), [])
        self.path.touch()
        self.assertEqual(self.table.held(), [])

    def test_workers_share_a_socket_whose_path_is_gone(self) -> None:
        """Otherwise each of them would open another one."""
        parent, worker = (ListeningSockets(checks_paths=False) for _ in range(2))
        self.addCleanup(parent.close)
        self.addCleanup(worker.close)
        shared, _ = parent.claim("unix", str(self.path), 0, self.listen_on_path)
        self.addCleanup(shared.close)
        self.path.unlink()
        worker.inherit((name, each.dup()) for name, each in parent.held())
        kept, is_inherited = worker.claim("unix", str(self.path), 0, self.fail)
        self.addCleanup(kept.close)
        self.assertTrue(is_inherited)

    def test_options_are_set_on_inherited_sockets_only(self) -> None:
        """An error closes the socket."""
        renewed: list[socket.socket] = []
        self.table.claim("tcp", "", 0, listen, renewed.append)[0].close()
        self.assertEqual(renewed, [])
        self.inherit(SocketName("tcp", "", 0))
        self.table.claim("tcp", "", 0, self.fail, renewed.append)[0].close()
        self.assertEqual(len(renewed), 1)
        self.inherit(SocketName("tcp", "", 0))
        self.assertRaises(OSError, self.table.claim, "tcp", "", 0, self.fail, self.refuse)
        self.assertEqual(self.table.held(), [])
        self.assertEqual(count_descriptors(), self.before)

    def refuse(self, _kept: socket.socket) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    def test_options_are_set_again_after_another_process_has_failed(self) -> None:
        """A refusal is logged, and the others are set."""
        renewed: list[socket.socket] = []
        for renew in (None, self.refuse, renewed.append):
            kept, _ = self.table.claim("tcp", "", 0, listen, renew)
            self.addCleanup(kept.close)
        self.inherit(SocketName("tcp", "", 1))
        with log_lines() as lines:
            self.table.renew()
        self.assertEqual(len(renewed), 1)
        (line,) = lines
        self.assertIn("cannot set the options of tcp::0#1 again: ", line)

    def test_without_a_descriptor_nothing_is_left(self) -> None:
        """The duplicate needs one."""
        self.inherit(SocketName("tcp", "", 0))
        ((_, kept),) = self.table.held()
        kept.detach()  # Its number is not a descriptor any more.
        self.assertRaises(OSError, self.table.claim, "tcp", "", 0, self.fail)
        self.assertEqual(self.table.held(), [])

    def test_a_bound_address_is_known(self) -> None:
        """For the ports of endpoints that open sockets themselves."""
        kept, _ = self.table.claim("tcp", "", 0, listen)
        self.addCleanup(kept.close)
        path, _ = self.table.claim("unix", str(self.path), 0, self.listen_on_path)
        self.addCleanup(path.close)
        host, port = kept.getsockname()
        self.assertTrue(self.table.is_bound(IPv4Address("TCP", host, port)))
        self.assertFalse(self.table.is_bound(IPv4Address("UDP", host, port)))
        self.assertTrue(self.table.is_bound(UNIXAddress(os.fsencode(self.path))))
        self.assertFalse(self.table.is_bound(UNIXAddress(b"/nowhere")))

    def test_a_duplicate_is_independent(self) -> None:
        """Its close leaves the table alone."""
        kept, _ = self.table.claim("tcp", "", 0, listen)
        self.addCleanup(kept.close)
        kept.dup().close()
        self.assertEqual(len(self.table.held()), 1)
