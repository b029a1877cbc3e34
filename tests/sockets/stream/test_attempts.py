"""Attempts to connect lead to one connection, or to an error that lists all attempts."""

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
from twsock.sockets.stream.attempts import ATTEMPT_DELAY, Attempt, ConnectError, connect_to_any

A, B, C = (IPv4Address("TCP", f"192.0.2.{number}", 80) for number in (1, 2, 3))
A6 = IPv6Address("TCP", "::1", 81)

#: Just before the next attempt is due.
ALMOST = ATTEMPT_DELAY - 0.01


def refused() -> Exception:
    return ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


def no_local_address() -> Exception:
    """Return the error of a machine without IPv6."""
    return ConnectBindError(errno.EADDRNOTAVAIL, "Cannot assign requested address")


class HastyReactor(MemoryReactorClock):
    """A reactor that refuses some attempts within the call that starts them."""

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
    """Connects on a reactor in memory; the test decides how each attempt ends."""

    def setUp(self) -> None:
        self.reactor: MemoryReactorClock = MemoryReactorClock()
        self.factory = Factory.forProtocol(Protocol)
        self.factory.noisy = False

    def connect(self, *addresses: RemoteAddress, **options: Any) -> Deferred[IProtocol]:
        return ensureDeferred(
            connect_to_any(self.reactor, "example.com:http", addresses, self.factory, **options)
        )

    def begun(self) -> list[str]:
        """Return the addresses of all attempts, in order."""
        return [client[0] for client in self.reactor.tcpClients]

    def answer(self, place: int) -> StringTransport:
        """Complete an attempt with success."""
        protocol = self.reactor.tcpClients[place][2].buildProtocol(None)
        assert protocol is not None
        transport = StringTransport()
        protocol.makeConnection(transport)
        return transport

    def refuse(self, place: int, error: Exception | None = None) -> None:
        """Fail an attempt."""
        factory: Any = self.reactor.tcpClients[place][2]
        factory.clientConnectionFailed(self.reactor.connectors[place], Failure(error or refused()))

    def stopped(self) -> list[bool]:
        """Return for each attempt whether it was cancelled."""
        return [connector.stoppedConnecting for connector in self.reactor.connectors]

    def assert_nothing_left(self) -> None:
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class OneAddressTests(ConnectingTestCase):
    """The destination has a single address."""

    def test_a_successful_attempt_returns_the_protocol(self) -> None:
        """The protocol is the one that the factory built, and is connected."""
        connecting = self.connect(A)
        self.assertNoResult(connecting)
        transport = self.answer(0)
        protocol = self.successResultOf(connecting)
        assert isinstance(protocol, Protocol)
        self.assertIs(protocol.transport, transport)
        self.assert_nothing_left()

    def test_an_attempt_has_the_port_and_a_timeout(self) -> None:
        """The timeout ends an attempt at an address that never answers."""
        self.connect(A6)
        host, port, _factory, timeout, bind = self.reactor.tcpClients[0]
        self.assertEqual((host, port, timeout, bind), ("::1", 81, 30, None))

    def test_the_factory_is_started_and_stopped(self) -> None:
        """The factory starts and stops with the attempt, as with any connector of Twisted."""
        self.connect(A)
        attempt: Any = self.reactor.tcpClients[0][2]
        attempt.doStart()
        self.assertEqual(self.factory.numPorts, 1)
        attempt.doStop()
        self.assertEqual(self.factory.numPorts, 0)

    def test_a_zone_is_part_of_the_address(self) -> None:
        """A link-local address needs its interface."""
        self.connect(IPv6Address("TCP", "fe80::1%eth0", 80))
        self.assertEqual(self.begun(), ["fe80::1%eth0"])

    def test_the_failure_of_the_only_address_ends_the_wait(self) -> None:
        """No other address can be tried."""
        connecting = self.connect(A)
        self.refuse(0)
        self.reactor.advance(0)
        self.failureResultOf(connecting, ConnectError)
        self.assert_nothing_left()


