"""``--metrics``, ``--health`` and ``--drain-delay``."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.services.processes import PATIENCE, echo, twistd
from tests.tls.peer import SERVER, client_context
from twsock.services.everything import everything_service
from twsock.services.listening import ListeningService
from twsock.services.metrics import MetricsService, listening_services
from twsock.services.process_options import ProcessOptions
from twsock.services.quiet_site import MAX_BODY
from twsock.services.stream import stream_service
from twsock.services.stream_endpoints import parse_server_endpoint
from twsock.wire import encode_frame

_PAGE = "tcp:0:interface=127.0.0.1"

#: Connects to a path as a user, and prints what happens.
_CONNECT = """
import os, socket, sys
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
    print("connected")
except OSError as error:
    print(error.strerror)
"""


def fetch(url: str, accept: str = "*/*", data: bytes | None = None) -> tuple[int, str, str]:
    """Return status, content type and body of a page."""
    request = urllib.request.Request(url, data, {"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def exchange(address: str | int, wrap: Any = None, prefix: bytes = b"") -> None:
    """Exchange one frame with a path or a port of 127.0.0.1, behind a prefix."""
    is_port = isinstance(address, int)
    family = socket.AF_INET if is_port else socket.AF_UNIX
    target: Any = ("127.0.0.1", address) if is_port else address
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.socket(family))
        connection.settimeout(PATIENCE)
        connection.connect(target)
        if wrap is not None:
            connection = stack.enter_context(wrap(connection, server_hostname="localhost"))
        connection.sendall(prefix + encode_frame(b"x"))
        answer = b""
        while len(answer) < 5:
            answer += connection.recv(5 - len(answer))


def samples(families: Any) -> dict[str, float]:
    """Return the sum of the samples of each name."""
    sums: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


class OptionsTests(SynchronousTestCase):
    """What the options take."""

    def refusal(self, *arguments: str) -> str:
        """Return why options are refused."""
        return str(self.assertRaises(UsageError, ProcessOptions().parseOptions, arguments))

    def test_a_bad_endpoint_is_refused(self) -> None:
        """The line names the option."""
        for option in ("--metrics", "--health"):
            line = self.refusal(option, "tcp:x")
            self.assertIn(f"{option}: ClassTypeNotFound (9): cannot use the endpoint", line)

    def test_a_delay_without_a_page_is_refused(self) -> None:
        """No load balancer could notice it."""
        self.assertIn("needs --metrics or --health", self.refusal("--drain-delay", "1"))

    def test_a_delay_that_is_no_time_is_refused(self) -> None:
        """It takes seconds."""
        self.assertIn("--drain-delay takes seconds", self.refusal("--drain-delay", "-1"))

    def test_without_the_extra_metrics_are_refused_and_health_is_served(self) -> None:
        """The line says what to install."""
        self.patch(sys, "modules", {**sys.modules, "prometheus_client": None})
        self.assertIn("pip install 'twsock[metrics]'", self.refusal("--metrics", _PAGE))
        ProcessOptions().parseOptions(["--health", _PAGE])

    def test_an_unknown_level_is_refused(self) -> None:
        """The line has the levels."""
        line = self.refusal("--log-level", "loud")
        self.assertIn("--log-level takes debug, info, warn, error or critical, not 'loud'", line)


class ReadinessTests(SynchronousTestCase):
    """When a process is ready."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.service = stream_service(self.reactor, [_PAGE])
        self.page = MetricsService(self.reactor, [], lambda: [self.service], has_metrics=False)

    def test_a_process_is_ready_while_its_services_listen(self) -> None:
        """Not before the start, and not after the stop."""
        ready = [self.page.is_ready]
        self.service.startService()
        ready.append(self.page.is_ready)
        self.successResultOf(self.service.stopService())
        ready.append(self.page.is_ready)
        self.assertEqual(ready, [False, True, False])

    def test_a_drain_is_not_ready_and_lasts_for_the_delay(self) -> None:
        """The services still listen."""
        self.service.startService()
        self.addCleanup(self.service.stopService)
        drained = self.page.drain(5)
        self.assertFalse(self.page.is_ready)
        self.reactor.advance(4.9)
        self.assertNoResult(drained)
        self.reactor.advance(0.1)
        self.successResultOf(drained)
        self.assertTrue(self.service.ports)

    def test_a_second_signal_ends_the_delay(self) -> None:
        """Before it begins, as well."""
        drained = self.page.drain(5)
        self.page.hurry()
        self.successResultOf(drained)
        self.successResultOf(self.page.drain(5))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_all_services_of_a_process_are_found(self) -> None:
        """``twistd twsock`` has four."""
        everything = everything_service(self.reactor, port=0, websocket_port=0)
        found = list(listening_services(everything))
        self.assertEqual(len(found), 4)
        for service in found:
            self.assertIsInstance(service, ListeningService)

    def test_the_purpose_names_what_is_served(self) -> None:
        """``--check`` prints it."""
        for has_metrics, purpose in (
            (False, "serve health checks"),
            (True, "serve metrics and health checks"),
        ):
            page = MetricsService(self.reactor, [], list, has_metrics=has_metrics)
            self.assertEqual(page.purpose, purpose)


