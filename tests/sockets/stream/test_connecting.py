"""Attempts to connect lead to one connection, or tell all that went wrong."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import ConnectBindError, ConnectionRefusedError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from twsock.errors import SocketError, SocketErrorStatus
from twsock.sockets.resolving import RemoteAddress
from twsock.sockets.stream.connecting import ATTEMPT_DELAY, Attempt, ConnectError, connect_to_any

A, B, C = (IPv4Address("TCP", f"192.0.2.{number}", 80) for number in (1, 2, 3))
A6 = IPv6Address("TCP", "::1", 81)

#: Just before a further attempt is due.
ALMOST = ATTEMPT_DELAY - 0.01


def refused() -> Exception:
    return ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


def no_local_address() -> Exception:
    """What a machine without IPv6 says."""
    return ConnectBindError(errno.EADDRNOTAVAIL, "Cannot assign requested address")


class HastyReactor(MemoryReactorClock):
    """Refuses some attempts within the very call that begins them."""

    def __init__(self, *hosts: str) -> None:
        super().__init__()
        self.refused = hosts

    @override
    def connectTCP(self, host: str, port: int, factory: Any, *rest: Any, **options: Any) -> Any:
        connector = super().connectTCP(host, port, factory, *rest, **options)
        if host in self.refused:
            factory.clientConnectionFailed(connector, Failure(refused()))
        return connector


class ConnectingTestCase(SynchronousTestCase):
    """Connects on a reactor in memory, whose attempts end when told to."""

    def setUp(self) -> None:
        self.reactor: MemoryReactorClock = MemoryReactorClock()
        self.factory = Factory.forProtocol(Protocol)
        self.factory.noisy = False

    def connect(self, *addresses: RemoteAddress, **options: Any) -> Deferred[IProtocol]:
        return ensureDeferred(
            connect_to_any(self.reactor, "example.com:http", addresses, self.factory, **options)
        )

    def begun(self) -> list[str]:
        """Name the addresses of all attempts, in order."""
        return [client[0] for client in self.reactor.tcpClients]

    def answer(self, place: int) -> StringTransport:
        """Let an attempt succeed."""
        protocol = self.reactor.tcpClients[place][2].buildProtocol(None)
        assert protocol is not None
        transport = StringTransport()
        protocol.makeConnection(transport)
        return transport

    def refuse(self, place: int, error: Exception | None = None) -> None:
        """Let an attempt fail."""
        factory: Any = self.reactor.tcpClients[place][2]
        factory.clientConnectionFailed(self.reactor.connectors[place], Failure(error or refused()))

    def stopped(self) -> list[bool]:
        """Tell of each attempt whether it was called off."""
        return [connector.stoppedConnecting for connector in self.reactor.connectors]

    def assert_nothing_left(self) -> None:
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class OneAddressTests(ConnectingTestCase):
    """A single address."""

    def test_the_answer_is_the_connection(self) -> None:
        """What was built by the factory is given, connected."""
        connecting = self.connect(A)
        self.assertNoResult(connecting)
        transport = self.answer(0)
        protocol = self.successResultOf(connecting)
        assert isinstance(protocol, Protocol)
        self.assertIs(protocol.transport, transport)
        self.assert_nothing_left()

    def test_an_attempt_has_the_port_and_a_timeout(self) -> None:
        """An address that never answers does not hold the others for ever."""
        self.connect(A6)
        host, port, _factory, timeout, bind = self.reactor.tcpClients[0]
        self.assertEqual((host, port, timeout, bind), ("::1", 81, 30, None))

    def test_the_factory_is_told_of_its_use(self) -> None:
        """It starts and stops with the attempt, as under any of Twisted's connectors."""
        self.connect(A)
        attempt: Any = self.reactor.tcpClients[0][2]
        attempt.doStart()
        self.assertEqual(self.factory.numPorts, 1)
        attempt.doStop()
        self.assertEqual(self.factory.numPorts, 0)

    def test_a_zone_is_part_of_the_address(self) -> None:
        """A link-local address leads through its interface."""
        self.connect(IPv6Address("TCP", "fe80::1%eth0", 80))
        self.assertEqual(self.begun(), ["fe80::1%eth0"])

    def test_a_failure_is_the_end(self) -> None:
        """With nothing else to try there is nothing to wait for."""
        connecting = self.connect(A)
        self.refuse(0)
        self.reactor.advance(0)
        self.failureResultOf(connecting, ConnectError)
        self.assert_nothing_left()


