"""
Any conversation of two protocols on transports that call back at once, with an upgrade in it.

Such a transport calls the other end within ``write``, and ``connectionLost`` within
``loseConnection``. So a method of the application may be called within each call of another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests import THOROUGH
from tests.loopback.memory import memory_pair, synchronous_pair
from tests.tls.peer import AUTHORITY, SERVER
from twsock import HostName, SocketError, SocketProtectionLevel
from twsock.protocols import FrameProtocol, StreamServerFactory
from twsock.stream.client_upgrade import ClientUpgrade, UpgradeStyle
from twsock.stream.registry import ConnectionRegistry
from twsock.stream.upgrade import UpgradePolicy, UpgradeToSsl
from twsock.tls.certificates import Certificate
from twsock.tls.client import ClientOptions
from twsock.tls.levels import choose_versions
from twsock.tls.server import ServerOptions, ServerTls

KEY: Final = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())
TRUSTED: Final = Certificate.from_pem(AUTHORITY.cert_pem.bytes())
TLS12: Final = SocketProtectionLevel.TLS12

#: The calls of an application, and the passing of time.
CALLS: Final = (
    "send",
    "send_much",
    "write",
    "close",
    "abort",
    "upgrade",
    "request_upgrade",
    "cancel_upgrade",
    "answer",
    "turn",
    "wait",
)

#: The number of an end, and a call.
Call = tuple[int, str]

#: Calls, each with another call that its end makes when the next message arrives.
Steps = list[tuple[Call, "Call | None"]]

#: How the transports are made, and how the server upgrades.
Kind = tuple[Callable[[Any], tuple[Any, Any]], UpgradePolicy]

CALL: Final = st.tuples(st.integers(0, 1), st.sampled_from(CALLS))
STEPS: Final = st.lists(st.tuples(CALL, st.none() | CALL), max_size=12)
KINDS: Final = st.tuples(
    st.sampled_from((synchronous_pair, memory_pair)), st.sampled_from(UpgradePolicy)
)

#: The client ends the connection when it receives bytes that waited for the handshake.
LOST_BEFORE_IT_IS_MADE: Final[Steps] = [
    ((0, "turn"), (1, "close")),
    ((1, "write"), None),
    ((0, "upgrade"), None),
]
WRITTEN_AFTER_THE_LOSS: Final[Steps] = [
    ((0, "request_upgrade"), None),
    ((1, "abort"), None),
    ((0, "write"), None),
]


class End(FrameProtocol):
    """
    Records its messages and events, and makes a call when a message arrives.

    :ivar events: the names of the hooks that were called, and the beginnings of the messages.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self.received: list[bytes] = []
        self.then: Callable[[], None] | None = None
        self.handled: Deferred[None] | None = None

    @override
    def connection_made(self) -> None:
        self.events.append("made")

    @override
    def connection_secured(self) -> None:
        self.events.append("secured")

    @override
    def connection_lost(self, error: SocketError | None) -> None:
        self.events.append("lost")

    @override
    def frame_received(self, payload: bytes) -> Deferred[None] | None:
        self.events.append("message")
        self.received.append(payload)
        then, self.then = self.then, None
        if then is not None:
            then()
        if payload.startswith(b"3"):
            self.handled = Deferred()
        return self.handled