class SeveralAddressesTests(ConnectingTestCase):
    """Attempts overlap if the first address does not answer."""

    def test_without_an_answer_the_next_attempt_starts_after_the_delay(self) -> None:
        """The first attempt continues meanwhile."""
        self.connect(A, B, C)
        self.reactor.advance(ALMOST)
        self.assertEqual(self.begun(), [A.host])
        self.reactor.advance(0.01)
        self.assertEqual(self.begun(), [A.host, B.host])
        self.reactor.advance(ATTEMPT_DELAY)
        self.assertEqual(self.begun(), [A.host, B.host, C.host])

    def test_the_delay_is_a_quarter_of_a_second(self) -> None:
        """RFC 8305, section 5, recommends this delay."""
        self.assertEqual(ATTEMPT_DELAY, 0.25)

    def test_a_failure_within_the_call_starts_the_next_at_once(self) -> None:
        """The attempt after that has its full delay."""
        self.reactor = HastyReactor(A.host)
        self.connect(A, B, C)
        self.reactor.advance(0)
        self.reactor.advance(ALMOST)
        self.assertEqual(self.begun(), [A.host, B.host])
        self.reactor.advance(0.01)
        self.assertEqual(self.begun(), [A.host, B.host, C.host])

    def test_failures_within_the_call_take_no_time(self) -> None:
        """When all attempts fail within their calls, the wait ends at once."""
        self.reactor = HastyReactor(A.host, B.host)
        connecting = self.connect(A, B)
        self.reactor.pump([0, 0, 0])
        self.failureResultOf(connecting, ConnectError)
        self.assert_nothing_left()

    def test_a_failure_starts_the_next_attempt_at_once(self) -> None:
        """Without the rest of the delay."""
        self.connect(A, B)
        self.refuse(0)
        self.reactor.advance(0)
        self.assertEqual(self.begun(), [A.host, B.host])

    def test_after_a_failure_the_next_attempt_has_its_full_delay(self) -> None:
        """The delay counts from the start of the attempt before."""
        self.connect(A, B, C)
        self.reactor.advance(ALMOST)
        self.refuse(0)
        self.reactor.advance(0)
        self.reactor.advance(ALMOST)
        self.assertEqual(self.begun(), [A.host, B.host])
        self.reactor.advance(0.01)
        self.assertEqual(self.begun(), [A.host, B.host, C.host])

    def test_a_late_failure_starts_one_attempt_only(self) -> None:
        """The other remaining attempts keep their delays."""
        self.connect(A, B, C, A6)
        self.reactor.advance(ATTEMPT_DELAY)
        self.refuse(0)
        self.reactor.advance(0)
        self.assertEqual(self.begun(), [A.host, B.host, C.host])

    def test_the_first_success_cancels_the_other_attempts(self) -> None:
        """Exactly one connection remains."""
        connecting = self.connect(A, B, C)
        self.reactor.advance(ATTEMPT_DELAY)
        self.answer(1)
        self.successResultOf(connecting)
        self.assertEqual(self.stopped(), [True, False])
        self.assert_nothing_left()

    def test_an_earlier_attempt_may_still_succeed(self) -> None:
        """The start of the next attempt does not end the earlier one."""
        connecting = self.connect(A, B)
        self.reactor.advance(ATTEMPT_DELAY)
        self.answer(0)
        self.successResultOf(connecting)
        self.assertEqual(self.stopped(), [False, True])

    def test_a_success_after_failures_connects(self) -> None:
        """One address that answers is enough."""
        connecting = self.connect(A, B)
        self.refuse(0)
        self.reactor.advance(0)
        self.answer(1)
        self.successResultOf(connecting)
        self.assert_nothing_left()

    def test_the_last_attempt_may_succeed_late(self) -> None:
        """When all attempts have started, the wait lasts until the last one has ended."""
        connecting = self.connect(A, B)
        self.reactor.advance(ATTEMPT_DELAY)
        self.refuse(0)
        self.reactor.pump([ATTEMPT_DELAY] * 20)
        self.assertNoResult(connecting)
        self.answer(1)
        self.successResultOf(connecting)
        self.assert_nothing_left()


