"""
State models of an upgrade: in any order of events, plaintext stays outside TLS.

State machines of hypothesis play a hostile peer, an application that writes at any time, the clock
and the network. One claim is checked after each step: no byte that arrived before the handshake is
handled after it, and no byte that was written after the switch is sent before it. Each message says
in its bytes on which side of the switch it belongs; a parser of these tests finds it in the bytes
that were sent.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import booleans, sampled_from
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests import THOROUGH
from tests.tls.peer import AUTHORITY, SERVER, ClientPeer, ServerPeer, client_context
from twsock.errors import SocketError
from twsock.names import HostName
from twsock.protocols import (
    ClientUpgrade,
    ConnectionRegistry,
    FrameProtocol,
    LineProtocol,
    StreamProtocol,
    StreamServerFactory,
    UpgradePolicy,
    UpgradeStyle,
    UpgradeToSsl,
)
from twsock.stream.protocol import Handled
from twsock.tls import Certificate, ClientOptions, SocketProtectionLevel, choose_versions
from twsock.tls.server import ServerOptions, ServerTls
from twsock.wire import encode_frame
from twsock.wire.lines import encode_line

TLS = ServerTls(
    ServerOptions([Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())])
)
OPTIONS = ClientOptions(
    choose_versions(SocketProtectionLevel.SSL),
    HostName("localhost"),
    trust_roots=[Certificate.from_pem(AUTHORITY.cert_pem.bytes())],
)
TRUSTING = client_context()
REQUEST, GO_AHEAD = b"STARTTLS", b"OK"
GARBAGE = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x15\x03\x03\0\2\2\x28",
    b"\x15\x03\x03\0\2\1\0",
    b"\x16\x03\x03\0\4abcd",
    b"\x16",
    b"\x16\x03",
    b"\x17\x03\x03\0\x03abc",
    b"\0",
    b"\n",
    b"\r",
)


class MachineProtocol(StreamProtocol):
    """Passes the protocol's calls to the machine."""

    machine: Machine

    def connection_secured(self) -> None:
        self.machine.write()

    def record_and_answer(self, message: bytes) -> Handled:
        self.machine.received.append((message, self.is_secure))
        if b"slow" not in message:
            self.machine.answer()
            return None
        wait: Deferred[None] = Deferred()
        self.machine.waits.append(wait)
        return wait


class Frames(MachineProtocol, FrameProtocol):
    """The protocol with frames."""

    def frame_received(self, payload: bytes) -> Handled:
        return self.record_and_answer(payload)


class Lines(MachineProtocol, LineProtocol):
    """The protocol with lines."""

    def line_received(self, line: bytes) -> Handled:
        return self.record_and_answer(line)


def next_frame(stream: bytes) -> tuple[bytes, bytes] | None:
    """Take a frame off the front of ``stream``; return None if none is whole."""
    end = 4 + int.from_bytes(stream[:4], "big")
    return (stream[4:end], stream[end:]) if 4 <= len(stream) >= end else None


def next_line(stream: bytes) -> tuple[bytes, bytes] | None:
    """Take a line off the front of ``stream``; return None if none is whole."""
    line, ending, rest = stream.partition(b"\n")
    return (line.removesuffix(b"\r"), rest) if ending else None


@dataclass(frozen=True)
class Format:
    """A wire format, implemented independently of twsock."""

    protocol: type[MachineProtocol]
    encode: Callable[[bytes], bytes]
    decode: Callable[[bytes], tuple[bytes, bytes] | None]

    def split(self, stream: bytes, *triggers: bytes) -> tuple[list[bytes], bytes]:
        """Return the messages before the first trigger at a boundary, and the rest."""
        messages: list[bytes] = []
        while not stream.startswith(triggers) and (taken := self.decode(stream)):
            messages.append(taken[0])
            stream = taken[1]
        return messages, stream


FORMATS = (Format(Frames, encode_frame, next_frame), Format(Lines, encode_line, next_line))


