"""What is sent leaves in order, in few calls, and everybody is told what became of it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
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

#: Many times what any of these tests needs.
MOST_ROUNDS = 5000


class Item:
    """
    What is sent.

    :param then: called when it is told what became of it.
    :ivar outcomes: what it was told: "sent", or the status of an error.
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
    Is told of everything.

    :ivar is_waiting: whether it is to say when there is room.
    :ivar waits: how often it was asked to.
    :ivar is_over: whether it was said that nothing more will be told.
    :ivar when_refused: called for each earlier datagram that was refused.
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


class Exit:
    """An output with all that is around it."""

    def __init__(self, udp: FakeUdp, *, has_runs: bool = True, **limits: Any) -> None:
        self.udp = udp
        self.owner = Owner()
        self.clock = Clock()
        socket: Any = udp
        clock: Any = self.clock
        self.output = DatagramOutput(socket, self.owner, clock, has_runs=has_runs, **limits)

    def push(self, *items: Item) -> None:
        """Send together."""
        self.output.hold()
        for item in items:
            self.output.push(item)
        self.output.release()

    def drain(self) -> None:
        """Give it time and room until all has left."""
        for _ in range(MOST_ROUNDS):
            if self.output.is_empty:
                break
            if self.owner.is_waiting:
                self.output.flush()
            else:
                self.clock.advance(0.01)
        else:
            raise AssertionError("it never drains")


def datagrams(*sizes: int, address: Address | None = PEER) -> list[Item]:
    """Make datagrams that differ."""
    return [
        Item(bytes([number % 256]) * size, address=address) for number, size in enumerate(sizes)
    ]


def outcomes(items: Iterable[Item]) -> list[object]:
    """Give what became of each, which has been told once."""
    told = []
    for item in items:
        (outcome,) = item.outcomes
        told.append(outcome)
    return told


class GroupingTests(SynchronousTestCase):
    """Few calls are made."""

    def test_equal_datagrams_are_one_call(self) -> None:
        """64 of them; each leaves as it is."""
        way = Exit(FakeUdp())
        items = datagrams(*[100] * 64)
        way.push(*items)
        self.assertEqual(len(way.udp.calls), 1)
        self.assertEqual(way.udp.sent, [(item.data, PEER) for item in items])
        self.assertEqual(outcomes(items), ["sent"] * 64)

    def test_a_shorter_one_leaves_with_those_before_it(self) -> None:
        """What comes after it begins the next."""
        way = Exit(FakeUdp())
        way.push(*datagrams(100, 100, 60, 100, 100))
        self.assertEqual([call.segment_size for call in way.udp.calls], [100, 100])
        self.assertEqual(way.udp.sizes, [100, 100, 60, 100, 100])

    def test_peers_have_calls_of_their_own(self) -> None:
        """In the order sent."""
        way = Exit(FakeUdp())
        items = [*datagrams(9, 9), *datagrams(9, 9, address=OTHER), *datagrams(9)]
        way.push(*items)
        self.assertEqual([call.address for call in way.udp.calls], [PEER, OTHER, PEER])
        self.assertEqual(way.udp.sent, [(item.data, item.address) for item in items])

    def test_a_single_one_is_a_plain_send(self) -> None:
        """Nothing is to be cut; what else the kernel is to know goes along."""
        for count in (1, 2):
            way = Exit(FakeUdp())
            way.push(*[Item(b"abc", control=CONTROL) for _ in range(count)])
            (call,) = way.udp.calls
            self.assertIs(call.is_run, count > 1)
            self.assertEqual(call.control, (CONTROL,))

    def test_a_run_of_shorter_ones_is_not_joined_to_longer(self) -> None:
        """Two of 50 behind one of 100 stay two."""
        way = Exit(FakeUdp())
        way.push(Item(bytes(100)), Item(bytes(100), 50))
        self.assertEqual(way.udp.sizes, [100, 50, 50])

    def test_without_a_hold_each_leaves_at_once(self) -> None:
        """Nothing waits for a release that does not come."""
        way = Exit(FakeUdp())
        way.output.push(Item(b"a"))
        self.assertEqual(len(way.udp.sent), 1)

    def test_an_empty_datagram_is_one(self) -> None:
        """Also among others, and where there are two."""
        way = Exit(FakeUdp())
        way.push(*datagrams(0, 0, 5, 5, 0), *datagrams(0, address=None))
        self.assertEqual(way.udp.sizes, [0, 0, 5, 5, 0, 0])


