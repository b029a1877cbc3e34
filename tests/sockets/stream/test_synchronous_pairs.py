"""
Any conversation of two sockets on transports that call back at once, and on others in memory.

Such a transport calls the other end within ``write``, and ``connectionLost`` within
``loseConnection``. So every call of a socket may be entered again before it returns.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests import THOROUGH
from tests.loopback.memory import memory_pair, synchronous_pair
from tests.tls.peer import AUTHORITY, SERVER
from twsock import SocketError, SocketProtectionLevel, StreamSocket
from twsock.tls.certificates import Certificate

KEY: Final = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())
ROOT: Final = Certificate.from_pem(AUTHORITY.cert_pem.bytes())

#: Calls of an application, and a turn of the reactor, after which both ends can end in order.
HARMLESS_CALLS: Final = (
    "write",
    "write_much",
    "flush",
    "read",
    "read_exactly",
    "cancel_read",
    "turn",
)

#: Calls that end a connection, and the passing of the deadline of a close.
ENDING_CALLS: Final = ("end_output", "close", "abort", "upgrade", "wait")

#: The number of an end, and a call.
Call = tuple[int, str]

#: Calls, each with another call that is made when its Deferred fires.
Steps = list[tuple[Call, "Call | None"]]

#: How the transports are made, and whether there is TLS above them.
Kind = tuple[Callable[[Any], tuple[Any, Any]], bool]

#: A callback closes the connection while held bytes are sent.
LOST_WHEN_SECURE: Final[Steps] = [
    ((1, "upgrade"), None),
    ((1, "end_output"), (0, "close")),
    ((0, "upgrade"), None),
]
#: The transport has bytes for an end that does not read.
UNREAD_AT_THE_UPGRADE: Final[Steps] = [
    ((1, "write_much"), None),
    ((1, "end_output"), None),
    ((0, "read"), None),
    ((0, "upgrade"), None),
]
#: A write fires within an upgrade, and its callback upgrades the same end again.
UPGRADED_WITHIN_THE_UPGRADE: Final[Steps] = [
    ((1, "write"), (0, "upgrade")),
    ((0, "upgrade"), None),
]

KINDS: Final = st.tuples(st.sampled_from((synchronous_pair, memory_pair)), st.booleans())

_EXAMPLES: Final = settings(max_examples=800 if THOROUGH else 200)


def steps_of(*calls: str) -> st.SearchStrategy[Steps]:
    """Generate steps from some calls."""
    call = st.tuples(st.integers(0, 1), st.sampled_from(calls))
    return st.lists(st.tuples(call, st.none() | call), max_size=12)


class Conversation:
    """
    Two connected sockets, and what passes between them.

    :ivar pending: each call with its Deferred.
    :ivar unexpected: failures that are no errors of sockets.
    """

    def __init__(self, make_pair: Callable[[Any], tuple[Any, Any]]) -> None:
        self.clock = Clock()
        self.ends = [
            StreamSocket.from_transport(self.clock, transport)
            for transport in make_pair(self.clock)
        ]
        self.pending: list[tuple[str, Deferred[Any]]] = []
        self.unexpected: list[Failure] = []
        self.sent = (bytearray(), bytearray())
        # What each read returned, in the order of the calls: a read may be made, and return bytes,
        # before an earlier call of a read has returned.
        self._received: tuple[list[bytes], list[bytes]] = ([], [])
        self.ends[0].control.trust_roots = [ROOT]
        self._reads: list[Deferred[Any] | None] = [None, None]
        self._count = 0
        self._is_ending = False

    def received(self, number: int) -> bytes:
        """Return the bytes that one end has received."""
        return b"".join(self._received[number])

    def upgrade(self) -> list[Deferred[None]]:
        """Put TLS on the connection; the second end is the server."""
        upgrades = [self._upgrade(1), self._upgrade(0)]
        self.take_turns(20)
        return upgrades

    def take_turns(self, count: int) -> None:
        for _ in range(count):
            self.clock.advance(0)

    def make(self, call: Call, then: Call | None) -> None:
        """Make a call; make another one when its Deferred fires."""
        number, name = call
        result = getattr(self, f"_{name}")(number)
        if result is None:
            return
        if then is not None:
            result.addBoth(self._react, then)
        result.addErrback(self._check)
        self.pending.append((f"{name} of end {number}", result))

    def abort(self) -> None:
        """Abort both ends, and let all delayed calls run."""
        for number, one in enumerate(self.ends):
            self.pending.append((f"the last abort of end {number}", one.abort()))
            self.pending.append((f"the end of end {number}", one.wait_closed()))
        self.take_turns(10)
        self.clock.advance(60)

    def end_in_order(self) -> None:
        """Close both outputs, and read at both ends until the end."""
        self._is_ending = True
        for number, one in enumerate(self.ends):
            self._cancel_read(number)
            self.pending.append((f"the end of output {number}", one.output_stream.close()))
        for number, one in enumerate(self.ends):
            self.pending.append((f"the rest of input {number}", self._read_to_the_end(number)))
            self.pending.append((f"the end of end {number}", one.wait_closed()))
        self.take_turns(100)

    def _read_to_the_end(self, number: int) -> Deferred[None]:
        async def read() -> None:
            while data := await self.ends[number].input_stream.receive_some():
                self._received[number].append(data)

        return ensureDeferred(read())

    def _react(self, result: Any, then: Call) -> Any:
        if not self._is_ending:
            self.make(then, None)
        return result

    def _check(self, failure: Failure) -> None:
        if not failure.check(SocketError, CancelledError):
            self.unexpected.append(failure)

    def _send(self, number: int, repetitions: int) -> Deferred[int]:
        self._count += 1
        data = b"%d " % self._count * repetitions
        self.sent[number].extend(data)  # Before the write, which may cause another one.
        return self.ends[number].output_stream.write(data)

    def _write(self, number: int) -> Deferred[int]:
        return self._send(number, 1)

    def _write_much(self, number: int) -> Deferred[int]:
        return self._send(number, 50_000)

    def _flush(self, number: int) -> Deferred[bool]:
        return self.ends[number].output_stream.flush()

    def _end_output(self, number: int) -> Deferred[None]:
        return self.ends[number].output_stream.close()

    def _close(self, number: int) -> Deferred[None]:
        return self.ends[number].close()

    def _abort(self, number: int) -> Deferred[None]:
        return self.ends[number].abort()

    def _upgrade(self, number: int) -> Deferred[None]:
        end, level = self.ends[number], SocketProtectionLevel.TLS13
        if number == 1:
            return end.upgrade_to_ssl(level, certificate=KEY)
        return end.upgrade_to_ssl(level, "localhost")

    def _read(self, number: int) -> Deferred[Any]:
        return self._receive(number, self.ends[number].input_stream.receive_some)

    def _read_exactly(self, number: int) -> Deferred[Any]:
        return self._receive(number, partial(self.ends[number].input_stream.receive_exactly, 30))

    def _receive(self, number: int, receive: Callable[[], Deferred[bytes]]) -> Deferred[Any]:
        received = self._received[number]
        place = len(received)
        received.append(b"")
        read = receive()
        if not read.called:  # A read is refused, and fired, while another one is pending.
            self._reads[number] = read
        return read.addCallback(partial(received.__setitem__, place))

    def _cancel_read(self, number: int) -> None:
        read = self._reads[number]
        if read is not None:
            read.cancel()

    def _turn(self, _number: int) -> None:
        self.clock.advance(0)

    def _wait(self, _number: int) -> None:
        self.clock.advance(6)  # Above the deadline of a close.


class ConversationTests(SynchronousTestCase):
    """Two sockets converse on each kind of transport in memory, in plaintext and under TLS."""

    def begin(self, kind: Kind, steps: Steps) -> Conversation:
        """Connect two sockets, and make the calls."""
        make_pair, is_secure = kind
        conversation = Conversation(make_pair)
        if is_secure:
            for upgrade in conversation.upgrade():
                self.successResultOf(upgrade)
        for call, then in steps:
            conversation.make(call, then)
        return conversation

    def assert_ended(self, conversation: Conversation) -> None:
        """Assert that every wait has ended, and that only errors of sockets were raised."""
        self.assertEqual([name for name, call in conversation.pending if not call.called], [])
        self.assertEqual(conversation.unexpected, [])
        self.assertEqual(conversation.clock.getDelayedCalls(), [])

    @_EXAMPLES
    @given(KINDS, steps_of(*HARMLESS_CALLS, *ENDING_CALLS))
    @example((synchronous_pair, False), LOST_WHEN_SECURE)
    @example((synchronous_pair, False), UNREAD_AT_THE_UPGRADE)
    @example((synchronous_pair, False), UPGRADED_WITHIN_THE_UPGRADE)
    def test_any_calls_and_an_abort_leave_no_wait(self, kind: Kind, steps: Steps) -> None:
        """
        What was received is the beginning of what was sent.

        Unless one end alone was upgraded: the other one reads its handshake.
        """
        conversation = self.begin(kind, steps)
        conversation.abort()
        self.assert_ended(conversation)
        if any("upgrade" in step for step, _ in conversation.pending):
            return
        for number in (0, 1):
            sent, received = conversation.sent[1 - number], conversation.received(number)
            self.assertTrue(sent.startswith(received), f"{number=}: {received[:50]!r}")

    @_EXAMPLES
    @given(KINDS, steps_of(*HARMLESS_CALLS))
    def test_an_end_in_order_loses_nothing(self, kind: Kind, steps: Steps) -> None:
        """Both ends close their output, and read all sent bytes."""
        conversation = self.begin(kind, steps)
        conversation.end_in_order()
        self.assert_ended(conversation)
        for number in (0, 1):
            self.assertEqual(conversation.received(number), conversation.sent[1 - number], number)
