"""
The page of ``--metrics``, read by programs of Prometheus, and JSON logs, read by jq.

Each test is skipped where its program is not installed, and in the daily profile.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.outside_programs import OUR_CLIENT, Folder, needs
from tests.services.processes import PATIENCE, Twistd, echo, twistd
from tests.test_outside_tools import find

_LOCAL = "tcp:0:interface=127.0.0.1"
_METRICS = ("--metrics", _LOCAL)


@contextmanager
def used_service() -> Iterator[tuple[int, int]]:
    """Run an echo that has answered a frame; yields the port of its page, and its own port."""
    with twistd("twsock-stream", "--endpoint", _LOCAL, *_METRICS) as running:
        page, port = running.wait_for_ports(2)
        echo(port)
        yield page, port


def break_rules(port: int) -> None:
    """Connect, and be refused: a frame above all limits, and a request that is no WebSocket."""
    for words in (b"\xff" * 8, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(words)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(1000):
                    pass


def read(url: str) -> bytes:
    """Return the body of a page."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        body: bytes = answer.read()
    return body


class PromtoolTests(Folder):
    """``promtool check metrics``: the format and the names."""

    def check(self, page: int) -> str:
        """Return the output of the program; it is empty if there is no objection."""
        done = subprocess.run(
            [find("promtool") or "promtool", "check", "metrics"],
            input=read(f"http://127.0.0.1:{page}/metrics"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
        )
        return done.stdout.decode()

    @needs("promtool")
    def test_streams_and_datagrams_pass(self) -> None:
        """After a frame; of datagrams without any."""
        with used_service() as (page, _):
            self.assertEqual(self.check(page), "")
        with twistd("twsock-datagram", "--endpoint", f"udp:{_LOCAL[4:]}", *_METRICS) as running:
            (page,) = running.wait_for_ports()
            self.assertEqual(self.check(page), "")

    @needs("promtool")
    def test_workers_pass(self) -> None:
        """Each worker has its own numbers, by the label ``worker``."""
        options = ("--endpoint", _LOCAL, "--workers", "2", *_METRICS)
        with twistd("twsock-stream", *options) as running:
            page, port = running.wait_for_ports(2)
            for _ in range(2):
                running.wait_for(r"worker \d serves")
            echo(port)
            self.assertEqual(self.check(page), "")
            text = read(f"http://127.0.0.1:{page}/metrics").decode()
            for number in (1, 2):
                self.assertIn(f'worker="{number}"', text)

    @needs("promtool")
    def test_web_sockets_pass(self) -> None:
        """After messages, an end and a refused request."""
        with twistd("twsock-websocket", "--endpoint", _LOCAL, *_METRICS) as running:
            page, port = running.wait_for_ports(2)
            self.run_program(sys.executable, "-c", OUR_CLIENT, f"ws://127.0.0.1:{port}/")
            self.refuse(port, running)
            text = read(f"http://127.0.0.1:{page}/metrics").decode()
            self.assertIn('twsock_websocket_closes_total{code="1000"', text)
            self.assertIn("twsock_websocket_requests_refused_total{", text)
            self.assertEqual(self.check(page), "")

    def refuse(self, port: int, running: Twistd) -> None:
        """Send a request that is no WebSocket."""
        with self.assertRaises(urllib.error.HTTPError):
            read(f"http://127.0.0.1:{port}/")
        running.wait_for("refused: 426")


class PrometheusTests(Folder):
    """A Prometheus that scrapes the page."""

    @needs("prometheus")
    def test_a_scrape_has_the_numbers(self) -> None:
        """It asks for OpenMetrics; counters, gauges and histograms arrive with their labels."""
        with used_service() as (page, port):
            self.write(
                "prometheus.yml",
                "scrape_configs: [{job_name: twsock, scrape_interval: 100ms, "
                f"scrape_timeout: 100ms, static_configs: [{{targets: ['127.0.0.1:{page}']}}]}}]",
            )
            options = ("--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0")
            with self.running(
                "sh",
                "-c",
                f"exec prometheus --config.file=prometheus.yml {' '.join(options)} 2>&1",
            ) as process:
                address = self.address(process)
                self.await_scrape(address)
                labels = f'endpoint="tcp:127.0.0.1:{port}",protocol="FrameEcho"'
                for name, value in (
                    ("twsock_connections_total", 1),
                    ("twsock_messages_sent_total", 1),
                    ("twsock_open_connections", 0),
                    ("twsock_handshake_seconds_count", 0),
                ):
                    self.assertEqual(self.ask(address, f"{name}{{{labels}}}"), value, name)
                self.assertEqual(self.ask(address, 'up{job="twsock"}'), 1)

    def address(self, process: Any) -> str:
        """Return the address of Prometheus from its log, once it answers queries."""
        address = ""
        for line in process.stdout:
            if 'msg="Listening on"' in line:
                address = str(line.split("address=")[1].strip())
            if "Server is ready" in line:
                return address
        raise AssertionError("Prometheus has ended")

    def ask(self, address: str, query: str) -> float | None:
        """Return the value of the only series of a query; None if there is none."""
        asked = urllib.parse.urlencode({"query": query})
        result = json.loads(read(f"http://{address}/api/v1/query?{asked}"))["data"]["result"]
        return float(result[0]["value"][1]) if len(result) == 1 else None

    def await_scrape(self, address: str) -> None:
        """Ask until the page was scraped."""
        end = time.monotonic() + PATIENCE
        while self.ask(address, "twsock_connections_total") is None:
            self.assertLess(time.monotonic(), end, "Prometheus scrapes nothing")


class JqTests(Folder):
    """``jq`` reads each line of a log."""

    @needs("jq")
    def test_every_line_of_each_service_is_an_object(self) -> None:
        """From the start to the end, with warnings, certificates and ends of connections."""
        connections = ("--endpoint", _LOCAL, "--log-connections", "--drain-timeout", "0")
        for service, options in (
            ("twsock-stream", connections),
            ("twsock-stream", (*connections, "--tls", "--framing", "line")),
            ("twsock-websocket", connections),
            ("twsock-datagram", ("--endpoint", f"udp:{_LOCAL[4:]}")),
            ("twsock-multicast", ("--endpoint", "multicast:224.3.0.5:0:interface=lo")),
        ):
            with twistd(service, *options, "--log-format", "json") as running:
                running.wait_for('"event": "listening on ')
                if options[:4] == connections[:4]:
                    listening = json.loads(running.log.splitlines()[-1])
                    break_rules(int(listening["fields"]["address"].split(":")[2]))
                running.process.send_signal(signal.SIGHUP)
                running.wait_for("SIGHUP|certificate of")
                running.terminate()
                running.wait()
            lines = running.log.splitlines()
            name = self.write("log", running.log)
            found = self.run_program(
                "jq",
                "-r",
                "[.time, .level, .namespace, .event, .message] | map(type) | unique[]",
                name,
            )
            self.assertEqual(found.split(), ["string"] * len(lines), (service, running.log))
            levels = set(self.run_program("jq", "-r", ".level", name).split())
            self.assertLessEqual(levels, {"info", "warn"}, (service, running.log))