class SerialTests(ConnectingTestCase):
    """Attempts that must not overlap."""

    def test_attempts_never_overlap(self) -> None:
        """The next attempt does not start, however long one takes."""
        self.connect(A, B, is_serial=True)
        self.reactor.pump([3600] * 24)
        self.assertEqual(self.begun(), [A.host])

    def test_a_failure_starts_the_next_attempt_at_once(self) -> None:
        """However long the attempt took."""
        self.connect(A, B, C, is_serial=True)
        for number, hosts in ((0, [A.host, B.host]), (1, [A.host, B.host, C.host])):
            self.reactor.advance(30)
            self.refuse(number, ConnectTimeout())
            self.reactor.advance(0)
            self.assertEqual(self.begun(), hosts, (number, hosts))

    def test_the_last_failure_ends_the_wait(self) -> None:
        """The wait ends at once."""
        connecting = self.connect(A, B, is_serial=True)
        for place in (0, 1):
            self.refuse(place)
            self.reactor.advance(0)
        self.failureResultOf(connecting, ConnectError)
        self.assert_nothing_left()

    def test_a_success_leaves_no_timer(self) -> None:
        """The remaining attempts are not made."""
        connecting = self.connect(A, B, is_serial=True)
        self.answer(0)
        self.successResultOf(connecting)
        self.assert_nothing_left()


class Refusing(MemoryReactorClock):
    """A reactor that raises an error for some hosts, as for a local address of another family."""

    refused = ("127.0.0.1",)

    @override
    def connectTCP(self, host: str, *args: Any, **options: Any) -> Any:
        if host in self.refused:
            raise TypeError("AF_INET address must be a pair (host, port)")
        return super().connectTCP(host, *args, **options)