class SeveralAddressesTests(ConnectingTestCase):
    """Attempts overlap where the first does not answer."""

    def test_silence_begins_the_next_after_a_while(self) -> None:
        """A further attempt begins beside one that has not ended."""
        self.connect(A, B, C)
        self.reactor.advance(ALMOST)
        self.assertEqual(self.begun(), [A.host])
        self.reactor.advance(0.01)
        self.assertEqual(self.begun(), [A.host, B.host])
        self.reactor.advance(ATTEMPT_DELAY)
        self.assertEqual(self.begun(), [A.host, B.host, C.host])

    def test_the_while_is_a_quarter_of_a_second(self) -> None:
        """As RFC 8305 recommends, section 5."""
        self.assertEqual(ATTEMPT_DELAY, 0.25)

    def test_a_failure_in_the_call_begins_the_next_at_once(self) -> None:
        """A machine may know at once that it cannot; the attempt after that has its full time."""
        self.reactor = HastyReactor(A.host)
        self.connect(A, B, C)
        self.reactor.advance(0)
        self.reactor.advance(ALMOST)
        self.assertEqual(self.begun(), [A.host, B.host])
        self.reactor.advance(0.01)
        self.assertEqual(self.begun(), [A.host, B.host, C.host])

    def test_failures_in_the_call_take_no_time(self) -> None:
        """When all have failed so, the end is there."""
        self.reactor = HastyReactor(A.host, B.host)
        connecting = self.connect(A, B)
        self.reactor.pump([0, 0, 0])
        self.failureResultOf(connecting, ConnectError)
        self.assert_nothing_left()

    def test_a_failure_begins_the_next_at_once(self) -> None:
        """Nobody waits for an attempt that has ended."""
        self.connect(A, B)
        self.refuse(0)
        self.reactor.advance(0)
        self.assertEqual(self.begun(), [A.host, B.host])

    def test_after_a_failure_the_next_has_its_full_time(self) -> None:
        """The delay is counted from the attempt before, not from a beat."""
        self.connect(A, B, C)
        self.reactor.advance(ALMOST)
        self.refuse(0)
        self.reactor.advance(0)
        self.reactor.advance(ALMOST)
        self.assertEqual(self.begun(), [A.host, B.host])
        self.reactor.advance(0.01)
        self.assertEqual(self.begun(), [A.host, B.host, C.host])

    def test_a_late_failure_begins_one_attempt_only(self) -> None:
        """The end of an earlier attempt does not let the ones to come go all at once."""
        self.connect(A, B, C, A6)
        self.reactor.advance(ATTEMPT_DELAY)
        self.refuse(0)
        self.reactor.advance(0)
        self.assertEqual(self.begun(), [A.host, B.host, C.host])

    def test_the_winner_calls_the_others_off(self) -> None:
        """The first answer counts, and one connection is all that is left."""
        connecting = self.connect(A, B, C)
        self.reactor.advance(ATTEMPT_DELAY)
        self.answer(1)
        self.successResultOf(connecting)
        self.assertEqual(self.stopped(), [True, False])
        self.assert_nothing_left()

    def test_an_earlier_attempt_may_still_win(self) -> None:
        """A further attempt does not end the one before."""
        connecting = self.connect(A, B)
        self.reactor.advance(ATTEMPT_DELAY)
        self.answer(0)
        self.successResultOf(connecting)
        self.assertEqual(self.stopped(), [False, True])

    def test_a_failure_does_not_spoil_a_later_success(self) -> None:
        """It takes one address that answers."""
        connecting = self.connect(A, B)
        self.refuse(0)
        self.reactor.advance(0)
        self.answer(1)
        self.successResultOf(connecting)
        self.assert_nothing_left()

    def test_the_last_may_answer_late(self) -> None:
        """When all have begun, the wait is for those that have not ended."""
        connecting = self.connect(A, B)
        self.reactor.advance(ATTEMPT_DELAY)
        self.refuse(0)
        self.reactor.pump([ATTEMPT_DELAY] * 20)
        self.assertNoResult(connecting)
        self.answer(1)
        self.successResultOf(connecting)
        self.assert_nothing_left()