class Conversation:
    """
    A client and a server, connected in memory.

    :ivar pending: each call with its Deferred.
    :ivar unexpected: failures that are no errors of sockets.
    """

    def __init__(self, kind: Kind) -> None:
        make_pair, policy = kind
        self.clock = Clock()
        upgrade = UpgradeToSsl(ServerTls(ServerOptions([KEY])), policy)
        factory = StreamServerFactory(self.clock, End, upgrade=upgrade, idle_timeout=None)
        server = factory.buildProtocol(None)
        assert isinstance(server, End)
        client = End()
        client.group = ConnectionRegistry(self.clock, idle_timeout=None)
        self.ends = (client, server)
        self.sent: tuple[list[bytes], list[bytes]] = ([], [])
        self.pending: list[tuple[str, Deferred[Any]]] = []
        self.unexpected: list[Failure] = []
        self._upgrades: list[Deferred[None]] = []
        self._count = 0
        transports = make_pair(self.clock)
        for end, transport in zip(self.ends, transports, strict=True):
            transport.protocol = end
        for end, transport in zip(self.ends, transports, strict=True):
            end.makeConnection(transport)

    def make(self, call: Call, then: Call | None = None) -> None:
        """Make a call; make another one when that end receives its next message."""
        number, name = call
        end = self.ends[number]
        if then is not None:
            end.then = lambda: self.make(then)
        try:
            result = getattr(self, f"_{name}")(number, end)
        except SocketError:
            return
        if result is not None:
            result.addErrback(self._check)
            self.pending.append((f"{name} of end {number}", result))

    def abort(self) -> None:
        """Abort both ends, and let all delayed calls run."""
        for number, end in enumerate(self.ends):
            self.make((number, "answer"))
            self.pending.append((f"the last abort of end {number}", end.abort()))
        for _ in range(10):
            self.clock.advance(0)
        self.clock.advance(60)

    def _check(self, failure: Failure) -> None:
        if not failure.check(SocketError, CancelledError):
            self.unexpected.append(failure)

    def _next_message(self, number: int, repetitions: int) -> bytes:
        self._count += 1
        message = b"%d " % self._count * repetitions
        self.sent[number].append(message)  # Before it is sent, which may cause another one.
        return message

    def _send(self, number: int, end: End) -> None:
        end.send_frame(self._next_message(number, 1))

    def _send_much(self, number: int, end: End) -> None:
        end.send_frame(self._next_message(number, 50_000))

    def _write(self, number: int, end: End) -> None:
        message = self._next_message(number, 1)
        end.transport.write(len(message).to_bytes(4, "big") + message)

    def _close(self, _number: int, end: End) -> Deferred[None]:
        return end.close()

    def _abort(self, _number: int, end: End) -> Deferred[None]:
        return end.abort()

    def _upgrade(self, number: int, end: End) -> Deferred[None] | None:
        return self._begin(number, end, UpgradeStyle.DIRECT)

    def _request_upgrade(self, number: int, end: End) -> Deferred[None] | None:
        return self._begin(number, end, UpgradeStyle.COMMAND)

    def _begin(self, number: int, end: End, style: UpgradeStyle) -> Deferred[None] | None:
        options = ClientOptions(choose_versions(TLS12, TLS12), HostName("localhost"), [TRUSTED])
        settings = ClientUpgrade(options, style=style)
        if style is UpgradeStyle.COMMAND:
            self.sent[number].append(settings.request)  # A message, if the server has no TLS.
        upgrading = end.upgrade_to_ssl(settings)
        self._upgrades.append(upgrading)
        return upgrading

    def _cancel_upgrade(self, _number: int, _end: End) -> None:
        for upgrade in self._upgrades:
            upgrade.cancel()

    def _answer(self, _number: int, end: End) -> None:
        handled, end.handled = end.handled, None
        if handled is not None and not handled.called:
            handled.callback(None)

    def _turn(self, _number: int, _end: End) -> None:
        self.clock.advance(0)

    def _wait(self, _number: int, _end: End) -> None:
        self.clock.advance(6)  # Above the deadline of a close.


class ConversationTests(SynchronousTestCase):
    """The rules that an application relies on hold in any nesting of calls."""

    def assert_order(self, end: End) -> None:
        """Require ``connection_made`` first, one loss last, and at most one upgrade."""
        events = end.events
        if events:
            self.assertEqual((events[0], events[-1]), ("made", "lost"), events)
            self.assertEqual((events.count("made"), events.count("lost")), (1, 1), events)
            self.assertLessEqual(events.count("secured"), 1, events)

    @settings(max_examples=1600 if THOROUGH else 200)
    @given(KINDS, STEPS)
    @example((synchronous_pair, UpgradePolicy.IMPLICIT), LOST_BEFORE_IT_IS_MADE)
    @example((synchronous_pair, UpgradePolicy.REQUIRED), WRITTEN_AFTER_THE_LOSS)
    def test_any_calls_and_an_abort_keep_the_order(self, kind: Kind, steps: Steps) -> None:
        """Each wait ends, and messages arrive in the order in which they were sent."""
        conversation = Conversation(kind)
        for call, then in steps:
            conversation.make(call, then)
        conversation.abort()
        self.assertEqual([name for name, call in conversation.pending if not call.called], [])
        self.assertEqual(conversation.unexpected, [])
        self.assertEqual(conversation.clock.getDelayedCalls(), [])
        for number, end in enumerate(conversation.ends):
            self.assert_order(end)
            sent = iter(conversation.sent[1 - number])
            # Messages before a required upgrade are dropped.
            for message in end.received:
                self.assertIn(message, sent, f"{number=}")