class QueueTests(TestCase):
    """Clients that the page has not accepted when it stops."""

    async def test_a_queued_request_is_answered(self) -> None:
        """The kernel has established its connection."""
        from twisted.internet import reactor

        endpoints = [(_PAGE, parse_server_endpoint(reactor, _PAGE))]
        page = MetricsService(reactor, endpoints, list, has_metrics=False)
        page.startService()
        port: Any = page.ports[0]
        with socket.create_connection(("127.0.0.1", port.getHost().port), timeout=10) as client:
            client.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
            await page.stopService()
            answer = b""
            while chunk := client.recv(4096):
                answer += chunk
        self.assertTrue(answer.endswith(b"live\n"), answer)


class ProcessTests(SynchronousTestCase):
    """Processes of ``twistd``, as a monitor sees them."""

    def test_both_formats_are_served(self) -> None:
        """The parsers of prometheus-client read them; a frame is counted."""
        arguments = ("--endpoint", _PAGE, "--metrics", _PAGE)
        with twistd("twsock-stream", *arguments) as running:
            page, port = running.wait_for_ports(2)
            echo(port, b"hello")
            url = f"http://127.0.0.1:{page}/metrics"
            endpoint = f'endpoint="tcp:127.0.0.1:{port}"'
            _, plain_type, plain = fetch(url)
            accept = "application/openmetrics-text; version=1.0.0"
            _, open_type, opened = fetch(url, accept)
        self.assertTrue(plain_type.startswith("text/plain; version=0.0.4"), plain_type)
        self.assertTrue(open_type.startswith("application/openmetrics-text"), open_type)
        self.assertIn(endpoint, plain)
        self.assertIn(endpoint, opened)
        for families in (
            text_string_to_metric_families(plain),
            openmetrics.text_string_to_metric_families(opened),
        ):
            found = samples(families)
            self.assertEqual(found["twsock_connections_total"], 1)
            self.assertEqual(found["twsock_messages_received_total"], 1)
            self.assertEqual(found["twsock_sent_bytes_total"], 9)

    def test_each_endpoint_has_its_own_numbers(self) -> None:
        """Below TLS and a PROXY header, and on a UNIX socket."""
        with tempfile.TemporaryDirectory() as folder:
            certificate = Path(folder) / "certificate.pem"
            certificate.write_bytes(SERVER.private_key_and_cert_chain_pem.bytes())
            strings = (
                f"unix:{folder}/echo",
                f"ssl:0:privateKey={certificate}:interface=127.0.0.1",
                f"haproxy:{_PAGE}",
            )
            endpoints = [word for string in strings for word in ("--endpoint", string)]
            arguments = ("twsock-stream", "--metrics", _PAGE, *endpoints)
            # Twisted's ssl: endpoint uses deprecated names of its own.
            with twistd(*arguments, environment={"PYTHONWARNINGS": ""}) as running:
                (page,) = running.wait_for_ports()
                unix = running.wait_for(r"listening on (unix:\S+) ")
                secure, behind = running.wait_for_ports(2)
                for wrap, prefix, address in (
                    (None, b"", unix[5:]),
                    (client_context().wrap_socket, b"", secure),
                    (None, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", behind),
                ):
                    exchange(address, wrap, prefix)
                _, _, text = fetch(f"http://127.0.0.1:{page}/metrics")
        families = {each.name: each for each in text_string_to_metric_families(text)}
        found = {
            sample.labels["endpoint"]: sample.value
            for sample in families["twsock_messages_sent"].samples
        }
        ports = [f"tcp:127.0.0.1:{port}" for port in (secure, behind)]
        self.assertEqual(found, dict.fromkeys([unix, *ports], 1))

    def test_datagram_ports_are_labelled(self) -> None:
        """With the endpoint that the log names."""
        endpoint = "udp:0:interface=127.0.0.1"
        with twistd("twsock-datagram", "--endpoint", endpoint, "--metrics", _PAGE) as running:
            (page,) = running.wait_for_ports()
            port = running.wait_for(r"listening on (udp:\S+)")
            _, _, text = fetch(f"http://127.0.0.1:{page}/metrics")
        self.assertIn(f'endpoint="{port}"', text)

    def test_websockets_are_measured(self) -> None:
        """Before the first connection, as well."""
        with twistd("twsock-websocket", "--endpoint", _PAGE, "--metrics", _PAGE) as running:
            page, _ = running.wait_for_ports(2)
            _, _, text = fetch(f"http://127.0.0.1:{page}/metrics")
        found = samples(text_string_to_metric_families(text))
        self.assertEqual(found["twsock_connections_total"], 0)
        self.assertIn('protocol="WebSocketEcho"', text)

    def test_a_page_that_cannot_listen_ends_the_start(self) -> None:
        """In one line; so does a service behind the page."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
            for endpoint, health in ((_PAGE, taken), (taken, "unix:page")):
                arguments = ("--endpoint", endpoint, "--health", health)
                with twistd("twsock-stream", *arguments) as running:
                    self.assertEqual(running.wait(), 1, running.log)
                    self.assertIn(f"twsock: cannot listen on {taken}", running.log)
                    self.assertNotIn("Traceback", running.log)
                    self.assertFalse((running.folder / "page").exists())

    def test_health_alone_has_no_metrics(self) -> None:
        """Any other page is not found; bodies are dropped."""
        with twistd("twsock-stream", "--endpoint", _PAGE, "--health", _PAGE) as running:
            page, _ = running.wait_for_ports(2)
            url = f"http://127.0.0.1:{page}"
            self.assertEqual(fetch(f"{url}/health/live")[::2], (200, "live\n"))
            self.assertEqual(fetch(f"{url}/health/ready")[::2], (200, "ready\n"))
            self.assertEqual(fetch(f"{url}/metrics")[0], 404)
            self.assertEqual(fetch(f"{url}/health/live", data=bytes(MAX_BODY))[0], 405)

    def test_a_page_on_a_unix_socket_is_for_the_users_of_its_mode(self) -> None:
        """The kernel refuses another user."""
        if os.geteuid() != 0:
            self.skipTest("only root can start a process of another user")
        arguments = ("--endpoint", _PAGE, "--health", "unix:page:mode=600")
        with twistd("twsock-stream", *arguments) as running:
            running.wait_for("listening on unix:")
            running.folder.chmod(0o755)
            words = [sys.executable, "-c", _CONNECT, str(running.folder / "page")]
            for user, expected in ("0", "connected\n"), ("65534", "Permission denied\n"):
                found = subprocess.run([*words, user], capture_output=True, text=True, check=False)
                self.assertEqual(found.stdout, expected, found.stderr)

    def test_curl_sees_503_while_connections_are_accepted(self) -> None:
        """From SIGTERM until the delay is over; a second SIGTERM ends it."""
        curl = shutil.which("curl")
        if curl is None:
            self.skipTest("curl is not installed")
        arguments = ("--endpoint", _PAGE, "--health", _PAGE, "--drain-delay", str(PATIENCE))
        with twistd("twsock-stream", *arguments) as running:
            page, port = running.wait_for_ports(2)
            running.terminate()
            running.wait_for("not ready: stops listening after")
            url = f"http://127.0.0.1:{page}/health/ready"
            command = [curl, "--silent", "--write-out", " %{http_code}", url]
            answer = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(answer.stdout, "not ready\n 503")
            self.assertEqual(echo(port), b"Hello, World!")
            running.terminate()
            running.wait()
            self.assertIn("ending at once", running.log)

    def test_connections_are_logged_if_asked(self) -> None:
        """A frame and its answer."""
        with twistd("twsock-stream", "--endpoint", _PAGE, "--log-connections") as running:
            (port,) = running.wait_for_ports()
            echo(port, b"hello")
            line = running.wait_for(r"(127\.0\.0\.1:\d+ ended after .*)")
        self.assertIn("plaintext, 1 messages, 9 bytes in, 9 bytes out, in order", line)