class SerialTests(ConnectingTestCase):
    """One attempt after the other, where that is asked for."""

    def test_there_are_never_two_at_a_time(self) -> None:
        """However long one takes, the next waits for its end."""
        self.connect(A, B, is_serial=True)
        self.reactor.pump([3600] * 24)
        self.assertEqual(self.begun(), [A.host])

    def test_a_failure_begins_the_next_at_once(self) -> None:
        """Nobody waits for an attempt that has ended, however long it took."""
        self.connect(A, B, C, is_serial=True)
        for number, hosts in ((0, [A.host, B.host]), (1, [A.host, B.host, C.host])):
            self.reactor.advance(30)
            self.refuse(number, ConnectTimeout())
            self.reactor.advance(0)
            self.assertEqual(self.begun(), hosts)

    def test_the_last_failure_is_the_end(self) -> None:
        """Nothing waits for a turn that does not come."""
        connecting = self.connect(A, B, is_serial=True)
        for place in (0, 1):
            self.refuse(place)
            self.reactor.advance(0)
        self.failureResultOf(connecting, ConnectError)
        self.assert_nothing_left()

    def test_success_leaves_nothing_behind(self) -> None:
        """The attempts that were not needed are forgotten."""
        connecting = self.connect(A, B, is_serial=True)
        self.answer(0)
        self.successResultOf(connecting)
        self.assert_nothing_left()


class Refusing(MemoryReactorClock):
    """Makes no attempt at some hosts, as where a local address is of another family."""

    refused = ("127.0.0.1",)

    @override
    def connectTCP(self, host: str, *args: Any, **options: Any) -> Any:
        if host in self.refused:
            raise TypeError("AF_INET address must be a pair (host, port)")
        return super().connectTCP(host, *args, **options)


