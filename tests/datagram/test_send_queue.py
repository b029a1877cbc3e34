"""Datagrams leave in order and in few calls, and each item is notified of its outcome."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis.strategies import booleans, composite, integers, lists, sampled_from
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.datagram.fake_udp import (
    OTHER,
    PEER,
    Address,
    Control,
    FakeUdp,
    Judge,
    limit_size,
    refuse_address,
    refuse_runs,
)
from twsock.datagram.send_queue import (
    OUTPUT_HIGH_WATER,
    DatagramOutput,
)
from twsock.errors import BusyError, ClosedError, SocketError, SocketErrorStatus
from twsock.wire.datagrams import MAX_IPV4_DATAGRAM, MAX_IPV6_DATAGRAM

TOO_LONG = SocketErrorStatus.MESSAGE_TOO_LONG
RESET = SocketErrorStatus.CONNECTION_RESET_BY_PEER
UNREACHABLE = ("192.0.2.9", 9)
CONTROL: Control = (0, 8, bytes(12))

#: Many times the rounds that any of these tests needs.
MOST_ROUNDS = 5000


class Item:
    """
    An item of the queue that records its outcome.

    :param then: called at each outcome.
    :ivar outcomes: "sent", or the status of an error.
    """

    def __init__(
        self,
        data: bytes,
        segment_size: int | None = None,
        address: Address | None = PEER,
        control: Control | None = None,
        then: Callable[[], object] = lambda: None,
    ) -> None:
        self.data = data
        self.segment_size = len(data) if segment_size is None else segment_size
        self.address = address
        self.control = control
        self.then = then
        self.outcomes: list[object] = []
        self.errors: list[SocketError] = []

    def sent(self) -> None:
        self.outcomes.append("sent")
        self.then()

    def failed(self, error: SocketError) -> None:
        self.outcomes.append(error.status)
        self.errors.append(error)
        self.then()


class Owner:
    """
    An owner of a queue that records its events.

    :ivar is_waiting: whether the queue waits for a writable socket.
    :ivar waits: how often it started to wait.
    :ivar is_over: whether the queue has ended.
    :ivar when_refused: called for each ICMP error.
    """

    def __init__(self) -> None:
        self.is_waiting = False
        self.waits = 0
        self.drained = 0
        self.is_over = False
        self.refusals: list[SocketErrorStatus] = []
        self.when_refused: Callable[[], object] = lambda: None

    def wait_until_writable(self, *, is_waiting: bool) -> None:
        self.is_waiting = is_waiting
        self.waits += is_waiting

    def output_drained(self) -> None:
        self.drained += 1

    def refused(self, error: SocketError) -> None:
        self.refusals.append(error.status)
        self.when_refused()

    def output_ended(self) -> None:
        self.is_over = True


class QueueSetup:
    """A send queue with a fake socket, a clock and an owner."""

    def __init__(self, udp: FakeUdp, *, has_runs: bool = True, **limits: Any) -> None:
        self.udp = udp
        self.owner = Owner()
        self.clock = Clock()
        socket: Any = udp
        clock: Any = self.clock
        self.output = DatagramOutput(socket, self.owner, clock, has_runs=has_runs, **limits)

    def push(self, *items: Item) -> None:
        """Push items together."""
        self.output.hold()
        for item in items:
            self.output.push(item)
        self.output.release()

    def drain(self) -> None:
        """Advance the clock and flush until the queue is empty."""
        for _ in range(MOST_ROUNDS):
            if self.output.is_empty:
                break
            if self.owner.is_waiting:
                self.output.flush()
            else:
                self.clock.advance(0.01)
        else:
            raise AssertionError("the queue does not drain")


def datagrams(*sizes: int, address: Address | None = PEER) -> list[Item]:
    """Create datagrams with different content."""
    return [
        Item(bytes([number % 256]) * size, address=address) for number, size in enumerate(sizes)
    ]


def outcomes(items: Iterable[Item]) -> list[object]:
    """Return the outcome of each item, which was notified once."""
    found = []
    for item in items:
        (outcome,) = item.outcomes
        found.append(outcome)
    return found


class GroupingTests(SynchronousTestCase):
    """Items leave in few calls."""

    def test_datagrams_of_one_size_leave_in_one_call(self) -> None:
        """The peer receives 64 separate datagrams."""
        queue = QueueSetup(FakeUdp())
        items = datagrams(*[100] * 64)
        queue.push(*items)
        self.assertEqual(len(queue.udp.calls), 1)
        self.assertEqual(queue.udp.sent, [(item.data, PEER) for item in items])
        self.assertEqual(outcomes(items), ["sent"] * 64)

    def test_a_shorter_datagram_ends_a_run(self) -> None:
        """The next datagram starts another run."""
        queue = QueueSetup(FakeUdp())
        queue.push(*datagrams(100, 100, 60, 100, 100))
        self.assertEqual([call.segment_size for call in queue.udp.calls], [100, 100])
        self.assertEqual(queue.udp.sizes, [100, 100, 60, 100, 100])

    def test_each_peer_has_its_own_call(self) -> None:
        """In the order pushed."""
        queue = QueueSetup(FakeUdp())
        items = [*datagrams(9, 9), *datagrams(9, 9, address=OTHER), *datagrams(9)]
        queue.push(*items)
        self.assertEqual([call.address for call in queue.udp.calls], [PEER, OTHER, PEER])
        self.assertEqual(queue.udp.sent, [(item.data, item.address) for item in items])

    def test_a_single_datagram_is_a_plain_send(self) -> None:
        """It has no segment size, but keeps its own control message."""
        for count in (1, 2):
            queue = QueueSetup(FakeUdp())
            queue.push(*[Item(b"abc", control=CONTROL) for _ in range(count)])
            (call,) = queue.udp.calls
            self.assertIs(call.is_run, count > 1, count)
            self.assertEqual(call.control, (CONTROL,), count)

    def test_a_run_of_shorter_datagrams_starts_another_call(self) -> None:
        """Two datagrams of 50 bytes follow one of 100."""
        queue = QueueSetup(FakeUdp())
        queue.push(Item(bytes(100)), Item(bytes(100), 50))
        self.assertEqual(queue.udp.sizes, [100, 50, 50])

    def test_without_a_hold_each_leaves_at_once(self) -> None:
        """The queue does not wait for a release."""
        queue = QueueSetup(FakeUdp())
        queue.output.push(Item(b"a"))
        self.assertEqual(len(queue.udp.sent), 1)

    def test_collected_items_can_be_sent_before_the_release(self) -> None:
        """Later items are collected again; without a hold nothing changes."""
        queue = QueueSetup(FakeUdp())
        queue.output.send_held()
        self.assertTrue(queue.output.hold())
        queue.output.push(Item(bytes(3)))
        queue.output.send_held()
        self.assertEqual(queue.udp.sizes, [3])
        queue.output.push(Item(bytes(2)))
        self.assertEqual(queue.udp.sizes, [3])
        queue.output.release()
        self.assertEqual(queue.udp.sizes, [3, 2])

    def test_only_the_hold_of_an_idle_queue_needs_a_release(self) -> None:
        """Otherwise an earlier hold or the next flush sends the items."""
        queue = QueueSetup(FakeUdp(plan=[errno.EAGAIN]))
        self.assertEqual((queue.output.hold(), queue.output.hold()), (True, False))
        queue.output.push(Item(b"a"))
        queue.output.release()
        self.assertTrue(queue.output.is_waiting)
        self.assertFalse(queue.output.hold())
        queue.output.push(Item(b"b"))
        queue.output.flush()
        self.assertEqual((queue.udp.sizes, queue.output.is_waiting), ([1, 1], False))

    def test_an_empty_datagram_has_a_call_of_its_own(self) -> None:
        """Also among others, and if there are two."""
        queue = QueueSetup(FakeUdp())
        queue.push(*datagrams(0, 0, 5, 5, 0), *datagrams(0, address=None))
        self.assertEqual(queue.udp.sizes, [0, 0, 5, 5, 0, 0])


class RefusedRunTests(SynchronousTestCase):
    """Datagrams leave one by one if kernel or route refuse a run."""

    def test_a_refused_run_has_the_same_result(self) -> None:
        """For each errno, and also on a connected socket."""
        for number in (errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP):
            for address in (PEER, None):
                queue = QueueSetup(FakeUdp(refuse_runs(number)))
                items = [*datagrams(9, 9, 4, address=address), Item(bytes(25), 10, address)]
                queue.push(*items)
                self.assertEqual(queue.udp.sizes, [9, 9, 4, 10, 10, 5], address)
                self.assertEqual(outcomes(items), ["sent"] * 4, address)
                self.assertEqual(queue.owner.refusals, [], address)

    def test_after_eio_no_further_run_is_tried(self) -> None:
        """EIO: the checksums of the segments would not be computed."""
        for number in (errno.EIO, errno.EOPNOTSUPP):
            queue = QueueSetup(FakeUdp(refuse_runs(number)))
            for size in (100, 50, 200):
                queue.push(*datagrams(size, size))
            self.assertEqual(queue.udp.runs, 1, number)

    def test_at_most_256_refusals_are_remembered(self) -> None:
        """Memory stays bounded for any number of peers; then runs are tried again."""
        peers = [(f"198.51.{number // 250}.{number % 250}", 9) for number in range(1000)]
        queue = QueueSetup(FakeUdp(refuse_runs(errno.EMSGSIZE)))
        for peer in peers:
            queue.push(*datagrams(9, 9, address=peer))
        self.assertEqual(queue.udp.runs, 1000)
        for peer in reversed(peers):
            queue.push(*datagrams(9, 9, address=peer))
        self.assertGreaterEqual(queue.udp.runs, 2000 - 256)
        self.assertLess(queue.udp.runs, 2000)
        self.assertEqual(len(queue.udp.sent), 4000)

    def test_a_refused_size_is_not_tried_again(self) -> None:
        """Nor a larger size; a smaller size is tried."""
        for number in (errno.EINVAL, errno.EMSGSIZE):
            queue = QueueSetup(FakeUdp(refuse_runs(number, least=100)))
            for size in (100, 100, 150):
                queue.push(*datagrams(size, size))
            self.assertEqual(queue.udp.runs, 1, number)
            queue.push(*datagrams(99, 99))
            self.assertEqual(queue.udp.runs, 2, number)
            self.assertEqual(len(queue.udp.calls), 1 + 6 + 1, number)

    def test_the_refused_size_is_the_segment_size(self) -> None:
        """It is not the size of the last datagram, which was shorter."""
        queue = QueueSetup(FakeUdp(refuse_runs(errno.EINVAL, least=100)))
        queue.push(*datagrams(100, 100, 10))
        queue.push(*datagrams(50, 50))
        self.assertEqual([call.segment_size for call in queue.udp.calls if call.is_run], [100, 50])

    def test_a_datagram_that_is_too_long_is_no_refusal_of_runs(self) -> None:
        """It fails alone as well, so runs are still tried."""
        queue = QueueSetup(FakeUdp(limit_size(1000)))
        items = datagrams(1400, 1400)
        queue.push(*items)
        self.assertEqual(outcomes(items), [TOO_LONG] * 2)
        queue.push(*datagrams(900, 900))
        self.assertEqual(queue.udp.calls[-1].segment_size, 900)

    def test_a_shorter_last_datagram_is_no_refusal_of_runs(self) -> None:
        """It is sent, and the longer ones before it fail."""
        queue = QueueSetup(FakeUdp(limit_size(1000)))
        items = datagrams(1400, 1400, 10)
        queue.push(*items)
        self.assertEqual(outcomes(items), [TOO_LONG, TOO_LONG, "sent"])
        queue.push(*datagrams(900, 900))
        self.assertEqual(queue.udp.calls[-1].segment_size, 900)

    def test_a_run_continues_after_the_datagrams_that_were_sent(self) -> None:
        """No datagram is sent twice."""
        for has_runs, plan in ((True, [0, 0, errno.EAGAIN]), (False, [0, errno.EAGAIN])):
            queue = QueueSetup(FakeUdp(refuse_runs(errno.EINVAL), plan=plan), has_runs=has_runs)
            run = Item(b"aabbc", 2)
            queue.push(run)
            self.assertEqual(queue.udp.sizes, [2], (has_runs, plan))
            self.assertEqual((run.outcomes, queue.owner.is_waiting), ([], True), (has_runs, plan))
            queue.output.flush()
            self.assertEqual(
                [data for data, _ in queue.udp.sent], [b"aa", b"bb", b"c"], (has_runs, plan)
            )
            self.assertEqual((run.outcomes, queue.output.unsent), (["sent"], 0), (has_runs, plan))

    def test_a_failure_in_a_run_is_reported_after_the_rest(self) -> None:
        """The first datagram is too long; the others are sent later."""
        plan = [0, 0, errno.EAGAIN]
        queue = QueueSetup(FakeUdp(limit_size(5), plan=plan))
        run = Item(bytes(13), 10)
        queue.push(run)
        queue.drain()
        self.assertEqual(queue.udp.sizes, [3])
        self.assertEqual(outcomes([run]), [TOO_LONG])

    def test_without_segmentation_no_run_is_tried(self) -> None:
        """An option turns it off."""
        queue = QueueSetup(FakeUdp(), has_runs=False)
        queue.push(*datagrams(9, 9, 9), Item(bytes(20), 10))
        self.assertEqual((queue.udp.runs, queue.udp.sizes), (0, [9, 9, 9, 10, 10]))


class WaitingTests(SynchronousTestCase):
    """Items wait while the kernel has no room; none is lost."""

    def test_without_room_the_queue_waits_until_the_socket_is_writable(self) -> None:
        """Then it stops waiting, and reports once that it has drained."""
        for size in (9, 10):
            queue = QueueSetup(FakeUdp(plan=[0, errno.EAGAIN]))
            items = datagrams(9, size, 20)
            queue.push(items[0])
            queue.push(*items[1:])
            self.assertEqual((queue.owner.is_waiting, queue.owner.drained), (True, 0), size)
            self.assertEqual((queue.output.is_full, queue.output.unsent), (True, size + 20), size)
            queue.output.flush()
            self.assertEqual((queue.owner.is_waiting, queue.owner.drained), (False, 1), size)
            self.assertEqual((queue.output.is_full, queue.output.unsent), (False, 0), size)
            self.assertEqual(queue.udp.sizes, [9, size, 20], size)

    def test_a_queue_that_was_never_full_reports_nothing(self) -> None:
        """Items that left at once did not make it full."""
        queue = QueueSetup(FakeUdp())
        queue.push(*datagrams(9, 8, 7))
        self.assertEqual((queue.owner.drained, queue.owner.waits), (0, 0))

    def test_the_owner_is_asked_to_wait_once(self) -> None:
        """The reactor already watches the socket."""
        queue = QueueSetup(FakeUdp(plan=[errno.EAGAIN] * 3))
        queue.push(*datagrams(9))
        for size in (8, 7):
            queue.output.push(Item(bytes(size)))
            queue.output.flush()
        self.assertEqual((queue.owner.waits, queue.owner.drained), (1, 0))
        queue.output.flush()
        self.assertEqual((queue.owner.drained, queue.udp.sizes), (1, [9, 8, 7]))

    def test_without_kernel_memory_the_queue_waits_for_the_clock(self) -> None:
        """The socket is writable all the time, so the reactor would call at once."""
        for number in (errno.ENOBUFS, errno.ENOMEM):
            queue = QueueSetup(FakeUdp(plan=[number]))
            items = datagrams(9, 9)
            queue.push(*items)
            calls = len(queue.udp.calls)
            queue.output.flush()
            queue.output.push(Item(b""))
            self.assertEqual((len(queue.udp.calls), queue.owner.waits), (calls, 0), number)
            self.assertTrue(queue.output.is_full, number)
            queue.clock.advance(0.01)
            self.assertEqual((outcomes(items), queue.owner.drained), (["sent"] * 2, 1), number)
            self.assertEqual(queue.clock.getDelayedCalls(), [], number)

    def test_an_event_without_kernel_memory_ends_without_a_call(self) -> None:
        """Items pushed in the event wait for the timer, behind all others."""
        queue = QueueSetup(FakeUdp(plan=[errno.ENOBUFS]))
        queue.push(Item(bytes(1)))
        queue.push(Item(bytes(2)))
        self.assertEqual(len(queue.udp.calls), 1)
        queue.clock.advance(0.01)
        self.assertEqual(queue.udp.sizes, [1, 2])

    def test_a_flush_while_items_are_collected_sends_them(self) -> None:
        """The release afterwards has nothing to send, with and without room."""
        for plan, sizes in (([], [1]), ([errno.EAGAIN], []), ([errno.ENOMEM], [])):
            queue = QueueSetup(FakeUdp(plan=plan))
            queue.output.hold()
            queue.output.push(Item(b"a"))
            queue.output.flush()
            queue.output.release()
            self.assertEqual((queue.udp.sizes, len(queue.udp.calls)), (sizes, 1), plan)
            queue.drain()
            self.assertEqual(queue.udp.sizes, [1], plan)

    def test_a_retry_and_a_wait_can_follow_each_other(self) -> None:
        """Only one of them is active."""
        queue = QueueSetup(FakeUdp(plan=[errno.EAGAIN, errno.ENOBUFS, errno.EAGAIN]))
        queue.push(*datagrams(9))
        waits = [queue.owner.is_waiting]
        queue.output.flush()
        waits.append(queue.owner.is_waiting)
        queue.clock.advance(0.01)
        waits.append(queue.owner.is_waiting)
        queue.output.flush()
        self.assertEqual((waits, queue.udp.sizes), ([True, False, True], [9]))

    def test_a_run_of_a_refused_size_waits_like_others(self) -> None:
        """It does not call the kernel again and again."""
        for number in (errno.EAGAIN, errno.ENOBUFS):
            queue = QueueSetup(FakeUdp(plan=[number] * 100), has_runs=False)
            queue.push(Item(bytes(20), 10))
            self.assertEqual(len(queue.udp.calls), 1, number)
            self.assertLessEqual(len(queue.clock.getDelayedCalls()), 1, number)

    def test_many_queued_bytes_make_the_queue_full(self) -> None:
        """From the high-water mark on; further items are accepted."""
        queue = QueueSetup(FakeUdp())
        queue.output.hold()
        queue.output.push_all(datagrams(*[1024] * (OUTPUT_HIGH_WATER // 1024 - 1)))
        self.assertFalse(queue.output.is_full)
        queue.output.push(Item(bytes(1024)))
        self.assertTrue(queue.output.is_full)
        queue.output.release()
        self.assertFalse(queue.output.is_full)
        # A sender may have paused, although no item had to wait for room.
        self.assertEqual((queue.owner.drained, queue.owner.waits), (1, 0))


class FailureTests(SynchronousTestCase):
    """A datagram that cannot be sent fails alone."""

    def test_the_largest_datagram_depends_on_the_family(self) -> None:
        """65,507 bytes on IPv4, 65,527 on IPv6; a longer one is refused at the call."""
        for host, most in (("127.0.0.1", MAX_IPV4_DATAGRAM), ("::1", MAX_IPV6_DATAGRAM)):
            queue = QueueSetup(FakeUdp(host=host))
            queue.push(Item(bytes(most)))
            self.assertEqual(queue.udp.sizes, [most], (host, most))
            error = self.assertRaises(SocketError, queue.output.push, Item(bytes(most + 1)))
            self.assertIs(error.status, TOO_LONG, (host, most))
            self.assertIn(str(most), str(error), (host, most))

    def test_a_datagram_that_is_too_long_fails_alone(self) -> None:
        """`push_all` raises nothing."""
        queue = QueueSetup(FakeUdp())
        items = datagrams(9, MAX_IPV4_DATAGRAM + 1, 9)
        queue.output.push_all(items)
        self.assertEqual(outcomes(items), ["sent", TOO_LONG, "sent"])

    def test_other_datagrams_leave_at_once(self) -> None:
        """The kernel has room, so no turn of the reactor passes."""
        for has_runs in (True, False):
            queue = QueueSetup(FakeUdp(limit_size(1000)), has_runs=has_runs)
            items = datagrams(8, 9, 1001, 10, 1002, 11)
            queue.push(*items)
            self.assertEqual(queue.udp.sizes, [8, 9, 10, 11], has_runs)
            self.assertEqual([o for o in outcomes(items) if o != "sent"], [TOO_LONG] * 2, has_runs)
            self.assertEqual((queue.owner.waits, queue.owner.drained), (0, 0), has_runs)

    def test_an_address_without_a_route_fails_alone(self) -> None:
        """The error contains the address and the kernel's reason."""
        queue = QueueSetup(FakeUdp(refuse_address(UNREACHABLE)))
        items = [*datagrams(8), *datagrams(9, address=UNREACHABLE), *datagrams(10)]
        queue.push(*items)
        queue.drain()
        unreachable = SocketErrorStatus.NETWORK_IS_UNREACHABLE
        self.assertEqual(outcomes(items), ["sent", unreachable, "sent"])
        self.assertIn(UNREACHABLE[0], str(items[1].errors[0]))
        self.assertIsInstance(items[1].errors[0].__cause__, OSError)

    def test_more_than_max_unsent_bytes_are_refused(self) -> None:
        """Queued items are sent; then there is room again."""
        queue = QueueSetup(FakeUdp(plan=[errno.EAGAIN]), max_unsent=100)
        queue.push(Item(bytes(101)))
        self.assertRaises(BusyError, queue.output.push, Item(b"a"))
        late = datagrams(5, 5)
        queue.output.push_all(late)
        self.assertEqual([type(item.errors[0]) for item in late], [BusyError] * 2)
        queue.output.flush()
        queue.output.push(Item(b"a"))
        self.assertEqual(queue.udp.sizes, [101, 1])

    def test_push_all_refuses_only_the_items_above_the_limit(self) -> None:
        """The others wait."""
        queue = QueueSetup(FakeUdp(plan=[errno.EAGAIN]), max_unsent=100)
        items = datagrams(60, 60, 60)
        queue.output.push_all(items)
        self.assertEqual([len(item.errors) for item in items], [0, 0, 1])
        queue.output.flush()
        self.assertEqual(outcomes(items)[:2], ["sent"] * 2)


