"""One call sends, and its error is that of whoever it belongs to."""

from __future__ import annotations

import errno
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.datagram.fake_udp import FakeUdp, error_of, refuse_runs
from tests.datagram.test_send_queue import Item, datagrams
from twsock.datagram.syscalls import DatagramCalls, describe_refusal, send_error
from twsock.errors import SocketError, SocketErrorStatus

RESET = SocketErrorStatus.CONNECTION_RESET_BY_PEER
UNREACHABLE = SocketErrorStatus.UNREACHABLE_HOST


class DatagramCallsTests(SynchronousTestCase):
    """What is sent, what is told, and what is given back."""

    def open(self, *judges: Any, plan: tuple[int, ...] = ()) -> None:
        self.udp = FakeUdp(*judges, plan=plan)
        self.refusals: list[SocketErrorStatus] = []
        self.goes_on = True
        udp: Any = self.udp
        self.calls = DatagramCalls(udp, self.tell)

    def tell(self, error: SocketError) -> bool:
        self.refusals.append(error.status)
        return self.goes_on

    def send_again(self, first: int) -> int | None:
        """Repeat the call of a datagram to the connected peer; give the errno of its own error."""
        error = self.calls.send_again(datagrams(9, address=None), error_of(first), is_run=False)
        return None if error is None else error.errno

    def test_a_run_is_one_call(self) -> None:
        """Of which the kernel knows the size."""
        self.open()
        self.assertIsNone(self.calls.send(datagrams(9, 9, 5), is_run=True))
        self.assertEqual((len(self.udp.calls), self.udp.sizes), (1, [9, 9, 5]))

    def test_each_by_itself_stops_at_the_first_error(self) -> None:
        """And tells how many left."""
        self.open(plan=(0, 0, errno.EAGAIN))
        for address in (None, ("127.0.0.1", 9)):
            self.udp.plan = [0, 0, errno.EAGAIN]
            done, error = self.calls.send_each(datagrams(9, 8, 7, 6, address=address))
            self.assertEqual((done, error and error.errno), (2, errno.EAGAIN))

    def test_what_python_cannot_send_is_an_error_too(self) -> None:
        """Not an exception in the middle of the others."""

        def judge(call: Any) -> int:
            raise OverflowError("port must be 0-65535.")

        self.open(judge)
        item = Item(b"a")
        for error in (self.calls.send([item], is_run=False), self.calls.send_each([item])[1]):
            self.assertEqual(error and error.errno, errno.EINVAL)

    def test_an_error_that_is_not_met_again_was_an_earlier_one_s(self) -> None:
        """It is told, and the datagram has left."""
        self.open()
        self.assertIsNone(self.send_again(errno.EHOSTUNREACH))
        self.assertEqual((self.refusals, self.udp.sizes), ([UNREACHABLE], [9]))

    def test_an_error_that_is_met_again_is_its_own(self) -> None:
        """Nothing is told."""
        self.open(plan=(errno.EMSGSIZE,))
        self.assertEqual(self.send_again(errno.EMSGSIZE), errno.EMSGSIZE)
        self.assertEqual(self.refusals, [])

    def test_a_refusal_in_between_is_an_earlier_one_s(self) -> None:
        """Whatever the datagram's own error is."""
        self.open(plan=(errno.ECONNREFUSED, errno.EMSGSIZE))
        self.assertEqual(self.send_again(errno.EMSGSIZE), errno.EMSGSIZE)
        self.assertEqual(self.refusals, [RESET])

    def test_who_is_told_may_end_it(self) -> None:
        """Then no more is tried."""
        self.open(plan=(errno.ECONNREFUSED,) * 5)
        self.goes_on = False
        self.assertEqual(self.send_again(errno.ECONNREFUSED), errno.ECONNREFUSED)
        self.assertEqual((self.refusals, len(self.udp.calls)), ([RESET], 1))

    def test_a_run_that_is_refused_is_not_told_as_a_refusal(self) -> None:
        """It is its own error, for the queue to deal with."""
        self.open(refuse_runs(errno.EINVAL))
        error = self.calls.send_again(
            datagrams(9, 9, address=None), error_of(errno.EINVAL), is_run=True
        )
        self.assertEqual((error and error.errno, self.refusals), (errno.EINVAL, []))

    def test_the_error_says_what_it_means_to_udp(self) -> None:
        """The kernel's own is its cause; others keep their status."""
        number = error_of(errno.ECONNREFUSED)
        error = describe_refusal(number)
        self.assertIs(error.status, RESET)
        self.assertIs(error.__cause__, number)
        self.assertIn("ICMP", str(error))
        self.assertIs(describe_refusal(error_of(errno.EHOSTUNREACH)).status, UNREACHABLE)

    def test_the_error_of_a_datagram_names_its_peer(self) -> None:
        """A connected socket has one peer, which needs no name."""
        error = error_of(errno.EHOSTUNREACH)
        self.assertIn("cannot send to 127.0.0.1: ", str(send_error(Item(b""), error)))
        to_peer = send_error(Item(b"", address=None), error)
        self.assertIn("cannot send to the connected peer: ", str(to_peer))
        self.assertIs(to_peer.status, UNREACHABLE)
