"""The counters of services as measurements."""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.connections import Connected, FrameRecorder
from tests.websocket import connections as websocket_connections
from twsock.datagram.protocol import EchoCounters
from twsock.protocols import FrameEcho, StreamServerFactory
from twsock.services.measurements import (
    Kind,
    Measurement,
    describe_counts,
    group_by_name,
    measure_datagrams,
    measure_streams,
)
from twsock.wire.frames import encode_frame


class Port:
    """A port, as transports refer to it."""


class Descriptor(FileDescriptor):
    """A transport that some port has accepted; it keeps what is written."""

    def __init__(self, port: Port) -> None:
        super().__init__(MemoryReactorClock())
        self.server = port
        self.connected = True

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 1337)

    getPeer = getHost


def value_of(measurements: list[Measurement], name: str, reason: str | None = None) -> float:
    """Return the value of the only measurement with a name and a reason."""
    (found,) = [
        each.value
        for each in measurements
        if each.name == f"twsock_{name}" and each.labels.get("reason") == reason
    ]
    return found


class StreamTests(SynchronousTestCase):
    """A server of connections."""

    def test_messages_and_bytes_of_both_directions_are_measured(self) -> None:
        """They have the name of the protocol class as a label."""
        connected = Connected(FrameEcho)
        connected.receive(encode_frame(b"hello") * 2)
        measured = list(measure_streams(connected.factory))
        self.assertEqual({each.labels["protocol"] for each in measured}, {"FrameEcho"})
        for name, value in (
            ("connections", 1),
            ("open_connections", 1),
            ("messages_received", 2),
            ("messages_sent", 2),
            ("received_bytes", 18),
            ("sent_bytes", 18),
        ):
            self.assertEqual(value_of(measured, name), value, name)

    def test_a_full_output_is_measured(self) -> None:
        """The count grows when the output becomes full."""
        connected = Connected(FrameEcho)
        assert connected.transport.producer is not None
        connected.transport.producer.pauseProducing()
        connected.receive(encode_frame(b"hello"))
        measured = list(measure_streams(connected.factory))
        self.assertEqual(value_of(measured, "output_paused"), 1)

    def test_a_violation_is_a_reason_of_an_early_end(self) -> None:
        """The other reasons stay at 0, so that their time series exist."""
        connected = Connected(FrameEcho, max_payload=10)
        connected.receive(b"\x00\x00\x00\x0b")
        measured = list(measure_streams(connected.factory))
        self.assertEqual(value_of(measured, "connections_ended", "violation"), 1)
        self.assertEqual(value_of(measured, "connections_ended", "idle"), 0)

    def test_buckets_of_handshakes_include_the_smaller_ones(self) -> None:
        """The last one has all of them."""
        connected = Connected(FrameEcho)
        for seconds in (0.0, 0.002, 100.0):
            connected.factory.group.counters.handshake_seconds.observe(seconds)
        measured = [
            each
            for each in measure_streams(connected.factory)
            if each.name == "twsock_handshake_seconds"
        ]
        buckets = {e.labels["le"]: e.value for e in measured if e.suffix == "_bucket"}
        self.assertEqual((buckets["0.001"], buckets["10.0"], buckets["+Inf"]), (1, 2, 3))
        self.assertEqual([e.value for e in measured if e.suffix == "_count"], [3])

    def test_failed_upgrades_have_a_reason(self) -> None:
        """One time series for each status."""
        connected = Connected(FrameEcho)
        connected.factory.group.counters.upgrade_failures["ConnectionTimedOut"] = 3
        measured = list(measure_streams(connected.factory))
        self.assertEqual(value_of(measured, "upgrade_failures", "ConnectionTimedOut"), 3)

    def test_each_port_is_an_endpoint(self) -> None:
        """Its bytes that wait, too; connections of no port are left out while there is none."""
        factory = StreamServerFactory(Clock(), FrameRecorder)
        ports = [Port(), Port()]
        for number, port in enumerate(ports):
            factory.group.add_port(port, f"tcp:127.0.0.1:{number}")
        for port, data in zip(ports, (b"\0\0", b"\0\0\0"), strict=True):
            transport: Any = Descriptor(port)
            protocol: Any = factory.buildProtocol(None)
            protocol.makeConnection(transport)
            protocol.dataReceived(data)
        measured = list(measure_streams(factory))
        found = {
            (each.name, each.labels["endpoint"]): each.value
            for each in measured
            if each.name in ("twsock_open_connections", "twsock_buffered_bytes")
        }
        self.assertEqual(
            found,
            {
                ("twsock_open_connections", "tcp:127.0.0.1:0"): 1,
                ("twsock_open_connections", "tcp:127.0.0.1:1"): 1,
                ("twsock_buffered_bytes", "tcp:127.0.0.1:0"): 2,
                ("twsock_buffered_bytes", "tcp:127.0.0.1:1"): 3,
            },
        )

    def test_a_full_output_is_timed(self) -> None:
        """Up to the time of the measurement."""
        connected = Connected(FrameEcho)
        assert connected.transport.producer is not None
        connected.transport.producer.pauseProducing()
        connected.receive(encode_frame(b"hello"))
        connected.clock.advance(2)
        measured = list(measure_streams(connected.factory))
        self.assertEqual(value_of(measured, "output_paused_seconds"), 2)
        self.assertEqual(value_of(measured, "full_outputs"), 1)

    def test_a_web_socket_has_further_numbers(self) -> None:
        """Refused requests by status, and ends by code."""
        made = websocket_connections.connected(websocket_connections.Recorder)
        made.receive(websocket_connections.close(1001))
        other: Any = made.factory.buildProtocol(None)
        other.makeConnection(StringTransport())
        other.dataReceived(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
        made.lose()
        measured = {
            (each.name, each.labels.get("code") or each.labels.get("status")): each.value
            for each in measure_streams(made.factory)
            if "websocket" in each.name
        }
        self.assertEqual(
            measured,
            {
                ("twsock_websocket_closes", "1001"): 1,
                ("twsock_websocket_requests_refused", "426"): 1,
            },
        )


class DatagramTests(SynchronousTestCase):
    """One UDP port."""

    def test_each_reason_of_a_drop_is_a_label(self) -> None:
        """A port that has no send queue holds 0 bytes."""
        counters = EchoCounters(received=7, answered=4, limited=2, dropped_by_the_kernel=1)
        measured = list(measure_datagrams("udp:127.0.0.1:1337", "DatagramEcho", counters, None))
        self.assertEqual({each.labels["endpoint"] for each in measured}, {"udp:127.0.0.1:1337"})
        for name, reason, value in (
            ("datagrams_received", None, 7),
            ("datagrams_answered", None, 4),
            ("datagrams_dropped", "rate_limit", 2),
            ("datagrams_dropped", "receive_buffer", 1),
            ("datagrams_dropped", "loop_risk", 0),
            ("buffered_bytes", None, 0),
        ):
            self.assertEqual(value_of(measured, name, reason), value, (name, reason))


class GroupTests(SynchronousTestCase):
    """Measurements of several services."""

    def test_measurements_of_one_name_are_together(self) -> None:
        """Exporters write each name once."""
        first = Measurement("a", "", Kind.GAUGE, {"n": "1"}, 1)
        other = Measurement("b", "", Kind.GAUGE, {}, 2)
        last = Measurement("a", "", Kind.GAUGE, {"n": "2"}, 3)
        grouped = group_by_name([first, other, last])
        self.assertEqual(grouped, {"a": [first, last], "b": [other]})


class DescribeCountsTests(SynchronousTestCase):
    """The counts of a log line."""

    def test_counts_of_0_are_left_out(self) -> None:
        """Those that are always shown are not, and the order is kept."""
        counts = [("accepted", 0), ("refused", 0), ("handler_errors", 2), ("messages", 7)]
        line = describe_counts(counts, ("accepted", "messages"))
        self.assertEqual(line, "0 accepted, 2 handler errors, 7 messages")