class Answering(StringTransport):
    """A transport whose peer may answer within a write."""

    def __init__(self) -> None:
        super().__init__(lenient=True)
        self.answers: list[Callable[[], None]] = []

    def write(self, data: bytes) -> None:
        super().write(data)
        while self.answers:
            self.answers.pop()()


#: Half of the connections meet any event; the others finish the upgrade more often.
may_ruin = precondition(lambda machine: machine.is_hostile)
may_disturb = precondition(lambda machine: machine.is_hostile or not machine.protocol.is_secure)


class Machine(RuleBasedStateMachine):
    """
    What the machines of both sides of an upgrade have in common.

    :ivar fed: all bytes delivered to the connection outside TLS.
    :ivar inside: all bytes delivered to it inside TLS.
    :ivar output: all bytes that it sent.
    :ivar received: the handled messages, and whether the connection was secure then.
    """

    format: Format
    protocol: Any
    peer: Any
    is_hostile: bool

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.transport: Any = Answering()
        self.fed = self.inside = self.output = b""
        self.received: list[tuple[bytes, bool]] = []
        self.waits: list[Deferred[None]] = []
        self.is_gone = self.has_peer_failed = False
        self.outbox = b""
        self.taken = self.count = self.depth = 0

    def connect(self, protocol: Any) -> None:
        protocol.machine = self
        self.protocol = self.transport.protocol = protocol
        protocol.makeConnection(self.transport)
        self.cached = protocol.transport
        self.settle()

    def teardown(self) -> None:
        self.lose()

    # Properties of one side, which the subclasses define.

    @property
    def has_switched(self) -> bool:
        """Whether bytes that are written from now on belong inside TLS."""
        raise NotImplementedError

    def expected(self) -> list[bytes]:
        """The messages that may be handled while the connection is not secure."""
        raise NotImplementedError

    def expected_inside(self) -> list[bytes]:
        """The messages that may be handled while it is secure."""
        return self.format.split(self.inside)[0]

    # Rules: the peer.

    @may_disturb
    @rule(is_slow=booleans(), repeat=sampled_from([1, 1, 3]))
    def send_plain(self, is_slow: bool, repeat: int) -> None:
        self.feed(b"".join(self.make_plain(is_slow) for _ in range(repeat)))

    @may_ruin
    @rule(cut=sampled_from([1, 3, 4, 5, 9]))
    def send_part(self, cut: int) -> None:
        self.feed(self.make_plain()[:cut])

    @may_ruin
    @rule(garbage=sampled_from(GARBAGE))
    def send_garbage(self, garbage: bytes) -> None:
        self.feed(garbage)

    @may_ruin
    @rule()
    def answer_in_the_next_write(self) -> None:
        """Deliver plaintext within the connection's next write."""
        self.transport.answers.append(lambda: self.feed(self.make_plain()))

    @may_disturb
    @rule(behind=sampled_from([b"", b"", b"plain"]), step=sampled_from([0, 0, 40]))
    def send_tls(self, behind: bytes, step: int) -> None:
        """
        Send all that the peer's TLS has to send, or part of it, with or without plaintext behind
        it.
        """
        sent = self.outbox[:step] if step else self.outbox
        self.outbox = self.outbox[len(sent) :]
        self.feed(sent + (self.make_plain() if behind else b""))

    @rule()
    def shake_hands(self) -> None:
        """Continue a handshake that has begun, as far as it goes."""
        while self.outbox and not self.is_gone:
            self.send_tls(b"", 0)

    @rule()
    def become_secure(self) -> None:
        """Finish a handshake, unless something prevents it."""
        raise NotImplementedError

    @rule(is_request=booleans(), is_together=booleans())
    def send_inside(self, is_request: bool, is_together: bool) -> None:
        if not self.peer.is_done:
            self.become_secure()
        if not self.peer.is_done or self.has_peer_failed or self.is_gone:
            return
        self.count += 1
        message = REQUEST if is_request else b"secure-%d" % self.count
        self.inside += self.format.encode(message)
        self.outbox += self.peer.say(self.format.encode(message))
        if not is_together:
            self.shake_hands()

    @may_ruin
    @rule(is_reset=booleans())
    def leave(self, is_reset: bool) -> None:
        if is_reset or self.transport.protocol is not self.protocol:
            self.lose()
        elif not self.is_gone:
            self.protocol.readConnectionLost()
            self.settle()

    # Rules: the application.

    @rule()
    def write(self) -> None:
        if not self.is_gone and self.protocol.is_open:
            self.protocol.send_message(self.mark(self.has_switched))
            self.settle()

    @rule(is_cached=booleans())
    def write_to_the_transport(self, is_cached: bool) -> None:
        if not self.is_gone and self.protocol.is_open:
            message = self.format.encode(self.mark(self.has_switched))
            (self.cached if is_cached else self.protocol.transport).write(message)
            self.settle()

    @precondition(lambda self: self.waits)
    @rule()
    def finish_slow_handler(self) -> None:
        wait = self.waits.pop(0)
        if not wait.called:
            self.answer()
            wait.callback(None)
            self.settle()

    @may_ruin
    @rule()
    def close(self) -> None:
        if not self.is_gone:
            self.protocol.close()
            self.settle()

    @rule(seconds=sampled_from([1, 11]))
    def let_time_pass(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.settle()

    # The claim.

    @invariant()
    def plaintext_stays_outside(self) -> None:
        if not hasattr(self, "protocol"):
            return
        plain = [message for message, is_secure in self.received if not is_secure]
        assert plain == self.expected()[: len(plain)]
        secure = [message for message, is_secure in self.received if is_secure]
        assert secure == self.expected_inside()[: len(secure)]
        assert self.received == [(m, False) for m in plain] + [(m, True) for m in secure]
        assert b"after" not in self.output
        assert b"before" not in self.peer.received

    # How the machine runs the connection.

    def make_plain(self, is_slow: bool = False) -> bytes:
        self.count += 1
        return self.format.encode(b"plain-%s%d" % (b"slow-" if is_slow else b"", self.count))

    def mark(self, is_after: bool) -> bytes:
        return b"after" if is_after else b"before"

    def answer(self) -> None:
        """Answer a message that was handled on one side of the switch or the other."""
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Deliver bytes."""
        if data and not self.is_gone:
            self.fed += data
            self.depth += 1
            self.transport.protocol.dataReceived(data)
            self.depth -= 1
            self.settle()

    def settle(self) -> None:
        """Pass on the bytes that were sent, and the end of the connection if it was ended."""
        if self.depth:
            return  # From within a write: the caller of the write has not returned.
        self.clock.advance(0)
        self.output += self.transport.value()
        self.transport.clear()
        _, tls = self.format.split(self.output, b"\x16\x03", b"\x15\x03")
        if tls.startswith((b"\x16\x03", b"\x15\x03")) and not self.has_peer_failed:
            try:
                self.outbox += self.peer.take(tls[self.taken :])
                self.has_peer_failed = getattr(self.peer, "error", None) is not None
            except ssl.SSLError:
                self.has_peer_failed = True
            self.taken = len(tls)
        if self.transport.disconnecting:
            self.lose()

    def lose(self) -> None:
        if not self.is_gone and hasattr(self, "protocol"):
            self.is_gone = True
            self.transport.protocol.connectionLost(Failure(ConnectionDone()))


class ServerMachine(Machine):
    """A server, whose peer is a client."""

    @initialize(
        format=sampled_from(FORMATS),
        policy=sampled_from([UpgradePolicy.ALLOWED, UpgradePolicy.REQUIRED]),
        is_hostile=booleans(),
    )
    def begin(self, format: Format, policy: UpgradePolicy, is_hostile: bool) -> None:
        self.format, self.policy, self.peer = format, policy, ClientPeer(TRUSTING)
        self.is_hostile = is_hostile
        factory = StreamServerFactory(
            self.clock, format.protocol, upgrade=UpgradeToSsl(TLS, policy), idle_timeout=None
        )
        self.connect(factory.buildProtocol(None))

    @may_disturb
    @rule(is_together=booleans())
    def send_request(self, is_together: bool) -> None:
        """Send the request, alone or in one piece with bytes that may not follow it."""
        request = self.format.encode(REQUEST)
        self.feed(request + (self.make_plain() if is_together else b""))

    @may_disturb
    @rule(is_together=booleans())
    def begin_handshake(self, is_together: bool) -> None:
        """Send a ClientHello, in one piece with the request or without a request."""
        if not self.peer.is_done and not self.has_peer_failed:
            self.outbox += self.peer.hello()
            if is_together:
                self.outbox = self.format.encode(REQUEST) + self.outbox

    def become_secure(self) -> None:
        self.begin_handshake(is_together=bool(self.count % 2))
        self.shake_hands()

    @property
    def has_switched(self) -> bool:
        if self.protocol.is_secure:
            return True
        messages, rest = self.before_the_switch()
        has_trigger = rest.startswith(b"\x16\x03") or REQUEST in messages
        handled = sum(not is_secure for _, is_secure in self.received)
        is_busy = any(not wait.called for wait in self.waits)
        return has_trigger and not is_busy and handled == len(self.expected())

    def expected(self) -> list[bytes]:
        if self.policy is UpgradePolicy.REQUIRED:
            return []
        messages, _ = self.before_the_switch()
        return [message for message in messages if message != REQUEST]

    def expected_inside(self) -> list[bytes]:
        return [message for message in super().expected_inside() if message != REQUEST]

    def before_the_switch(self) -> tuple[list[bytes], bytes]:
        """
        Return the messages that may be handled in plaintext, the request included, and the rest.
        """
        messages, rest = self.format.split(self.fed, b"\x16\x03")
        if REQUEST in messages:
            return messages[: messages.index(REQUEST) + 1], rest
        return messages, rest

    def answer(self) -> None:
        self.protocol.send_message(self.mark(self.protocol.is_secure))


class ClientMachine(Machine):
    """A client, whose peer is a server."""

    called = 0
    has_called = False
    outcome: object = None

    @initialize(
        format=sampled_from(FORMATS),
        style=sampled_from(UpgradeStyle),
        is_hostile=booleans(),
    )
    def begin(self, format: Format, style: UpgradeStyle, is_hostile: bool) -> None:
        self.format, self.style, self.peer = format, style, ServerPeer()
        self.is_hostile = is_hostile
        protocol: Any = format.protocol()
        protocol.group = ConnectionRegistry(self.clock)
        self.connect(protocol)

    @precondition(lambda self: not self.has_called)
    @rule()
    def upgrade(self) -> None:
        if self.protocol.is_open:
            self.has_called = True
            self.called = len(self.received)
            upgrading = self.protocol.upgrade_to_ssl(ClientUpgrade(OPTIONS, self.style))
            upgrading.addErrback(lambda failure: failure.trap(SocketError))
            self.settle()

    @may_disturb
    @rule(is_together=booleans())
    def begin_handshake(self, is_together: bool) -> None:
        """Send a go-ahead, requested or not."""
        go_ahead = self.format.encode(GO_AHEAD)
        self.feed(go_ahead + (self.make_plain() if is_together else b""))

    def become_secure(self) -> None:
        if not self.has_called:
            self.upgrade()
        if self.style is UpgradeStyle.COMMAND and not self.peer.is_done:
            self.feed(self.format.encode(GO_AHEAD))
        self.shake_hands()

    @property
    def has_switched(self) -> bool:
        return self.has_called

    def expected(self) -> list[bytes]:
        messages, _ = self.format.split(self.fed)
        return messages[: self.called] if self.has_called else messages

    def answer(self) -> None:
        self.protocol.send_message(self.mark(self.has_called))


class ModelTests(SynchronousTestCase):
    """The machines, each as one test."""

    def explore(self, machine: type[Machine], examples: int) -> None:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples if THOROUGH else examples // 8,
                stateful_step_count=20,
                derandomize=True,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )

    def test_a_server_keeps_plaintext_outside(self) -> None:
        """Both formats, both triggers; upgrades that are allowed or required."""
        self.explore(ServerMachine, 1200)

    def test_a_client_keeps_plaintext_outside(self) -> None:
        """Both formats; direct, and by command."""
        self.explore(ClientMachine, 500)