class EarlierRefusalTests(SynchronousTestCase):
    """A connected socket reports an ICMP reply at the next call, to another datagram."""

    def test_an_icmp_error_is_reported_and_the_datagram_sent(self) -> None:
        """The error has the status of WinRT."""
        for count in (1, 2):
            queue = QueueSetup(FakeUdp())
            queue.udp.pending = [errno.ECONNREFUSED]
            items = datagrams(*[9] * count, address=None)
            queue.push(*items)
            self.assertEqual(queue.owner.refusals, [RESET], count)
            self.assertEqual(
                (outcomes(items), queue.udp.sizes), (["sent"] * count, [9] * count), count
            )

    def test_items_after_an_icmp_error_are_sent(self) -> None:
        """At once, since the kernel has room."""
        for sizes in ([9, 10, 11], [11, 10, 9], [9, 9, 10]):
            for has_runs in (True, False):
                queue = QueueSetup(FakeUdp(), has_runs=has_runs)
                queue.udp.pending = [errno.ECONNREFUSED]
                queue.push(*datagrams(*sizes, address=None))
                self.assertEqual(
                    (queue.udp.sizes, queue.owner.refusals), (sizes, [RESET]), has_runs
                )
                self.assertEqual(queue.owner.waits, 0, has_runs)

    def test_several_icmp_errors_are_each_reported(self) -> None:
        """Then the datagram is sent."""
        queue = QueueSetup(FakeUdp())
        queue.udp.pending = [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ECONNREFUSED]
        items = datagrams(9, address=None)
        queue.push(*items)
        self.assertEqual(queue.owner.refusals, [RESET, SocketErrorStatus.UNREACHABLE_HOST, RESET])
        self.assertEqual(outcomes(items), ["sent"])

    def test_an_error_that_repeats_fails_the_datagram(self) -> None:
        """No ICMP error is reported."""
        queue = QueueSetup(FakeUdp(refuse_address(None), plan=[]))  # type: ignore[arg-type]
        items = datagrams(9, address=None)
        queue.push(*items)
        self.assertEqual(outcomes(items), [SocketErrorStatus.NETWORK_IS_UNREACHABLE])
        self.assertEqual((queue.owner.refusals, len(queue.udp.calls)), ([], 2))

    def test_a_datagram_above_the_path_mtu_fails(self) -> None:
        """Also in a run, whose shorter last datagram is sent."""
        queue = QueueSetup(FakeUdp(limit_size(10)))
        items = datagrams(20, 20, 9, address=None)
        queue.push(*items)
        self.assertEqual(outcomes(items), [TOO_LONG, TOO_LONG, "sent"])
        self.assertEqual(queue.owner.refusals, [])

    def test_an_icmp_error_followed_by_no_room(self) -> None:
        """The error is reported, and the datagram waits."""
        queue = QueueSetup(FakeUdp(plan=[errno.EAGAIN]))
        queue.udp.pending = [errno.ECONNREFUSED]
        items = datagrams(9, address=None)
        queue.push(*items)
        self.assertEqual((queue.owner.refusals, queue.owner.is_waiting), ([RESET], True))
        queue.output.flush()
        self.assertEqual((outcomes(items), queue.owner.refusals), (["sent"], [RESET]))

    def test_endless_icmp_errors_fail_the_datagram(self) -> None:
        """After a limited number of calls."""
        queue = QueueSetup(FakeUdp(plan=[errno.ECONNREFUSED] * 1000))
        items = datagrams(9, address=None)
        queue.push(*items)
        self.assertEqual(len(outcomes(items)), 1)
        self.assertLess(len(queue.udp.calls), 20)