class NoAttemptTests(ConnectingTestCase):
    """An attempt that cannot start counts as failed."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = Refusing()

    def test_the_next_attempt_starts_at_once(self) -> None:
        """The delay of serial attempts does not apply."""
        for is_serial in (False, True):
            begun = len(self.begun())
            self.connect(IPv4Address("TCP", "127.0.0.1", 80), A6, is_serial=is_serial)
            self.reactor.advance(0)
            self.assertEqual(self.begun()[begun:], ["::1"], is_serial)

    def test_the_error_lists_it(self) -> None:
        """The list has the other attempts, too, and each reason as text."""
        connecting = self.connect(IPv4Address("TCP", "127.0.0.1", 80))
        self.reactor.advance(0)
        error = self.failureResultOf(connecting, ConnectError).value
        self.assertEqual([attempt.address for attempt in error.attempts], ["127.0.0.1"])
        self.assertIn("must be a pair", str(error))
        self.assert_nothing_left()


class FailureTests(ConnectingTestCase):
    """All attempts fail."""

    def fail_all(self, *failures: tuple[RemoteAddress, Exception]) -> ConnectError:
        """Fail the attempts, one after the other."""
        connecting = self.connect(*(address for address, _ in failures))
        for place, (_, error) in enumerate(failures):
            self.refuse(place, error)
            self.reactor.advance(0)
        error = self.failureResultOf(connecting, ConnectError).value
        assert isinstance(error, ConnectError)
        self.assert_nothing_left()
        return error

    def test_the_error_lists_each_attempt(self) -> None:
        """The list has address, port and reason, in the order of the failures."""
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

    def test_attempts_are_listed_in_the_order_of_failure(self) -> None:
        """The first attempt may fail last."""
        connecting = self.connect(A, B)
        self.reactor.advance(ATTEMPT_DELAY)
        self.refuse(1)
        self.reactor.advance(0)
        self.refuse(0)
        error: Any = self.failureResultOf(connecting, ConnectError).value
        self.assertEqual([each.address for each in error.attempts], [B.host, A.host])

    def test_the_message_names_host_and_addresses(self) -> None:
        """The message has the host as the caller wrote it, and each address with its reason."""
        message = str(self.fail_all((A6, no_local_address()), (A, refused())))
        self.assertEqual(
            message,
            "cannot connect to example.com:http: ::1 port 81: Cannot assign requested address;"
            " 192.0.2.1 port 80: Connection refused",
        )

    def test_the_status_is_that_of_the_host(self) -> None:
        """A reason on this machine, such as no IPv6, does not hide a refusal by the peer."""
        error = self.fail_all((A6, no_local_address()), (A, refused()))
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_REFUSED)
        self.assertEqual(error.hresult, 0x8007274D)

    def test_the_first_error_of_the_host_gives_the_status(self) -> None:
        """Later errors do not change the status."""
        error = self.fail_all((A, refused()), (B, ConnectTimeout()))
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_REFUSED)

    def test_errors_of_this_machine_count_without_others(self) -> None:
        """The status is that of the first such error."""
        no_network = OSError(errno.ENETUNREACH, "Network is unreachable")
        error = self.fail_all((A6, no_network), (A, no_local_address()))
        self.assertIs(error.status, SocketErrorStatus.NETWORK_IS_UNREACHABLE)

    def test_a_reason_without_a_status_keeps_its_number(self) -> None:
        """The error has the HRESULT of its reason: here WSAEACCES."""
        error = self.fail_all((A, ConnectBindError(errno.EACCES, "Permission denied")))
        self.assertIs(error.status, SocketErrorStatus.UNKNOWN)
        self.assertEqual(error.hresult, 0x8007271D)

    def test_the_error_of_twisted_is_the_cause(self) -> None:
        """The error of each attempt has the error of Twisted as its cause."""
        error = self.fail_all((A, refused()))
        self.assertIsInstance(error.__cause__, ConnectionRefusedError)
        self.assertIsInstance(error.attempts[0].error.__cause__, ConnectionRefusedError)

    def test_an_error_made_by_hand_has_no_attempts(self) -> None:
        """``attempts`` is added to a `SocketError`, and each attempt is a frozen value."""
        self.assertEqual(ConnectError("no").attempts, ())
        self.assertTrue(issubclass(ConnectError, SocketError))
        attempt = Attempt("::1", 1, SocketError("no"))
        self.assertRaises(AttributeError, setattr, attempt, "port", 2)


class CancelTests(ConnectingTestCase):
    """Cancelling ends all attempts."""

    def test_cancelling_ends_all_attempts(self) -> None:
        """Running attempts are stopped, and no further attempt starts."""
        connecting = self.connect(A, B, C)
        self.reactor.advance(ATTEMPT_DELAY)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual(self.stopped(), [True, True])
        self.assert_nothing_left()

    def test_earlier_failures_do_not_change_a_cancellation(self) -> None:
        """The same holds between two attempts."""
        connecting = self.connect(A, B)
        self.refuse(0)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assert_nothing_left()

    def test_cancelling_ends_a_serial_attempt(self) -> None:
        """The next attempt does not start."""
        connecting = self.connect(A, B, is_serial=True)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual(self.stopped(), [True])
        self.assert_nothing_left()


class BindTests(ConnectingTestCase):
    """The local end of attempts."""

    def bound(self, *addresses: RemoteAddress, bind: tuple[str, int] | None) -> list[object]:
        """Start attempts, and return their local ends."""
        self.connect(*addresses, bind=bind)
        self.reactor.pump([ATTEMPT_DELAY] * len(addresses))
        return [client[4] for client in self.reactor.tcpClients]

    def test_without_a_local_end_the_system_chooses(self) -> None:
        """No attempt binds a local address."""
        self.assertEqual(self.bound(A, A6, bind=None), [None, None])

    def test_a_local_address_is_passed_on(self) -> None:
        """Each attempt binds the given address and port."""
        self.assertEqual(self.bound(A, bind=("192.0.2.9", 4000)), [("192.0.2.9", 4000)])

    def test_a_local_port_alone_is_bound_on_all_addresses(self) -> None:
        """Each attempt uses the wildcard address of its family."""
        ends = self.bound(A6, A, bind=("", 4000))
        self.assertEqual(ends, [("::", 4000), ("0.0.0.0", 4000)])