class RefusedRunTests(SynchronousTestCase):
    """Where kernel or route cannot cut, datagrams leave one by one."""

    def test_nobody_can_tell_from_the_result(self) -> None:
        """Whatever the kernel says, and also on a connected socket."""
        for number in (errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP):
            for address in (PEER, None):
                way = Exit(FakeUdp(refuse_runs(number)))
                items = [*datagrams(9, 9, 4, address=address), Item(bytes(25), 10, address)]
                way.push(*items)
                self.assertEqual(way.udp.sizes, [9, 9, 4, 10, 10, 5])
                self.assertEqual(outcomes(items), ["sent"] * 4)
                self.assertEqual(way.owner.refusals, [])

    def test_a_kernel_that_cannot_cut_is_not_asked_again(self) -> None:
        """EIO: nobody computes the checksums of what it would cut."""
        for number in (errno.EIO, errno.EOPNOTSUPP):
            way = Exit(FakeUdp(refuse_runs(number)))
            for size in (100, 50, 200):
                way.push(*datagrams(size, size))
            self.assertEqual(way.udp.runs, 1)

    def test_not_more_than_256_refusals_are_remembered(self) -> None:
        """Whoever sends to ever more peers takes no ever more memory; runs are tried again."""
        peers = [(f"198.51.{number // 250}.{number % 250}", 9) for number in range(1000)]
        way = Exit(FakeUdp(refuse_runs(errno.EMSGSIZE)))
        for peer in peers:
            way.push(*datagrams(9, 9, address=peer))
        self.assertEqual(way.udp.runs, 1000)
        for peer in reversed(peers):
            way.push(*datagrams(9, 9, address=peer))
        self.assertGreaterEqual(way.udp.runs, 2000 - 256)
        self.assertLess(way.udp.runs, 2000)
        self.assertEqual(len(way.udp.sent), 4000)

    def test_a_size_that_was_refused_is_not_tried_again(self) -> None:
        """Nor a larger one; a smaller one is."""
        for number in (errno.EINVAL, errno.EMSGSIZE):
            way = Exit(FakeUdp(refuse_runs(number, least=100)))
            for size in (100, 100, 150):
                way.push(*datagrams(size, size))
            self.assertEqual(way.udp.runs, 1)
            way.push(*datagrams(99, 99))
            self.assertEqual(way.udp.runs, 2)
            self.assertEqual(len(way.udp.calls), 1 + 6 + 1)

    def test_the_size_that_was_refused_is_that_of_the_run(self) -> None:
        """Not of its last datagram, which was shorter."""
        way = Exit(FakeUdp(refuse_runs(errno.EINVAL, least=100)))
        way.push(*datagrams(100, 100, 10))
        way.push(*datagrams(50, 50))
        self.assertEqual([call.segment_size for call in way.udp.calls if call.is_run], [100, 50])

    def test_a_datagram_that_is_too_long_teaches_nothing(self) -> None:
        """It could not leave by itself either: runs are still tried."""
        way = Exit(FakeUdp(limit_size(1000)))
        items = datagrams(1400, 1400)
        way.push(*items)
        self.assertEqual(outcomes(items), [TOO_LONG] * 2)
        way.push(*datagrams(900, 900))
        self.assertEqual(way.udp.calls[-1].segment_size, 900)

    def test_a_shorter_one_behind_them_teaches_nothing_either(self) -> None:
        """It leaves, and those before it do not."""
        way = Exit(FakeUdp(limit_size(1000)))
        items = datagrams(1400, 1400, 10)
        way.push(*items)
        self.assertEqual(outcomes(items), [TOO_LONG, TOO_LONG, "sent"])
        way.push(*datagrams(900, 900))
        self.assertEqual(way.udp.calls[-1].segment_size, 900)

    def test_a_run_stops_where_there_is_no_room_and_goes_on_there(self) -> None:
        """No datagram leaves twice."""
        for has_runs, plan in ((True, [0, 0, errno.EAGAIN]), (False, [0, errno.EAGAIN])):
            way = Exit(FakeUdp(refuse_runs(errno.EINVAL), plan=plan), has_runs=has_runs)
            run = Item(b"aabbc", 2)
            way.push(run)
            self.assertEqual(way.udp.sizes, [2])
            self.assertEqual((run.outcomes, way.owner.is_waiting), ([], True))
            way.output.flush()
            self.assertEqual([data for data, _ in way.udp.sent], [b"aa", b"bb", b"c"])
            self.assertEqual((run.outcomes, way.output.unsent), (["sent"], 0))

    def test_a_failure_in_a_run_is_not_forgotten_while_it_waits(self) -> None:
        """Its first datagram was too long; the rest leaves later."""
        plan = [0, 0, errno.EAGAIN]
        way = Exit(FakeUdp(limit_size(5), plan=plan))
        run = Item(bytes(13), 10)
        way.push(run)
        way.drain()
        self.assertEqual(way.udp.sizes, [3])
        self.assertEqual(outcomes([run]), [TOO_LONG])

    def test_without_runs_one_is_never_tried(self) -> None:
        """As the options say."""
        way = Exit(FakeUdp(), has_runs=False)
        way.push(*datagrams(9, 9, 9), Item(bytes(20), 10))
        self.assertEqual((way.udp.runs, way.udp.sizes), (0, [9, 9, 9, 10, 10]))