class NoAttemptTests(ConnectingTestCase):
    """An attempt that cannot even begin counts as one that failed."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = Refusing()

    def test_the_next_begins_at_once(self) -> None:
        """Also where only one may be under way."""
        for is_serial in (False, True):
            begun = len(self.begun())
            self.connect(IPv4Address("TCP", "127.0.0.1", 80), A6, is_serial=is_serial)
            self.reactor.advance(0)
            self.assertEqual(self.begun()[begun:], ["::1"])

    def test_it_is_told_of(self) -> None:
        """With the others, in words for people."""
        connecting = self.connect(IPv4Address("TCP", "127.0.0.1", 80))
        self.reactor.advance(0)
        error = self.failureResultOf(connecting, ConnectError).value
        self.assertEqual([attempt.address for attempt in error.attempts], ["127.0.0.1"])
        self.assertIn("must be a pair", str(error))
        self.assert_nothing_left()


class FailureTests(ConnectingTestCase):
    """All attempts fail."""

    def fail_all(self, *failures: tuple[RemoteAddress, Exception]) -> ConnectError:
        """Let one attempt after the other fail."""
        connecting = self.connect(*(address for address, _ in failures))
        for place, (_, error) in enumerate(failures):
            self.refuse(place, error)
            self.reactor.advance(0)
        error = self.failureResultOf(connecting, ConnectError).value
        assert isinstance(error, ConnectError)
        self.assert_nothing_left()
        return error

    def test_each_attempt_is_told(self) -> None:
        """Address, port and reason of each, in the order in which they failed."""
        attempts = self.fail_all((A6, no_local_address()), (A, refused())).attempts
        self.assertEqual(
            [(each.address, each.port) for each in attempts], [("::1", 81), (A.host, 80)]
        )
        self.assertEqual(
            [each.error.status for each in attempts],
            [
                SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS,
                SocketErrorStatus.CONNECTION_REFUSED,
            ],
        )

    def test_the_order_is_that_of_failing(self) -> None:
        """An attempt that began first may fail last."""
        connecting = self.connect(A, B)
        self.reactor.advance(ATTEMPT_DELAY)
        self.refuse(1)
        self.reactor.advance(0)
        self.refuse(0)
        error: Any = self.failureResultOf(connecting, ConnectError).value
        self.assertEqual([each.address for each in error.attempts], [B.host, A.host])

    def test_the_message_names_what_was_tried(self) -> None:
        """The host as it was asked for, and each address with its reason."""
        message = str(self.fail_all((A6, no_local_address()), (A, refused())))
        self.assertEqual(
            message,
            "cannot connect to example.com:http: ::1 port 81: Cannot assign requested address;"
            " 192.0.2.1 port 80: Connection refused",
        )

    def test_the_status_says_something_of_the_host(self) -> None:
        """A reason on this side, such as no IPv6, does not hide that the peer refuses."""
        error = self.fail_all((A6, no_local_address()), (A, refused()))
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_REFUSED)
        self.assertEqual(error.hresult, 0x8007274D)

    def test_the_first_of_several_reasons_counts(self) -> None:
        """What the host said first is what went wrong."""
        error = self.fail_all((A, refused()), (B, ConnectTimeout()))
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_REFUSED)

    def test_reasons_on_this_side_count_where_there_are_no_others(self) -> None:
        """Then the first of them is the status."""
        no_network = OSError(errno.ENETUNREACH, "Network is unreachable")
        error = self.fail_all((A6, no_network), (A, no_local_address()))
        self.assertIs(error.status, SocketErrorStatus.NETWORK_IS_UNREACHABLE)

    def test_a_reason_without_a_status_keeps_its_number(self) -> None:
        """What has no status of its own has an HRESULT all the same: here WSAEACCES."""
        error = self.fail_all((A, ConnectBindError(errno.EACCES, "Permission denied")))
        self.assertIs(error.status, SocketErrorStatus.UNKNOWN)
        self.assertEqual(error.hresult, 0x8007271D)

    def test_the_reason_stays_as_the_cause(self) -> None:
        """What Twisted failed with is not lost."""
        error = self.fail_all((A, refused()))
        self.assertIsInstance(error.__cause__, ConnectionRefusedError)
        self.assertIsInstance(error.attempts[0].error.__cause__, ConnectionRefusedError)

    def test_an_error_made_by_hand_has_no_attempts(self) -> None:
        """The attempts are facts added to a `SocketError`, and each is a frozen value."""
        self.assertEqual(ConnectError("no").attempts, ())
        self.assertTrue(issubclass(ConnectError, SocketError))
        attempt = Attempt("::1", 1, SocketError("no"))
        self.assertRaises(AttributeError, setattr, attempt, "port", 2)


class CancelTests(ConnectingTestCase):
    """Who gives up ends all attempts."""

    def test_all_attempts_are_called_off(self) -> None:
        """Those under way are stopped, and no other begins."""
        connecting = self.connect(A, B, C)
        self.reactor.advance(ATTEMPT_DELAY)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual(self.stopped(), [True, True])
        self.assert_nothing_left()

    def test_what_failed_before_does_not_matter(self) -> None:
        """A cancel is told as one, also between two attempts."""
        connecting = self.connect(A, B)
        self.refuse(0)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assert_nothing_left()

    def test_a_serial_attempt_is_called_off_too(self) -> None:
        """The turn that would come next is forgotten."""
        connecting = self.connect(A, B, is_serial=True)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual(self.stopped(), [True])
        self.assert_nothing_left()


class BindTests(ConnectingTestCase):
    """The local end may be chosen."""

    def bound(self, *addresses: RemoteAddress, bind: tuple[str, int] | None) -> list[object]:
        """Begin attempts, and give their local ends."""
        self.connect(*addresses, bind=bind)
        self.reactor.pump([ATTEMPT_DELAY] * len(addresses))
        return [client[4] for client in self.reactor.tcpClients]

    def test_left_open_it_is_the_systems_choice(self) -> None:
        """No attempt is bound to anything."""
        self.assertEqual(self.bound(A, A6, bind=None), [None, None])

    def test_a_local_address_is_passed_on(self) -> None:
        """As it was given, with its port."""
        self.assertEqual(self.bound(A, bind=("192.0.2.9", 4000)), [("192.0.2.9", 4000)])

    def test_a_port_alone_goes_with_any_address_of_the_family(self) -> None:
        """Each attempt needs the "any" of its own kind."""
        ends = self.bound(A6, A, bind=("", 4000))
        self.assertEqual(ends, [("::", 4000), ("0.0.0.0", 4000)])