class ReentranceTests(SynchronousTestCase):
    """Callbacks may use the queue."""

    def test_items_pushed_by_a_callback_leave_last(self) -> None:
        """After all queued items, and without a release."""
        for has_runs in (True, False):
            queue = QueueSetup(FakeUdp(), has_runs=has_runs)
            items = datagrams(9, 9, 10, 11, 5)
            late = Item(bytes(7))
            items[0].then = lambda queue=queue, late=late: queue.output.push(late)  # type: ignore[misc]
            queue.push(*items)
            self.assertEqual(queue.udp.sizes, [9, 9, 10, 11, 5, 7], has_runs)
            self.assertEqual(outcomes([*items, late]), ["sent"] * 6, has_runs)

    def test_a_callback_may_hold_release_and_flush(self) -> None:
        """The current flush sends the items that the callback pushes, in order."""
        queue = QueueSetup(FakeUdp())
        late = datagrams(3, 4)

        def send_more() -> None:
            self.assertFalse(queue.output.hold())
            queue.output.push_all(late)
            queue.output.release()
            queue.output.flush()
            self.assertEqual([item.outcomes for item in late], [[], []])

        queue.push(Item(bytes(1), then=send_more), Item(bytes(2)))
        self.assertEqual(queue.udp.sizes, [1, 2, 3, 4])

    def test_items_pushed_without_room_wait_at_the_end(self) -> None:
        """They leave in the order pushed."""
        queue = QueueSetup(FakeUdp(plan=[0, errno.EAGAIN]))
        items = datagrams(9, 10, 11)
        late = Item(bytes(7))
        items[0].then = lambda: queue.output.push(late)
        queue.push(*items)
        queue.drain()
        self.assertEqual(queue.udp.sizes, [9, 10, 11, 7])

    def test_a_close_fails_every_queued_item(self) -> None:
        """Each once. Then the queue is empty, and the owner does not wait."""
        for number in (errno.EAGAIN, errno.ENOBUFS):
            queue = QueueSetup(FakeUdp(plan=[number]))
            items = datagrams(9, 9, 10)
            queue.push(*items)
            queue.output.close(lambda: ClosedError("closed"))
            self.assertEqual(outcomes(items), [SocketErrorStatus.OPERATION_ABORTED] * 3, number)
            self.assertEqual((queue.output.unsent, queue.clock.getDelayedCalls()), (0, []), number)
            self.assertTrue(queue.owner.is_over, number)
            queue.output.flush()
            self.assertEqual((queue.udp.sent, queue.owner.drained), ([], 0), number)

    def test_a_close_in_a_sent_callback_fails_the_rest(self) -> None:
        """With `ClosedError`."""
        self.close_in_the_middle(FakeUdp)

    def test_a_close_in_a_failed_callback_fails_the_rest(self) -> None:
        """Nothing more is sent."""
        self.close_in_the_middle(lambda: FakeUdp(refuse_address(PEER)))
        self.close_in_the_middle(lambda: FakeUdp(limit_size(5)))

    def test_a_close_while_a_run_is_sent_one_by_one_fails_the_rest(self) -> None:
        """With `ClosedError`."""
        for number in (errno.EIO, errno.EINVAL):
            self.close_in_the_middle(lambda number=number: FakeUdp(refuse_runs(number)))  # type: ignore[misc]
            self.close_in_the_middle(
                lambda number=number: FakeUdp(refuse_runs(number), limit_size(5))  # type: ignore[misc]
            )

    def close_in_the_middle(self, make: Callable[[], FakeUdp]) -> None:
        """Close in the callback of the first, second, … item; in runs and one by one."""
        for has_runs in (True, False):
            for chosen in range(6):
                queue = QueueSetup(make(), has_runs=has_runs)
                items = [*datagrams(9, 9, 9, 10), Item(bytes(25), 10), *datagrams(4)]
                closed = ClosedError("closed")

                def close(queue: QueueSetup = queue, closed: ClosedError = closed) -> None:
                    queue.output.close(lambda: closed)
                    queue.udp.close()

                items[chosen].then = close
                queue.push(*items)
                before, unsent = outcomes(items), queue.output.unsent
                self.assertEqual(unsent, 0, chosen)
                left = before.count("sent")
                self.assertGreaterEqual(len(queue.udp.sent), left, chosen)
                for item in items[chosen + 1 :]:
                    self.assertIn(item.outcomes, [["sent"], [closed.status], [TOO_LONG]], item)
                    # The closed socket was not used.
                    self.assertNotIn("Bad file", "".join(map(str, item.errors)), item)

    def test_a_close_in_a_refused_callback_fails_the_rest(self) -> None:
        """The datagram of that call may be sent already; later ones are not."""
        for sizes in ([9, 9, 9], [9, 10, 11], [11, 10, 9]):
            for has_runs in (True, False):
                queue = QueueSetup(FakeUdp(), has_runs=has_runs)
                queue.owner.when_refused = lambda queue=queue: (  # type: ignore[misc]
                    queue.output.close(lambda: ClosedError("closed")),
                    queue.udp.close(),
                )
                queue.udp.pending = [errno.ECONNREFUSED]
                items = datagrams(*sizes, address=None)
                queue.push(*items)
                self.assertEqual(outcomes(items).count("sent"), len(queue.udp.sent), has_runs)
                self.assertEqual((queue.output.unsent, queue.owner.waits), (0, 0), has_runs)

    def test_items_pushed_by_a_drained_report_leave_together_after_it(self) -> None:
        """The report collects items as any other event does."""
        queue = QueueSetup(FakeUdp(plan=[errno.EAGAIN]))
        seen: list[int] = []

        def send_more() -> None:
            for item in datagrams(9, 9):
                queue.output.push(item)
            seen.append(len(queue.udp.sent))

        queue.owner.output_drained = send_more  # type: ignore[method-assign]
        queue.push(Item(b"a"))
        queue.output.flush()
        self.assertEqual((seen, queue.udp.sizes), ([1], [1, 9, 9]))
        self.assertEqual((queue.udp.runs, queue.output.is_empty), (1, True))

    def test_a_flush_in_a_drained_report_sends_at_once(self) -> None:
        """The owner flushes before it closes the socket."""
        queue = QueueSetup(FakeUdp(plan=[errno.EAGAIN]))
        last = Item(b"last")

        def end() -> None:
            queue.output.push(last)
            queue.output.flush()
            queue.output.close(lambda: ClosedError("closed"))

        queue.owner.output_drained = end  # type: ignore[method-assign]
        queue.push(Item(b"a"))
        queue.output.flush()
        self.assertEqual((outcomes([last]), queue.owner.is_over), (["sent"], True))

    def test_a_queue_that_was_filled_is_reported_as_drained(self) -> None:
        """The report also follows if the items were withdrawn and not sent."""
        for then in ("sent", "withdrawn"):
            queue = QueueSetup(FakeUdp())
            items = datagrams(*[OUTPUT_HIGH_WATER // 4] * 4)
            queue.output.hold()
            queue.output.push_all(items)
            self.assertTrue(queue.output.is_full, then)
            for item in items if then == "withdrawn" else []:
                queue.output.withdraw(item)
            queue.output.release()
            self.assertEqual((queue.output.is_full, queue.owner.drained), (False, 1), then)

    def test_a_callback_that_fills_the_queue_is_told_when_it_has_drained(self) -> None:
        """A sender may wait for the report before it sends more."""
        queue = QueueSetup(FakeUdp())
        items = datagrams(*[OUTPUT_HIGH_WATER // 4] * 4)
        first = Item(b"a", then=lambda: queue.output.push_all(items))
        queue.push(first)
        self.assertEqual((outcomes(items), queue.owner.drained), (["sent"] * 4, 1))

    def test_a_close_while_items_are_collected_fails_them(self) -> None:
        """The release afterwards is harmless."""
        queue = QueueSetup(FakeUdp())
        items = datagrams(9, 9)
        queue.output.hold()
        queue.output.push_all(items)
        queue.output.close(lambda: ClosedError("closed"))
        queue.output.release()
        self.assertEqual(outcomes(items), [SocketErrorStatus.OPERATION_ABORTED] * 2)
        self.assertEqual(queue.udp.calls, [])

    def test_a_close_in_a_drained_report_ends_the_queue(self) -> None:
        """Items that were pushed in the report fail."""
        queue = QueueSetup(FakeUdp(plan=[errno.EAGAIN]))
        late = Item(b"late")

        def end() -> None:
            queue.output.push(late)
            queue.output.close(lambda: ClosedError("closed"))

        queue.owner.output_drained = end  # type: ignore[method-assign]
        queue.push(Item(b"a"))
        queue.output.flush()
        self.assertEqual(outcomes([late]), [SocketErrorStatus.OPERATION_ABORTED])
        self.assertEqual((queue.owner.is_over, queue.output.unsent), (True, 0))

    def test_a_callback_that_raises_does_not_stop_the_queue(self) -> None:
        """Items that were pushed meanwhile leave in the next turn of the reactor."""
        queue = QueueSetup(FakeUdp())
        late = Item(b"late")

        def fail() -> None:
            queue.output.push(late)
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, queue.push, Item(b"a", then=fail))
        queue.clock.advance(0)
        self.assertEqual(outcomes([late]), ["sent"])

    def test_an_item_pushed_after_a_close_is_refused(self) -> None:
        """The error is that of the first close; a second close is harmless."""
        queue = QueueSetup(FakeUdp())
        queue.output.close(lambda: ClosedError("closed"))
        queue.output.close(lambda: ClosedError("closed again"))
        self.assertEqual(
            str(self.assertRaises(ClosedError, queue.output.push, Item(b""))), "closed"
        )
        queue.push()
        self.assertEqual((queue.udp.calls, queue.output.is_empty), ([], True))

    def test_items_pushed_after_a_close_fail(self) -> None:
        """Each is notified."""
        queue = QueueSetup(FakeUdp())
        queue.output.close(lambda: ClosedError("closed"))
        items = datagrams(9, 9)
        queue.output.push_all(items)
        self.assertEqual(outcomes(items), [SocketErrorStatus.OPERATION_ABORTED] * 2)
        self.assertEqual((queue.udp.calls, queue.output.unsent), ([], 0))


class FairnessTests(SynchronousTestCase):
    """Callbacks that always send do not block the reactor."""

    def test_a_repeated_send_at_each_failure_continues_in_the_next_turn(self) -> None:
        """The current turn ends."""
        queue = QueueSetup(FakeUdp(refuse_address(PEER)))
        again: list[Item] = []

        def send() -> None:
            if len(again) < 1000:
                again.append(Item(b"a", then=send))
                queue.output.push(again[-1])

        send()
        self.assertLess(len(again), 100)
        self.assertEqual(len(queue.clock.getDelayedCalls()), 1)
        before = len(again)
        queue.clock.advance(0)
        self.assertGreater(len(again), before)
        for _ in range(100):
            queue.clock.advance(0)
        self.assertEqual(len(again), 1000)

    def test_refilling_at_each_drained_event_continues_in_the_next_turn(self) -> None:
        """Calls do not nest."""
        queue = QueueSetup(FakeUdp())
        rounds = 0

        def fill() -> None:
            nonlocal rounds
            rounds += 1
            if rounds < 50:
                queue.output.hold()
                while not queue.output.is_full:
                    queue.output.push(Item(bytes(60_000)))
                queue.output.release()

        queue.owner.output_drained = fill  # type: ignore[method-assign]
        fill()
        self.assertLess(rounds, 5)
        for _ in range(100):
            queue.clock.advance(0)
        self.assertEqual((rounds, queue.output.unsent), (50, 0))


class BoundTests(SynchronousTestCase):
    """The number of queued items is bounded."""

    def test_a_million_items_are_the_limit(self) -> None:
        """Empty datagrams have no bytes, but take memory."""
        queue = QueueSetup(FakeUdp())
        queue.output.hold()
        item = Item(b"")
        queue.output.push_all([item] * 1_000_000)
        with self.assertRaisesRegex(BusyError, "1000000 datagrams"):
            queue.output.push(Item(b""))

    def test_a_peer_that_refuses_runs_does_not_affect_other_peers(self) -> None:
        """Runs to other peers are still tried."""
        narrow = QueueSetup(
            FakeUdp(lambda call: errno.EMSGSIZE if call.is_run and call.address == OTHER else 0)
        )
        narrow.push(*datagrams(900, 900, address=OTHER))
        narrow.push(*datagrams(900, 900, address=OTHER))
        narrow.push(*datagrams(900, 900))
        self.assertEqual((narrow.udp.runs, narrow.udp.sizes), (2, [900] * 6))


class WithdrawTests(SynchronousTestCase):
    """Queued items can be withdrawn."""

    def test_a_withdrawn_item_is_neither_sent_nor_notified(self) -> None:
        """Other items are sent."""
        queue = QueueSetup(FakeUdp(plan=[errno.EAGAIN]))
        items = datagrams(9, 9, 9)
        queue.push(*items)
        self.assertTrue(queue.output.withdraw(items[1]))
        self.assertEqual(queue.output.unsent, 18)
        queue.output.flush()
        self.assertEqual([item.outcomes for item in items], [["sent"], [], ["sent"]])

    def test_a_sent_item_cannot_be_withdrawn(self) -> None:
        """Nor an item that was withdrawn before."""
        queue = QueueSetup(FakeUdp())
        item = Item(b"a")
        queue.push(item)
        self.assertFalse(queue.output.withdraw(item))

    def test_an_item_that_the_kernel_refuses_cannot_be_withdrawn(self) -> None:
        """Its call has failed; after a lack of room it can be withdrawn."""
        for number, is_refused in ((errno.EMSGSIZE, True), (errno.EAGAIN, False)):
            queue = QueueSetup(FakeUdp(plan=[0, number]))
            last = Item(bytes(2))
            withdrawn: list[bool] = []

            def withdraw(
                queue: QueueSetup = queue, last: Item = last, found: list[bool] = withdrawn
            ) -> None:
                found.append(queue.output.withdraw(last))

            queue.push(Item(bytes(1), then=withdraw), last)
            queue.drain()
            self.assertEqual(withdrawn, [not is_refused], number)
            self.assertEqual(last.outcomes, [TOO_LONG] if is_refused else [], number)
            self.assertEqual(queue.output.unsent, 0, number)

    @given(
        lists(sampled_from((1, 1, 1, 2)), min_size=1, max_size=150),
        lists(integers(min_value=0, max_value=199), max_size=200),
        integers(min_value=1, max_value=70),
    )
    @settings(max_examples=60, deadline=None)
    def test_any_queued_item_can_be_withdrawn_at_any_time(
        self, sizes: list[int], withdrawals: list[int], pause: int
    ) -> None:
        """Between two flushes and during callbacks; the rest is sent once and in order."""
        queue = QueueSetup(FakeUdp(plan=[errno.EAGAIN]))
        items = datagrams(*sizes)
        wanted = iter(withdrawals)
        taken_back: list[Item] = []

        def take_back() -> None:
            place = next(wanted, None)
            if place is not None:
                item = items[place % len(items)]
                is_there = not item.outcomes and item not in taken_back
                if is_there and queue.output.withdraw(item):
                    taken_back.append(item)

        for item in items:
            item.then = take_back
        queue.push(*items)
        for number, _ in enumerate(withdrawals):
            take_back()
            if number % pause == 0:
                queue.udp.plan = [0, errno.EAGAIN]
                queue.output.flush()
        queue.udp.plan = []
        queue.drain()
        left = [item for item in items if item not in taken_back]
        self.assertEqual([item.outcomes for item in taken_back], [[]] * len(taken_back))
        self.assertEqual([item.outcomes for item in left], [["sent"]] * len(left))
        self.assertEqual([data for data, _ in queue.udp.sent], [item.data for item in left])
        self.assertEqual(queue.output.unsent, 0)

    def test_withdrawing_the_last_item_drains_the_queue(self) -> None:
        """At the next writable event; then the owner does not wait."""
        queue = QueueSetup(FakeUdp(plan=[errno.EAGAIN]))
        item = Item(b"a")
        queue.push(item)
        queue.output.withdraw(item)
        queue.output.flush()
        self.assertEqual((queue.owner.is_waiting, queue.owner.drained), (False, 1))
        self.assertEqual((queue.udp.sent, queue.output.is_full), ([], False))


#: Calls of an owner, events of the kernel and the clock, and pushes of different size.
steps = sampled_from(
    [
        *["hold", "release", "writable", "timer", "withdraw", "awaited", "many"],
        *["one"] * 3,
        *["small"] * 3,
        *["large"] * 3,
    ]
)


class AnyOrderTests(SynchronousTestCase):
    """
    In any order of events, items leave in the order of their pushes, each is notified once, and
    each wait of a sender ends.
    """

    queue: QueueSetup
    items: list[Item]
    withdrawn: list[Item]
    #: Steps that the next callbacks take.
    inner_steps: Iterator[str]
    #: How many holds need a release.
    holds: int
    #: Whether the queue was seen full since the last report; how many reports there were then.
    awaits_report: bool
    drained_before: int

    def take_step(self, step: str) -> None:
        """Do a step, also within a callback of the queue."""
        queue, output = self.queue, self.queue.output
        if step == "hold":
            self.holds += output.hold()
        elif step == "release" and self.holds:
            self.holds -= 1
            output.release()
        elif step == "writable":
            output.flush()
        elif step == "timer":
            queue.clock.advance(0.01)
        elif step == "withdraw":
            self.withdrawn += [
                item
                for item in self.items[-2:]
                if not item.outcomes and item not in self.withdrawn and output.withdraw(item)
            ]
        elif step == "awaited" and self.holds:
            # The caller of `hold` waits meanwhile, so it cannot release.
            holds, self.holds = self.holds, 0
            output.send_held()
            self.holds += holds
        elif step == "one":
            self.items.append(Item(self.number(9), then=self.next_inner_step))
            output.push(self.items[-1])
        elif step in ("small", "large", "many"):
            size, count = {"small": (9, 1), "large": (60_000, 1), "many": (40_000, 4)}[step]
            made = []
            for _ in range(count):
                made.append(Item(self.number(size), then=self.next_inner_step))
                self.items.append(made[-1])
            output.push_all(made)

    def number(self, size: int) -> bytes:
        """Return the bytes of the next item, which begin with its number."""
        return len(self.items).to_bytes(4, "big") + bytes(size - 4)

    def next_inner_step(self) -> None:
        # The clock makes no call within another.
        step = next(self.inner_steps, "")
        if step != "timer":
            self.take_step(step)

    def check(self, step: str) -> None:
        """Queued items wait for exactly one event that will happen."""
        output, owner = self.queue.output, self.queue.owner
        calls = self.queue.clock.getDelayedCalls()
        self.assertEqual(owner.is_waiting, output.is_waiting, step)
        self.assertLessEqual(len(calls) + owner.is_waiting, 1, step)
        if not output.is_empty or output.is_full:
            self.assertTrue(calls or owner.is_waiting or self.holds, step)
        if output.is_full:
            self.awaits_report = True
        elif self.awaits_report:
            self.assertGreater(owner.drained, self.drained_before, step)
            self.awaits_report = False
        self.drained_before = owner.drained

    @settings(deadline=None)
    @given(
        lists(steps, max_size=30),
        lists(steps, max_size=30),
        lists(sampled_from([0, 0, errno.EAGAIN, errno.ENOBUFS, errno.EMSGSIZE]), max_size=20),
        booleans(),
    )
    def test_each_item_is_notified_once_and_each_wait_ends(
        self, outer: list[str], inner: list[str], plan: list[int], has_runs: bool
    ) -> None:
        """Callbacks and the report of a drained queue make calls, too."""
        self.queue = QueueSetup(FakeUdp(plan=plan), has_runs=has_runs)
        self.items, self.withdrawn = [], []
        self.inner_steps = iter(inner)
        self.holds = self.drained_before = 0
        self.awaits_report = False
        owner, count = self.queue.owner, self.queue.owner.output_drained

        def drained() -> None:
            count()
            self.assertFalse(self.queue.output.is_full)
            self.next_inner_step()

        owner.output_drained = drained  # type: ignore[method-assign]
        for step in outer:
            self.take_step(step)
            self.check(step)
        self.inner_steps = iter(())
        while self.holds:
            self.take_step("release")
        for _ in range(MOST_ROUNDS):
            if not (self.queue.clock.getDelayedCalls() or owner.is_waiting):
                break
            self.take_step("writable" if owner.is_waiting else "timer")
            self.check("the end")
        self.assertEqual((self.queue.output.is_empty, self.queue.output.is_full), (True, False))
        for number, item in enumerate(self.items):
            self.assertEqual(len(item.outcomes), item not in self.withdrawn, number)
        sent = [number for number, item in enumerate(self.items) if item.outcomes == ["sent"]]
        found = [int.from_bytes(data[:4], "big") for data, _ in self.queue.udp.sent]
        self.assertEqual(found, sent)


#: The kernel's answers to a run; the last is the option that turns runs off.
KERNELS: list[tuple[Judge | None, bool]] = [
    (None, True),
    (refuse_runs(errno.EIO), True),
    (refuse_runs(errno.EINVAL), True),
    (refuse_runs(errno.EMSGSIZE), True),
    (refuse_runs(errno.EINVAL, least=100), True),
    (None, False),
]

#: The path MTU of a peer.
MTU = 1000


@composite
def sendings(draw: Any) -> tuple[int, int, int]:
    """Generate a size, a segment size and the number of a peer."""
    size = draw(sampled_from([0, 1, 9, 9, 9, 50, 100, 100, 100, MTU, MTU + 1, 65_507, 65_508]))
    segment_size, peer = size, draw(sampled_from([0, 0, 0, 1, 2]))
    if 0 < size <= MTU + 1 and draw(booleans()) and draw(booleans()):
        count = draw(integers(min_value=2, max_value=64))
        size = min((count - 1) * size + draw(integers(min_value=1, max_value=size)), 65_507)
    return size, segment_size, peer


#: Errors of the kernel for calls that would otherwise succeed.
answers = lists(sampled_from([0, 0, 0, errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM]), max_size=30)


class SameResultTests(SynchronousTestCase):
    """Segmentation does not change the result."""

    @settings(deadline=None)
    @given(lists(lists(sendings(), max_size=12), max_size=6), answers)
    def test_the_result_is_the_same_with_and_without_runs(
        self, batches: list[list[tuple[int, int, int]]], plan: list[int]
    ) -> None:
        """The same datagrams in the same order, the same failures, one notification each."""
        peers = [PEER, OTHER, UNREACHABLE]
        for judge, has_runs in KERNELS:
            judges = [limit_size(MTU), refuse_address(UNREACHABLE)]
            queue = QueueSetup(
                FakeUdp(*([judge] if judge else []), *judges, plan=plan), has_runs=has_runs
            )
            items: list[Item] = []
            expected: list[tuple[bytes, Address | None]] = []
            wanted: list[object] = []
            for batch in batches:
                made = [
                    Item(bytes([len(items) + n & 255]) * size, segment_size, peers[peer])
                    for n, (size, segment_size, peer) in enumerate(batch)
                ]
                items += made
                for item in made:
                    left, outcome = expected_result(item)
                    expected += left
                    wanted.append(outcome)
                queue.output.push_all(made)
            queue.drain()
            self.assertEqual(queue.udp.sent, expected, (judge, has_runs))
            self.assertEqual(outcomes(items), wanted, (judge, has_runs))
            self.assertEqual(
                (queue.output.unsent, queue.owner.is_waiting), (0, False), (judge, has_runs)
            )
            self.assertLessEqual(queue.owner.drained, len(batches) + len(plan), (judge, has_runs))
            self.assertEqual(queue.clock.getDelayedCalls(), [], (judge, has_runs))

    @settings(deadline=None)
    @given(
        lists(lists(sampled_from([0, 9, 9, 9, 50, 100, 100]), max_size=8), max_size=6),
        lists(sampled_from([0, 0, errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED]), max_size=30),
    )
    def test_a_connected_socket_loses_no_datagram_to_icmp_errors(
        self, batches: list[list[int]], plan: list[int]
    ) -> None:
        """Each error is reported once, and every datagram is sent."""
        for judge, has_runs in KERNELS:
            # More errors in a row would fail the datagram.
            tame = [n for i, n in enumerate(plan) if n == 0 or plan[i - 1 : i] != [n]]
            queue = QueueSetup(FakeUdp(*([judge] if judge else []), plan=tame), has_runs=has_runs)
            items = [datagrams(*sizes, address=None) for sizes in batches]
            for batch in items:
                queue.output.push_all(batch)
            queue.drain()
            flat = [item for batch in items for item in batch]
            self.assertEqual(outcomes(flat), ["sent"] * len(flat), (judge, has_runs))
            self.assertEqual(
                queue.udp.sent, [(item.data, None) for item in flat], (judge, has_runs)
            )
            met = tame[: len(tame) - len(queue.udp.plan)].count(errno.ECONNREFUSED)
            self.assertEqual(queue.owner.refusals, [RESET] * met, (judge, has_runs))


def expected_result(item: Item) -> tuple[list[tuple[bytes, Address | None]], object]:
    """Return the datagrams that are sent, and the expected notification."""
    size = item.segment_size or 1
    data = [item.data[start : start + size] for start in range(0, len(item.data) or 1, size)]
    if item.segment_size > MAX_IPV4_DATAGRAM:
        return [], TOO_LONG
    if item.address == UNREACHABLE:
        # A kernel would check the address first; the fake checks the length first.
        is_too_long = len(data[-1]) > MTU
        return [], TOO_LONG if is_too_long else SocketErrorStatus.NETWORK_IS_UNREACHABLE
    left = [(piece, item.address) for piece in data if len(piece) <= MTU]
    return left, "sent" if len(left) == len(data) else TOO_LONG
