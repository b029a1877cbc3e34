"""Restarts of real processes: no loss, whatever is killed, and whatever is at the path."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import THOROUGH
from tests.loopback.restarts import (
    Client,
    ConnectStorm,
    DatagramStream,
    LongConnection,
    Reconnecting,
    Service,
    WebSocketStorm,
    exchange,
    frame,
    running,
    talk_tls,
    talk_websocket,
    to_path,
    to_port,
    to_tls,
    to_websocket,
)
from tests.services.processes import PATIENCE, Daemon, Twistd, daemon, why_no_other_user
from tests.services.restart.fakes import Peer
from twsock.restart.records import TakeOver

#: How many restarts the tests with load do.
RESTARTS = int(os.environ.get("TWSOCK_RESTARTS", "10" if THOROUGH else "3"))

#: Bytes of the receive buffer of a UDP port: a second of 5,000 small datagrams, each with some 800
#: bytes of the kernel. The buffer by default is full after 50 milliseconds, and a machine may be
#: too busy to run either process in this time.
UDP_BUFFER = 1 << 22

TCP = "tcp:0:interface=127.0.0.1"

#: A process of the user "nobody" that asks for sockets at a path, and prints the answer.
NOBODY = """
import os, socket, sys
from twsock.restart.records import *
os.setgid(65534); os.setuid(65534)
channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
channel.connect(sys.argv[1])
try:
    channel.send(encode_restart(TakeOver(os.getpid())))
    print(channel.recv(256))
except ConnectionError:
    print(b"")
"""


def end(process: int) -> None:
    """Kill a process, if it runs, and close its descriptor."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, signal.SIGKILL)
    os.close(process)


def udp_port(process: Twistd) -> int:
    """Read the log up to the UDP port of the process."""
    return int(process.wait_for(r"listening on udp:.*?(\d+) \("))


class LoadTests(SynchronousTestCase):
    """Restarts under load."""

    def test_connections_and_messages_survive(self) -> None:
        """0 refused, 0 reset, 0 bytes lost or doubled: TCP and UNIX, new and long connections."""
        with Service() as service:
            path = service.folder / "echo"
            service.arguments = ("twsock-stream", "-e", TCP, "-e", f"unix:{path}")
            process = service.start()
            (port,) = process.wait_for_ports()
            process.wait_for("listening on unix:")
            connects = (to_port(port), to_path(path))
            clients: list[Client] = [
                *(ConnectStorm(connect) for connect in connects),
                *(LongConnection(connect) for connect in (*connects, *connects)),
            ]
            with running(*clients):
                for client in clients:
                    client.wait_for_answers(5)
                for _ in range(RESTARTS):
                    process = service.restart(process)
                    for client in clients:
                        client.wait_for_answers(5)
            self.assertEqual([client.problems for client in clients], [[]] * len(clients))

    def test_datagrams_survive(self) -> None:
        """0 of 5,000 a second are lost or answered twice."""
        endpoint = "udp:0:interface=127.0.0.1"
        size = ("--receive-buffer", str(UDP_BUFFER))
        with Service("twsock-datagram", "-e", endpoint, *size) as service:
            process = service.start()
            stream = DatagramStream(udp_port(process), 5000)
            with running(stream):
                for _ in range(RESTARTS):
                    process = service.restart(process)
            self.assertGreater(stream.sent, 100)
            self.assertEqual((stream.lost, stream.doubled), (0, 0))


