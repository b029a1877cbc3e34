"""Public calls raise an error for a bad argument at once, as Windows does with ``E_INVALIDARG``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twsock import (
    DatagramSocket,
    DataReader,
    DataWriter,
    EndpointPair,
    HostName,
    MessageWebSocket,
    SocketError,
    SocketErrorStatus,
    SocketProtectionLevel,
    StreamSocket,
    StreamSocketListener,
)
from twsock.datagram.network.interfaces import find_interface
from twsock.datagram.udp_socket import DatagramOptions, numeric_address
from twsock.protocols import (
    DatagramEcho,
    FrameEcho,
    LineEcho,
    RateLimit,
    StreamServerFactory,
)
from twsock.wire import FrameDecoder, LineDecoder
from twsock.wire.byte_queue import ByteQueue

E_INVALIDARG = 0x80070057

Call = Callable[[Any], object]


def stream() -> StreamSocket:
    return StreamSocket(Clock())


def listener(**options: Any) -> StreamSocketListener:
    return StreamSocketListener(Clock(), **options)


def datagrams() -> DatagramSocket:
    return DatagramSocket(Clock())


def websocket() -> MessageWebSocket:
    return MessageWebSocket(Clock())


def reader() -> DataReader:
    return DataReader.from_buffer(b"abcdefgh")


def set_option(control: object, name: str) -> Call:
    return lambda value: setattr(control, name, value)


#: Calls with a host.
HOSTS: dict[str, Call] = {
    "HostName": HostName,
    "HostName.compare": lambda value: HostName.compare("a", value),
    "EndpointPair": lambda value: EndpointPair(None, "", HostName(value), "80"),
    "StreamSocket.connect": lambda value: stream().connect(value, "80"),
    "StreamSocket.upgrade_to_ssl": lambda value: stream().upgrade_to_ssl(
        SocketProtectionLevel.SSL, value
    ),
    "StreamSocket.get_endpoint_pairs": lambda value: StreamSocket.get_endpoint_pairs(
        Clock(), value, "80"
    ),
    "StreamSocketListener.bind_endpoint": lambda value: listener().bind_endpoint(value, ""),
    "DatagramSocket.connect": lambda value: datagrams().connect(value, "80"),
    "DatagramSocket.get_output_stream": lambda value: datagrams().get_output_stream(value, "80"),
    "DatagramSocket.bind_endpoint": lambda value: datagrams().bind_endpoint(value, ""),
}

#: Calls with a port, which may also be the name of a service.
SERVICES: dict[str, Call] = {
    "StreamSocket.connect": lambda value: stream().connect("127.0.0.1", value),
    "StreamSocketListener.bind_endpoint": lambda value: listener().bind_endpoint(None, value),
    "StreamSocketListener.bind_service_name": lambda value: listener().bind_service_name(value),
    "DatagramSocket.connect": lambda value: datagrams().connect("127.0.0.1", value),
    "DatagramSocket.get_output_stream": lambda value: datagrams().get_output_stream(
        "127.0.0.1", value
    ),
    "DatagramSocket.bind_endpoint": lambda value: datagrams().bind_endpoint(None, value),
    "DatagramSocket.bind_service_name": lambda value: datagrams().bind_service_name(value),
}

#: Calls with a count, a size or a limit.
NUMBERS: dict[str, Call] = {
    "InputStream.read": lambda value: stream().input_stream.read(value),
    "InputStream.receive_exactly": lambda value: stream().input_stream.receive_exactly(value),
    "InputStream.receive_some": lambda value: stream().input_stream.receive_some(value),
    "InputStream.receive_until": lambda value: stream().input_stream.receive_until(b"\n", value),
    "DataReader.load": lambda value: DataReader(stream().input_stream).load(value),
    "DataReader.read_bytes": lambda value: reader().read_bytes(value),
    "DataReader.read_buffer": lambda value: reader().read_buffer(value),
    "DataReader.read_string": lambda value: reader().read_string(value),
    "DataWriter.write_buffer start": lambda value: DataWriter().write_buffer(b"abc", value),
    "DataWriter.write_buffer count": lambda value: DataWriter().write_buffer(b"abc", 0, value),
    "StreamSocketListener": lambda value: listener(max_connections=value),
    "StreamSocketListener max_connections_per_address": lambda value: listener(
        max_connections_per_address=value
    ),
    "StreamSocketListener max_buffered": lambda value: listener(max_buffered=value),
    "StreamSocketControl.outbound_unicast_hop_limit": set_option(
        stream().control, "outbound_unicast_hop_limit"
    ),
    "StreamSocketControl.outbound_buffer_size_in_bytes": set_option(
        stream().control, "outbound_buffer_size_in_bytes"
    ),
    "DatagramSocketControl.outbound_unicast_hop_limit": set_option(
        datagrams().control, "outbound_unicast_hop_limit"
    ),
    "DatagramSocketControl.outbound_multicast_hop_limit": set_option(
        datagrams().control, "outbound_multicast_hop_limit"
    ),
    "DatagramSocketControl.inbound_buffer_size_in_bytes": set_option(
        datagrams().control, "inbound_buffer_size_in_bytes"
    ),
    "DatagramSocketControl.max_datagram": set_option(datagrams().control, "max_datagram"),
    **{
        f"MessageWebSocketControl.{name}": set_option(websocket().control, name)
        for name in ("max_message_size", "max_fragments", "max_fragment_size")
    },
    "MessageWebSocket.close": lambda value: websocket().close(value),
    "DatagramOptions.hop_limit": lambda value: DatagramOptions(hop_limit=value),
    "DatagramOptions.max_datagram": lambda value: DatagramOptions(max_datagram=value),
    "DatagramOptions.receive_buffer": lambda value: DatagramOptions(receive_buffer=value),
    "numeric_address": lambda value: numeric_address("127.0.0.1", value),
    "find_interface": find_interface,
    "StreamServerFactory max_connections": lambda value: StreamServerFactory(
        Clock(), FrameEcho, max_connections=value
    ),
    "StreamServerFactory max_buffered": lambda value: StreamServerFactory(
        Clock(), FrameEcho, max_buffered=value
    ),
    "StreamServerFactory max_connections_per_address": lambda value: StreamServerFactory(
        Clock(), FrameEcho, max_connections_per_address=value
    ),
    "StreamServerFactory max_unsent": lambda value: StreamServerFactory(
        Clock(), FrameEcho, max_unsent=value
    ),
    "StreamServerFactory of frames": lambda value: StreamServerFactory(
        Clock(), FrameEcho, max_payload=value
    ),
    "StreamServerFactory of lines": lambda value: StreamServerFactory(
        Clock(), LineEcho, max_payload=value
    ),
    "DatagramEcho": lambda value: DatagramEcho(reply_port=value),
    "RateLimit burst": lambda value: RateLimit(1, value),
    "RateLimit max_peers": lambda value: RateLimit(1, 1, value),
    "FrameDecoder": FrameDecoder,
    "LineDecoder": LineDecoder,
}

#: Calls with a value to write; none is of the type of another.
VALUES: dict[str, Call] = {
    name: lambda value, name=name: getattr(DataWriter(), name)(value)  # type: ignore[misc]
    for name in (
        "write_string",
        "measure_string",
        "write_guid",
        "write_date_time",
        "write_time_span",
        "write_int32",
        "write_bytes",
    )
}


class ParameterTests(SynchronousTestCase):
    """Arguments that are refused."""

    def assert_refused(self, name: str, call: Call, value: object) -> None:
        """The error comes from the call, not through a Deferred, and is an invalid argument."""
        try:
            made = call(value)
        except (TypeError, ValueError) as error:
            failed = SocketError.from_exception(error)
            found = (failed.status, failed.hresult)
            self.assertEqual(found, (SocketErrorStatus.UNKNOWN, E_INVALIDARG), (name, value))
            self.assertIs(SocketError.get_status(error), SocketErrorStatus.UNKNOWN)
        else:
            self.fail(f"{name} accepts {value!r}: {made!r}")

    def test_a_malformed_host_is_refused(self) -> None:
        """It is refused before any lookup."""
        for name, call in HOSTS.items():
            for value in ("a b", "[::1]", "127.0.0.1:80", b"localhost", 5, 1.5):
                self.assert_refused(name, call, value)

    def test_a_port_is_an_integer_up_to_65535(self) -> None:
        """A float, True and a larger number are refused."""
        for name, call in SERVICES.items():
            for value in (80.0, True, b"80", None, -1, 65_536, "65536"):
                self.assert_refused(name, call, value)

    def test_a_count_is_an_integer(self) -> None:
        """``load(1.5)`` and ``load(True)`` are refused."""
        for name, call in NUMBERS.items():
            for value in (1.5, 1.0, True, "1", float("nan")):
                if not (name == "find_interface" and value == "1"):
                    self.assert_refused(name, call, value)

    def test_a_value_of_another_type_is_refused(self) -> None:
        """The error names the expected type."""
        for name, call in VALUES.items():
            for value in (1.5, None, date(2020, 1, 1)):
                self.assert_refused(name, call, value)

    def test_an_object_with_index_counts_as_an_integer(self) -> None:
        """Python calls its ``__index__``."""

        class Two:
            def __index__(self) -> int:
                return 2

        two: Any = Two()
        self.assertEqual(reader().read_bytes(two), b"ab")
        self.assertEqual(reader().read_string(two), "ab")

    def test_a_refused_count_consumes_nothing(self) -> None:
        """Also if the bytes arrived in several pieces."""
        queue = ByteQueue()
        queue.feed(b"a" * 2000)
        queue.feed(b"b" * 2000)
        half: Any = 3000.5
        self.assertRaises(TypeError, queue.take, half)
        self.assertEqual((queue.size, queue.take(4000)), (4000, b"a" * 2000 + b"b" * 2000))