class WaitingTests(SynchronousTestCase):
    """A full kernel is waited for; nothing is lost."""

    def test_no_room_is_waited_for_until_the_socket_is_writable(self) -> None:
        """Then no more, and that it has drained is told once."""
        for size in (9, 10):
            way = Exit(FakeUdp(plan=[0, errno.EAGAIN]))
            items = datagrams(9, size, 20)
            way.push(items[0])
            way.push(*items[1:])
            self.assertEqual((way.owner.is_waiting, way.owner.drained), (True, 0))
            self.assertEqual((way.output.is_full, way.output.unsent), (True, size + 20))
            way.output.flush()
            self.assertEqual((way.owner.is_waiting, way.owner.drained), (False, 1))
            self.assertEqual((way.output.is_full, way.output.unsent), (False, 0))
            self.assertEqual(way.udp.sizes, [9, size, 20])

    def test_what_never_waited_does_not_drain(self) -> None:
        """There is nothing to tell."""
        way = Exit(FakeUdp())
        way.push(*datagrams(9, 8, 7))
        self.assertEqual((way.owner.drained, way.owner.waits), (0, 0))

    def test_it_waits_once_however_often_there_is_no_room(self) -> None:
        """A reactor that watches already is not asked again."""
        way = Exit(FakeUdp(plan=[errno.EAGAIN] * 3))
        way.push(*datagrams(9))
        for size in (8, 7):
            way.output.push(Item(bytes(size)))
            way.output.flush()
        self.assertEqual((way.owner.waits, way.owner.drained), (1, 0))
        way.output.flush()
        self.assertEqual((way.owner.drained, way.udp.sizes), (1, [9, 8, 7]))

    def test_a_kernel_without_memory_has_a_rest(self) -> None:
        """By the clock: the socket is writable all the time, which would be asked for ever."""
        for number in (errno.ENOBUFS, errno.ENOMEM):
            way = Exit(FakeUdp(plan=[number]))
            items = datagrams(9, 9)
            way.push(*items)
            calls = len(way.udp.calls)
            way.output.flush()
            way.output.push(Item(b""))
            self.assertEqual((len(way.udp.calls), way.owner.waits), (calls, 0))
            self.assertTrue(way.output.is_full)
            way.clock.advance(0.01)
            self.assertEqual((outcomes(items), way.owner.drained), (["sent"] * 2, 1))
            self.assertEqual(way.clock.getDelayedCalls(), [])

    def test_a_rest_may_be_followed_by_a_wait_and_the_other_way_round(self) -> None:
        """Only the one that is due is asked for."""
        way = Exit(FakeUdp(plan=[errno.EAGAIN, errno.ENOBUFS, errno.EAGAIN]))
        way.push(*datagrams(9))
        waits = [way.owner.is_waiting]
        way.output.flush()
        waits.append(way.owner.is_waiting)
        way.clock.advance(0.01)
        waits.append(way.owner.is_waiting)
        way.output.flush()
        self.assertEqual((waits, way.udp.sizes), ([True, False, True], [9]))

    def test_a_run_that_is_not_to_be_cut_waits_like_others(self) -> None:
        """It does not ask the kernel over and over."""
        for number in (errno.EAGAIN, errno.ENOBUFS):
            way = Exit(FakeUdp(plan=[number] * 100), has_runs=False)
            way.push(Item(bytes(20), 10))
            self.assertEqual(len(way.udp.calls), 1)
            self.assertLessEqual(len(way.clock.getDelayedCalls()), 1)

    def test_many_bytes_make_it_full(self) -> None:
        """From the mark on, though there may be more."""
        way = Exit(FakeUdp())
        way.output.hold()
        way.output.push_all(datagrams(*[1024] * (OUTPUT_HIGH_WATER // 1024 - 1)))
        self.assertFalse(way.output.is_full)
        way.output.push(Item(bytes(1024)))
        self.assertTrue(way.output.is_full)
        way.output.release()
        self.assertFalse(way.output.is_full)
        # Who stopped for that has to be told, though nothing had to wait for room.
        self.assertEqual((way.owner.drained, way.owner.waits), (1, 0))


class FailureTests(SynchronousTestCase):
    """A datagram that cannot leave fails alone."""

    def test_the_longest_datagram_is_that_of_the_family(self) -> None:
        """65,507 bytes on IPv4, 65,527 on IPv6; one more is refused at the call."""
        for host, most in (("127.0.0.1", MAX_IPV4_DATAGRAM), ("::1", MAX_IPV6_DATAGRAM)):
            way = Exit(FakeUdp(host=host))
            way.push(Item(bytes(most)))
            self.assertEqual(way.udp.sizes, [most])
            error = self.assertRaises(SocketError, way.output.push, Item(bytes(most + 1)))
            self.assertIs(error.status, TOO_LONG)
            self.assertIn(str(most), str(error))

    def test_among_others_it_fails_alone(self) -> None:
        """Where all are told rather than raised."""
        way = Exit(FakeUdp())
        items = datagrams(9, MAX_IPV4_DATAGRAM + 1, 9)
        way.output.push_all(items)
        self.assertEqual(outcomes(items), ["sent", TOO_LONG, "sent"])

    def test_the_others_leave_at_once(self) -> None:
        """There is room: no turn of the reactor is waited for."""
        for has_runs in (True, False):
            way = Exit(FakeUdp(limit_size(1000)), has_runs=has_runs)
            items = datagrams(8, 9, 1001, 10, 1002, 11)
            way.push(*items)
            self.assertEqual(way.udp.sizes, [8, 9, 10, 11])
            self.assertEqual([o for o in outcomes(items) if o != "sent"], [TOO_LONG] * 2)
            self.assertEqual((way.owner.waits, way.owner.drained), (0, 0))

    def test_an_address_without_a_route_fails_for_itself(self) -> None:
        """The error names it, and has the kernel's reason."""
        way = Exit(FakeUdp(refuse_address(UNREACHABLE)))
        items = [*datagrams(8), *datagrams(9, address=UNREACHABLE), *datagrams(10)]
        way.push(*items)
        way.drain()
        unreachable = SocketErrorStatus.NETWORK_IS_UNREACHABLE
        self.assertEqual(outcomes(items), ["sent", unreachable, "sent"])
        self.assertIn(UNREACHABLE[0], str(items[1].errors[0]))
        self.assertIsInstance(items[1].errors[0].__cause__, OSError)

    def test_too_many_bytes_are_refused(self) -> None:
        """What waits goes on; there is room again when it has left."""
        way = Exit(FakeUdp(plan=[errno.EAGAIN]), max_unsent=100)
        way.push(Item(bytes(101)))
        self.assertRaises(BusyError, way.output.push, Item(b"a"))
        late = datagrams(5, 5)
        way.output.push_all(late)
        self.assertEqual([type(item.errors[0]) for item in late], [BusyError] * 2)
        way.output.flush()
        way.output.push(Item(b"a"))
        self.assertEqual(way.udp.sizes, [101, 1])

    def test_of_many_only_those_on_top_are_refused(self) -> None:
        """The others wait."""
        way = Exit(FakeUdp(plan=[errno.EAGAIN]), max_unsent=100)
        items = datagrams(60, 60, 60)
        way.output.push_all(items)
        self.assertEqual([len(item.errors) for item in items], [0, 0, 1])
        way.output.flush()
        self.assertEqual(outcomes(items)[:2], ["sent"] * 2)


class EarlierRefusalTests(SynchronousTestCase):
    """A connected socket tells of an ICMP reply at the next call, whose fault it is not."""

    def test_the_owner_is_told_and_the_datagram_sent(self) -> None:
        """With the status that WinRT has for it."""
        for count in (1, 2):
            way = Exit(FakeUdp())
            way.udp.pending = [errno.ECONNREFUSED]
            items = datagrams(*[9] * count, address=None)
            way.push(*items)
            self.assertEqual(way.owner.refusals, [RESET])
            self.assertEqual((outcomes(items), way.udp.sizes), (["sent"] * count, [9] * count))

    def test_what_is_behind_it_leaves_too(self) -> None:
        """At once: there is room."""
        for sizes in ([9, 10, 11], [11, 10, 9], [9, 9, 10]):
            for has_runs in (True, False):
                way = Exit(FakeUdp(), has_runs=has_runs)
                way.udp.pending = [errno.ECONNREFUSED]
                way.push(*datagrams(*sizes, address=None))
                self.assertEqual((way.udp.sizes, way.owner.refusals), (sizes, [RESET]))
                self.assertEqual(way.owner.waits, 0)

    def test_several_are_told_each(self) -> None:
        """Then the datagram leaves."""
        way = Exit(FakeUdp())
        way.udp.pending = [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ECONNREFUSED]
        items = datagrams(9, address=None)
        way.push(*items)
        self.assertEqual(way.owner.refusals, [RESET, SocketErrorStatus.UNREACHABLE_HOST, RESET])
        self.assertEqual(outcomes(items), ["sent"])

    def test_what_is_met_twice_is_its_own(self) -> None:
        """The datagram fails; nobody is told of a refusal."""
        way = Exit(FakeUdp(refuse_address(None), plan=[]))  # type: ignore[arg-type]
        items = datagrams(9, address=None)
        way.push(*items)
        self.assertEqual(outcomes(items), [SocketErrorStatus.NETWORK_IS_UNREACHABLE])
        self.assertEqual((way.owner.refusals, len(way.udp.calls)), ([], 2))

    def test_one_that_is_too_long_for_the_way_is_its_own(self) -> None:
        """Also in a run, of which the shorter last one leaves."""
        way = Exit(FakeUdp(limit_size(10)))
        items = datagrams(20, 20, 9, address=None)
        way.push(*items)
        self.assertEqual(outcomes(items), [TOO_LONG, TOO_LONG, "sent"])
        self.assertEqual(way.owner.refusals, [])

    def test_a_refusal_and_then_no_room(self) -> None:
        """It is told, and the datagram waits."""
        way = Exit(FakeUdp(plan=[errno.EAGAIN]))
        way.udp.pending = [errno.ECONNREFUSED]
        items = datagrams(9, address=None)
        way.push(*items)
        self.assertEqual((way.owner.refusals, way.owner.is_waiting), ([RESET], True))
        way.output.flush()
        self.assertEqual((outcomes(items), way.owner.refusals), (["sent"], [RESET]))

    def test_an_endless_row_of_them_ends(self) -> None:
        """The datagram is given up."""
        way = Exit(FakeUdp(plan=[errno.ECONNREFUSED] * 1000))
        items = datagrams(9, address=None)
        way.push(*items)
        self.assertEqual(len(outcomes(items)), 1)
        self.assertLess(len(way.udp.calls), 20)


class ReentranceTests(SynchronousTestCase):
    """Whoever is told may do anything at once."""

    def test_what_is_pushed_meanwhile_leaves_afterwards(self) -> None:
        """Behind all that was there, and without a release."""
        for has_runs in (True, False):
            way = Exit(FakeUdp(), has_runs=has_runs)
            items = datagrams(9, 9, 10, 11, 5)
            late = Item(bytes(7))
            items[0].then = lambda way=way, late=late: way.output.push(late)  # type: ignore[misc]
            way.push(*items)
            self.assertEqual(way.udp.sizes, [9, 9, 10, 11, 5, 7])
            self.assertEqual(outcomes([*items, late]), ["sent"] * 6)

    def test_what_is_pushed_while_there_is_no_room_waits_at_the_end(self) -> None:
        """The order is that of the pushes."""
        way = Exit(FakeUdp(plan=[0, errno.EAGAIN]))
        items = datagrams(9, 10, 11)
        late = Item(bytes(7))
        items[0].then = lambda: way.output.push(late)
        way.push(*items)
        way.drain()
        self.assertEqual(way.udp.sizes, [9, 10, 11, 7])

    def test_closing_tells_all_that_waits(self) -> None:
        """Each once; then nothing waits, and nobody is asked to wait."""
        for number in (errno.EAGAIN, errno.ENOBUFS):
            way = Exit(FakeUdp(plan=[number]))
            items = datagrams(9, 9, 10)
            way.push(*items)
            way.output.close(lambda: ClosedError("closed"))
            self.assertEqual(outcomes(items), [SocketErrorStatus.OPERATION_ABORTED] * 3)
            self.assertEqual((way.output.unsent, way.clock.getDelayedCalls()), (0, []))
            self.assertTrue(way.owner.is_over)
            way.output.flush()
            self.assertEqual((way.udp.sent, way.owner.drained), ([], 0))

    def test_closing_while_sent_is_told_loses_nothing_in_silence(self) -> None:
        """What had not left by then fails as closed."""
        self.close_in_the_middle(FakeUdp)

    def test_closing_while_a_failure_is_told_loses_nothing_in_silence(self) -> None:
        """Nothing is sent from then on."""
        self.close_in_the_middle(lambda: FakeUdp(refuse_address(PEER)))
        self.close_in_the_middle(lambda: FakeUdp(limit_size(5)))

    def test_closing_while_runs_are_refused_loses_nothing_in_silence(self) -> None:
        """Nor where they leave one by one."""
        for number in (errno.EIO, errno.EINVAL):
            self.close_in_the_middle(lambda number=number: FakeUdp(refuse_runs(number)))  # type: ignore[misc]
            self.close_in_the_middle(
                lambda number=number: FakeUdp(refuse_runs(number), limit_size(5))  # type: ignore[misc]
            )

    def close_in_the_middle(self, make: Callable[[], FakeUdp]) -> None:
        """Close when the first, second, … is told, in runs and one by one."""
        for has_runs in (True, False):
            for chosen in range(6):
                way = Exit(make(), has_runs=has_runs)
                items = [*datagrams(9, 9, 9, 10), Item(bytes(25), 10), *datagrams(4)]
                closed = ClosedError("closed")

                def close(way: Exit = way, closed: ClosedError = closed) -> None:
                    way.output.close(lambda: closed)
                    way.udp.close()

                items[chosen].then = close
                way.push(*items)
                before, unsent = outcomes(items), way.output.unsent
                self.assertEqual(unsent, 0)
                left = before.count("sent")
                self.assertGreaterEqual(len(way.udp.sent), left)
                for item in items[chosen + 1 :]:
                    self.assertIn(item.outcomes, [["sent"], [closed.status], [TOO_LONG]])
                    # Nothing was tried with a socket that is gone.
                    self.assertNotIn("Bad file", "".join(map(str, item.errors)))

    def test_closing_while_a_refusal_is_told_loses_nothing_in_silence(self) -> None:
        """What it was met at may have left by then; what is behind it has not."""
        for sizes in ([9, 9, 9], [9, 10, 11], [11, 10, 9]):
            for has_runs in (True, False):
                way = Exit(FakeUdp(), has_runs=has_runs)
                way.owner.when_refused = lambda way=way: (  # type: ignore[misc]
                    way.output.close(lambda: ClosedError("closed")),
                    way.udp.close(),
                )
                way.udp.pending = [errno.ECONNREFUSED]
                items = datagrams(*sizes, address=None)
                way.push(*items)
                self.assertEqual(outcomes(items).count("sent"), len(way.udp.sent))
                self.assertEqual((way.output.unsent, way.owner.waits), (0, 0))

    def test_what_is_sent_when_closed_fails(self) -> None:
        """All of it is told."""
        way = Exit(FakeUdp())
        way.output.close(lambda: ClosedError("closed"))
        items = datagrams(9, 9)
        way.output.push_all(items)
        self.assertEqual(outcomes(items), [SocketErrorStatus.OPERATION_ABORTED] * 2)
        self.assertEqual((way.udp.calls, way.output.unsent), ([], 0))


class FairnessTests(SynchronousTestCase):
    """Who sends whenever something was told leaves the others a turn."""

    def test_sending_again_at_each_failure_goes_on_in_the_next_turn(self) -> None:
        """Not for ever in this one."""
        way = Exit(FakeUdp(refuse_address(PEER)))
        again: list[Item] = []

        def send() -> None:
            if len(again) < 1000:
                again.append(Item(b"a", then=send))
                way.output.push(again[-1])

        send()
        self.assertLess(len(again), 100)
        self.assertEqual(len(way.clock.getDelayedCalls()), 1)
        before = len(again)
        way.clock.advance(0)
        self.assertGreater(len(again), before)
        for _ in range(100):
            way.clock.advance(0)
        self.assertEqual(len(again), 1000)

    def test_filling_it_whenever_it_has_drained_goes_on_in_the_next_turn(self) -> None:
        """Not deeper and deeper in this one."""
        way = Exit(FakeUdp())
        rounds = 0

        def fill() -> None:
            nonlocal rounds
            rounds += 1
            if rounds < 50:
                way.output.hold()
                while not way.output.is_full:
                    way.output.push(Item(bytes(60_000)))
                way.output.release()

        way.owner.output_drained = fill  # type: ignore[method-assign]
        fill()
        self.assertLess(rounds, 5)
        for _ in range(100):
            way.clock.advance(0)
        self.assertEqual((rounds, way.output.unsent), (50, 0))


class BoundTests(SynchronousTestCase):
    """What waits is bounded in number, too."""

    def test_a_million_empty_ones_are_enough(self) -> None:
        """They have no bytes, and take memory."""
        way = Exit(FakeUdp())
        way.output.hold()
        item = Item(b"")
        way.output.push_all([item] * 1_000_000)
        with self.assertRaisesRegex(BusyError, "1000000 datagrams"):
            way.output.push(Item(b""))

    def test_a_peer_behind_a_narrow_way_costs_the_others_nothing(self) -> None:
        """Runs to them are tried all the same."""
        narrow = Exit(
            FakeUdp(lambda call: errno.EMSGSIZE if call.is_run and call.address == OTHER else 0)
        )
        narrow.push(*datagrams(900, 900, address=OTHER))
        narrow.push(*datagrams(900, 900, address=OTHER))
        narrow.push(*datagrams(900, 900))
        self.assertEqual((narrow.udp.runs, narrow.udp.sizes), (2, [900] * 6))


class WithdrawTests(SynchronousTestCase):
    """What waits can be taken back."""

    def test_what_waits_comes_back_and_is_not_told(self) -> None:
        """The others leave."""
        way = Exit(FakeUdp(plan=[errno.EAGAIN]))
        items = datagrams(9, 9, 9)
        way.push(*items)
        self.assertTrue(way.output.withdraw(items[1]))
        self.assertEqual(way.output.unsent, 18)
        way.output.flush()
        self.assertEqual([item.outcomes for item in items], [["sent"], [], ["sent"]])

    def test_what_has_left_does_not_come_back(self) -> None:
        """Nor what was taken back before."""
        way = Exit(FakeUdp())
        item = Item(b"a")
        way.push(item)
        self.assertFalse(way.output.withdraw(item))

    @given(
        lists(sampled_from((1, 1, 1, 2)), min_size=1, max_size=150),
        lists(integers(min_value=0, max_value=199), max_size=200),
        integers(min_value=1, max_value=70),
    )
    @settings(max_examples=60, deadline=None)
    def test_any_can_be_taken_back_at_any_time(
        self, sizes: list[int], withdrawals: list[int], pause: int
    ) -> None:
        """Between two flushes and during callbacks: the rest is sent once and in order."""
        way = Exit(FakeUdp(plan=[errno.EAGAIN]))
        items = datagrams(*sizes)
        wanted = iter(withdrawals)
        taken_back: list[Item] = []

        def take_back() -> None:
            place = next(wanted, None)
            if place is not None:
                item = items[place % len(items)]
                is_there = not item.outcomes and item not in taken_back
                if is_there and way.output.withdraw(item):
                    taken_back.append(item)

        for item in items:
            item.then = take_back
        way.push(*items)
        for number, _ in enumerate(withdrawals):
            take_back()
            if number % pause == 0:
                way.udp.plan = [0, errno.EAGAIN]
                way.output.flush()
        way.udp.plan = []
        way.drain()
        left = [item for item in items if item not in taken_back]
        self.assertEqual([item.outcomes for item in taken_back], [[]] * len(taken_back))
        self.assertEqual([item.outcomes for item in left], [["sent"]] * len(left))
        self.assertEqual([data for data, _ in way.udp.sent], [item.data for item in left])
        self.assertEqual(way.output.unsent, 0)

    def test_when_the_last_is_taken_back_it_has_drained(self) -> None:
        """At the next room; then nobody waits."""
        way = Exit(FakeUdp(plan=[errno.EAGAIN]))
        item = Item(b"a")
        way.push(item)
        way.output.withdraw(item)
        way.output.flush()
        self.assertEqual((way.owner.is_waiting, way.owner.drained), (False, 1))
        self.assertEqual((way.udp.sent, way.output.is_full), ([], False))


#: How runs are taken; the last is the option that turns them off.
WAYS: list[tuple[Judge | None, bool]] = [
    (None, True),
    (refuse_runs(errno.EIO), True),
    (refuse_runs(errno.EINVAL), True),
    (refuse_runs(errno.EMSGSIZE), True),
    (refuse_runs(errno.EINVAL, least=100), True),
    (None, False),
]

#: The longest datagram that a way takes.
MTU = 1000


@composite
def sendings(draw: Any) -> tuple[int, int, int]:
    """Make a size, a segment size and a number of a peer."""
    size = draw(sampled_from([0, 1, 9, 9, 9, 50, 100, 100, 100, MTU, MTU + 1, 65_507, 65_508]))
    segment_size, peer = size, draw(sampled_from([0, 0, 0, 1, 2]))
    if 0 < size <= MTU + 1 and draw(booleans()) and draw(booleans()):
        count = draw(integers(min_value=2, max_value=64))
        size = min((count - 1) * size + draw(integers(min_value=1, max_value=size)), 65_507)
    return size, segment_size, peer


#: Answers of the kernel to calls that it would take otherwise.
answers = lists(sampled_from([0, 0, 0, errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM]), max_size=30)


class SameResultTests(SynchronousTestCase):
    """With segmentation, without it, or where it is refused: nobody can tell."""

    @settings(deadline=None)
    @given(lists(lists(sendings(), max_size=12), max_size=6), answers)
    def test_every_way_gives_the_same(
        self, batches: list[list[tuple[int, int, int]]], plan: list[int]
    ) -> None:
        """The same datagrams in the same order, the same failures, everybody told once."""
        peers = [PEER, OTHER, UNREACHABLE]
        for judge, has_runs in WAYS:
            judges = [limit_size(MTU), refuse_address(UNREACHABLE)]
            way = Exit(FakeUdp(*([judge] if judge else []), *judges, plan=plan), has_runs=has_runs)
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
                    left, outcome = what_becomes_of(item)
                    expected += left
                    wanted.append(outcome)
                way.output.push_all(made)
            way.drain()
            self.assertEqual(way.udp.sent, expected)
            self.assertEqual(outcomes(items), wanted)
            self.assertEqual((way.output.unsent, way.owner.is_waiting), (0, False))
            self.assertLessEqual(way.owner.drained, len(batches) + len(plan))
            self.assertEqual(way.clock.getDelayedCalls(), [])

    @settings(deadline=None)
    @given(
        lists(lists(sampled_from([0, 9, 9, 9, 50, 100, 100]), max_size=8), max_size=6),
        lists(sampled_from([0, 0, errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED]), max_size=30),
    )
    def test_a_connected_socket_loses_nothing_to_refusals(
        self, batches: list[list[int]], plan: list[int]
    ) -> None:
        """Each is told once, and every datagram leaves."""
        for judge, has_runs in WAYS:
            # A few in a row belong to one datagram, which may be given up.
            tame = [n for i, n in enumerate(plan) if n == 0 or plan[i - 1 : i] != [n]]
            way = Exit(FakeUdp(*([judge] if judge else []), plan=tame), has_runs=has_runs)
            items = [datagrams(*sizes, address=None) for sizes in batches]
            for batch in items:
                way.output.push_all(batch)
            way.drain()
            flat = [item for batch in items for item in batch]
            self.assertEqual(outcomes(flat), ["sent"] * len(flat))
            self.assertEqual(way.udp.sent, [(item.data, None) for item in flat])
            met = tame[: len(tame) - len(way.udp.plan)].count(errno.ECONNREFUSED)
            self.assertEqual(way.owner.refusals, [RESET] * met)


def what_becomes_of(item: Item) -> tuple[list[tuple[bytes, Address | None]], object]:
    """Say which of its datagrams leave, and what it is told."""
    size = item.segment_size or 1
    data = [item.data[start : start + size] for start in range(0, len(item.data) or 1, size)]
    if item.segment_size > MAX_IPV4_DATAGRAM:
        return [], TOO_LONG
    if item.address == UNREACHABLE:
        # The first thing that a kernel looks at is where to; here the length is.
        is_too_long = len(data[-1]) > MTU
        return [], TOO_LONG if is_too_long else SocketErrorStatus.NETWORK_IS_UNREACHABLE
    left = [(piece, item.address) for piece in data if len(piece) <= MTU]
    return left, "sent" if len(left) == len(data) else TOO_LONG