@skipIf(not THOROUGH, "further protocols, which run with TWSOCK_TESTS=thorough")
class DrainingLoadTests(SynchronousTestCase):
    """Restarts under load, of connections that drain, and of groups."""

    def check(self, service: Service, process: Twistd, *clients: Client) -> Twistd:
        """Restart a process under load; nothing may go wrong."""
        with running(*clients):
            for _ in range(RESTARTS):
                for client in clients:
                    client.wait_for_answers(5)
                process = service.restart(process)
            for client in clients:
                client.wait_for_answers(5)
        self.assertEqual([client.problems for client in clients], [[]] * len(clients))
        return process

    def test_websockets_are_closed_in_order(self) -> None:
        """With a close frame; new ones are served."""
        with Service("twsock-websocket", "-e", TCP) as service:
            process = service.start()
            (port,) = process.wait_for_ports()
            connect = to_websocket(port)
            long = Reconnecting(connect, talk_websocket)
            self.check(service, process, WebSocketStorm(connect), WebSocketStorm(connect), long)
            self.assertEqual(long.ends, RESTARTS)

    def test_tls_connections_end_in_order(self) -> None:
        """None is reset, and their sessions are not resumed by the next process."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with Service("twsock-stream", "-e", TCP, "--tls") as service:
            options = {"environment": {"XDG_STATE_HOME": str(service.folder)}}
            service.options = options
            process = service.start()
            (port,) = process.wait_for_ports()
            connect = to_tls(port, context)
            with connect() as first:
                exchange(first, b"x")
                session = first.session
            self.assertTrue(self.resumes(port, context, session))
            long = Reconnecting(connect, talk_tls)
            self.check(service, process, ConnectStorm(connect), ConnectStorm(connect), long)
            self.assertEqual(long.ends, RESTARTS)
            self.assertFalse(self.resumes(port, context, session))

    def resumes(
        self, port: int, context: ssl.SSLContext, session: ssl.SSLSession | None
    ) -> bool | None:
        """Return whether a process resumes a session."""
        with context.wrap_socket(to_port(port)(), session=session) as connection:
            exchange(connection, b"x")
            return connection.session_reused

    def test_questions_to_a_group_are_answered_once(self) -> None:
        """Both processes have a copy of the socket; only one reads a datagram."""
        endpoint = "multicast:224.3.0.5:0:interface=lo"
        size = ("--receive-buffer", str(UDP_BUFFER))
        with Service("twsock-multicast", "-e", endpoint, *size) as service:
            process = service.start()
            port = int(process.wait_for(r"listening on multicast:224.3.0.5:(\d+)"))
            stream = DatagramStream(port, 1000, "224.3.0.5")
            with running(stream):
                for _ in range(RESTARTS):
                    process = service.restart(process)
            self.assertGreater(stream.sent, 100)
            self.assertEqual((stream.lost, stream.doubled), (0, 0))


#: Faults, and what the other process logs.
FAULTS: dict[str, str] = {
    "old after SEND_SOCKETS KILL": "serves alone",
    "giver after Offer KILL": "serves alone",
    "new after REPORT_READY KILL": "goes on",
    "taker after Accepted KILL": "goes on",
}
#: Variants of them.
MORE_FAULTS: dict[str, str] = {
    "old before YIELD KILL": "serves alone",
    "old after YIELD KILL": "serves alone",
    "old before OFFER KILL": "serves alone",
    "giver before Offer KILL": "serves alone",
    "old after OFFER KILL": "serves alone",
    "old before REPORT KILL": "serves alone",
    "old before DRAIN KILL": "serves alone",
    "old before END KILL": "serves alone",
    "old after SEND_SOCKETS TERM": "serves alone",
    "old after YIELD TERM": "serves alone",
    "old after OFFER TERM": "serves alone",
    "new before KEEP KILL": "goes on",
    "new after KEEP KILL": "goes on",
    "new before REPORT_READY KILL": "goes on",
    "new before TAKE KILL": "goes on",
    "new after TAKE KILL": "goes on",
    "taker before Accepted KILL": "goes on",
}


#: The two halves of a frame.
HALF, REST = frame(b"still here")[:9], frame(b"still here")[9:]


class FaultTests(SynchronousTestCase):
    """One process is killed or stopped at a step, while both have connections."""

    def check(self, fault: str, expected: str) -> None:
        """
        Check that only the killed process's connections are lost, and that the other one serves.

        Half a frame has arrived on each. The first connection is moved when a fault hits the giver
        or the taker of a connection.
        """
        with Service("twsock-stream", "-e", TCP) as service:
            is_old = fault.startswith(("old", "giver"))
            old = service.start(fault=fault if is_old else "")
            (port,) = old.wait_for_ports()
            connect = to_port(port)
            connections = [connect() for _ in range(3)]
            for connection in connections:
                self.addCleanup(connection.close)
                exchange(connection, b"before")
                connection.sendall(HALF)
            new = service.start(fault="" if is_old else fault)
            victim, other = (old, new) if is_old else (new, old)
            self.assertEqual(victim.wait(), -signal.Signals[f"SIG{fault.split()[-1]}"], fault)
            other.wait_for(expected)
            with connect() as fresh:
                exchange(fresh, b"after")
            answers = [self.complete(connection) for connection in connections]
            logs = f"{fault}\n{old.log}\n{new.log}"
            self.assertIn(answers.count(b""), self.losses(fault), logs)
            # None is served twice: neither its half frame nor any part of the answer.
            self.assertEqual({*answers} - {b"", HALF + REST}, set(), logs)
            if not is_old:
                # A later restart succeeds.
                service.restart(old)

    def losses(self, fault: str) -> Sequence[int]:
        """Return how many of three connections may be lost."""
        if "TERM" in fault:
            # A stopped process drains the connections that have not moved.
            return range(4)
        if fault.startswith(("old", "giver")):
            # Those that have not moved yet end with the process that serves them.
            before = fault in ("old after OFFER KILL", "giver after Offer KILL")
            moved = fault.split()[2] in ("END", "DRAIN", "REPORT")
            return (0,) if moved else range(4) if before else (3,)
        # The connection of which the killed process has sent the acknowledgement.
        return (1,) if fault == "taker after Accepted KILL" else (0,)

    def complete(self, connection: socket.socket) -> bytes:
        """Complete the frame; return all that arrives until the end, nothing if it was lost."""
        received = b""
        try:
            connection.sendall(REST)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(100):
                received += piece
        except TimeoutError:
            raise
        except OSError:
            pass  # It was reset.
        return received

    def test_only_connections_of_the_killed_process_are_lost(self) -> None:
        """At each kind of step."""
        for fault, expected in FAULTS.items():
            self.check(fault, expected)

    @skipIf(not THOROUGH, "variants, which run with TWSOCK_TESTS=thorough")
    def test_only_connections_of_the_killed_process_are_lost_at_all_steps(self) -> None:
        """At each step."""
        for fault, expected in MORE_FAULTS.items():
            self.check(fault, expected)

    @skipIf(not THOROUGH, "variants, which run with TWSOCK_TESTS=thorough")
    def test_no_datagram_is_answered_twice(self) -> None:
        """Of a stream that goes on while a process is killed; the other one answers the rest."""
        for fault, expected in (
            ("new before REPORT_READY KILL", "goes on"),
            ("old after YIELD KILL", "serves alone"),
        ):
            with Service("twsock-datagram", "-e", "udp:0:interface=127.0.0.1") as service:
                is_old = fault.startswith("old")
                old = service.start(fault=fault if is_old else "")
                stream = DatagramStream(udp_port(old), 500)
                with running(stream):
                    new = service.start(fault="" if is_old else fault)
                    victim, other = (old, new) if is_old else (new, old)
                    self.assertEqual(victim.wait(), -signal.SIGKILL, fault)
                    other.wait_for(expected)
                    last = stream.sent
                    while stream.sent < last + 100:
                        time.sleep(0.01)  # Polls another thread.
                self.assertEqual(stream.doubled, 0, fault)
                later = [number for number in range(last, stream.sent) if number in stream.answers]
                self.assertEqual(len(later), stream.sent - last, fault)

    def test_an_old_process_that_dies_before_it_answers_is_replaced(self) -> None:
        """The new one opens sockets of its own."""
        with Service("twsock-stream", "-e", TCP) as service:
            old = service.start(fault="old before SEND_SOCKETS KILL")
            old.wait_for_ports()
            new = service.start()
            old.wait()
            (port,) = new.wait_for_ports()
            with to_port(port)() as connection:
                exchange(connection, b"new")

    def test_a_stopped_new_process_ends_the_service(self) -> None:
        """The old one does not accept again, and both end in order."""
        with Service("twsock-stream", "-e", TCP) as service:
            old = service.start()
            (port,) = old.wait_for_ports()
            with to_port(port)() as connection:
                exchange(connection, b"before")
                new = service.start(fault="new after REPORT_READY TERM")
                self.assertEqual(connection.recv(1), b"")
            new.wait()
            old.wait()
            self.assertRaises(ConnectionRefusedError, to_port(port))
            # The control socket may be left; nobody listens on it.
            (port,) = service.start().wait_for_ports()
            with to_port(port)() as connection:
                exchange(connection, b"after")


class BadInputTests(SynchronousTestCase):
    """What is refused: one line, nothing taken, and the old process goes on."""

    def start(self, service: Service, **options: object) -> tuple[Twistd, int]:
        """Start the first process of a service."""
        process = service.start(**options)  # type: ignore[arg-type]
        (port,) = process.wait_for_ports()
        return process, port

    def refused(self, process: Twistd, reason: str) -> None:
        """Check that a process ends with status 1, and one line."""
        self.assertEqual(process.wait(), 1)
        lines = [line for line in process.log.splitlines() if "twsock: " in line]
        self.assertEqual(len(lines), 1, process.log)
        self.assertRegex(lines[0], reason)
        self.assertNotIn("Traceback", process.log)

    def serves(self, port: int) -> None:
        """Check that a port serves."""
        with to_port(port)() as connection:
            exchange(connection, b"x")

    def test_a_foreign_program_at_the_path(self) -> None:
        """A file, or a socket of another type; both are left as they are."""
        with Service("twsock-stream", "-e", TCP) as service:
            service.control.write_text("data")
            self.refused(service.start(), "--control .*: nothing taken: it is not a socket")
            self.assertEqual(service.control.read_text(), "data")
            service.control.unlink()
            with socket.socket(socket.AF_UNIX) as stream:
                stream.bind(str(service.control))
                stream.listen()
                self.refused(service.start(), "nothing taken: it is a socket of another program")

    def test_a_process_of_another_user(self) -> None:
        """It is refused even where the permissions of the path were opened."""
        if (reason := why_no_other_user()) is not None:
            self.skipTest(reason)
        with Service("twsock-stream", "-e", TCP) as service:
            process, port = self.start(service)
            service.folder.chmod(0o755)
            service.control.chmod(0o666)
            # Without root's access to this folder, the modules are imported before the switch.
            result = subprocess.run(
                [sys.executable, "-c", NOBODY, str(service.control)],
                capture_output=True,
                text=True,
                check=False,
                cwd=Path(__file__).parents[2],
                timeout=60,
            )
            self.assertEqual(result.stdout, "b''\n", result.stderr)
            process.wait_for("control: refused process .* of user 65534: this process is of user 0")
            self.serves(port)

    def test_too_few_descriptors_in_the_new_process(self) -> None:
        """Nothing is taken, and the next one succeeds."""
        endpoints = [word for _ in range(40) for word in ("-e", TCP)]
        with Service("twsock-stream", *endpoints) as service:
            process, port = self.start(service)
            self.refused(service.start(max_files=30), "nothing taken: a descriptor was lost")
            process.wait_for("failed: it has ended; this process goes on")
            self.serves(port)
            service.restart(process)

    def test_a_new_process_that_cannot_start(self) -> None:
        """It has taken the sockets, and needs another one that is in use."""
        with Service("twsock-stream", "-e", TCP) as service, socket.socket() as busy:
            process, port = self.start(service)
            busy.bind(("127.0.0.1", 0))
            busy.listen()
            taken = f"tcp:{busy.getsockname()[1]}:interface=127.0.0.1"
            self.refused(service.start("-e", taken), f"cannot listen on {taken}")
            process.wait_for("failed: it has ended; this process goes on")
            self.serves(port)
            service.restart(process)

    def test_two_restarts_at_once(self) -> None:
        """The second one is refused, and the first one goes on."""
        with Service("twsock-stream", "-e", TCP) as service:
            process, port = self.start(service)
            first = Peer()
            self.addCleanup(first.close)
            first.socket.close()
            first.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            first.socket.settimeout(60)
            first.socket.connect(str(service.control))
            first.send(TakeOver(1))
            process.wait_for("restart: process 1 takes 2 sockets")
            self.refused(service.start(), "a restart by process 1 is under way")
            first.close()
            process.wait_for("failed: it has ended; this process goes on")
            self.serves(port)


class ConfigurationTests(SynchronousTestCase):
    """The new process has other options than the old one."""

    def test_other_endpoints(self) -> None:
        """A socket that is not used is closed, and one that is missing is opened."""
        with Service() as service:
            path, other = service.folder / "a", service.folder / "b"
            service.arguments = ("twsock-stream", "-e", TCP, "-e", f"unix:{path}")
            old = service.start()
            (port,) = old.wait_for_ports()
            arguments = ("twsock-stream", "-e", TCP, "-e", f"unix:{other}")
            new = service.start(arguments=arguments)
            self.assertEqual(old.wait(), 0, old.log)
            new.wait_for(f"closed the sockets that no endpoint uses: unix:{re.escape(str(path))}")
            new.wait_for("serves alone")
            self.assertFalse(path.exists())
            for connect in (to_port(port), to_path(other)):
                with connect() as connection:
                    exchange(connection, b"x")

    def test_another_user(self) -> None:
        """Started by root each time, with ``--uid``: the control socket belongs to that user."""
        if os.geteuid() != 0:
            self.skipTest("only root can switch to another user")
        nobody = ("--uid", "65534", "--gid", "65534")
        with Service(*nobody, "twsock-stream", "-e", TCP) as service:
            # The pid file and the log are not written; the folder is that of root.
            service.folder.chmod(0o755)
            process = service.start()
            (port,) = process.wait_for_ports()
            self.assertEqual(service.control.stat().st_uid, 65534)
            with to_port(port)() as connection:
                exchange(connection, b"before")
                for _ in range(2):
                    process = service.restart(process)
                    exchange(connection, b"after")

    def test_a_daemon_hands_its_pid_file_over(self) -> None:
        """The file names the process that serves, and twistd does not refuse to start."""
        arguments = ("twsock-stream", "-e", "unix:echo", "--control", "control")
        with daemon(*arguments) as first:
            self.assertEqual(first.status, 0, first.output)
            first.exchange("echo")
            number = first.pid_file.read_text()
            ended = os.pidfd_open(int(number))
            self.addCleanup(end, ended)
            second = Daemon(arguments, str(first.folder), {})
            self.assertEqual(second.status, 0, second.output)
            self.assertTrue(select.select([ended], [], [], PATIENCE)[0], first.log)
            second.exchange("echo")
            self.assertNotIn(second.pid_file.read_text(), ("", number))
            second.end(signal.SIGTERM)
            self.assertFalse(second.pid_file.exists())
            left = sorted(path.name for path in first.folder.iterdir())
            self.assertEqual(left, ["output", "twistd.log"])
            # Both have written to one file, and neither over a line of the other.
            lines = first.log.splitlines()
            self.assertEqual([line for line in lines if not re.match(r"\d{4}-\d\d-", line)], [])
            ends = [line for line in lines if "Server Shut Down" in line]
            self.assertEqual(len(ends), 2, first.log)
