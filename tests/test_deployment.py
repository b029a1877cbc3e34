"""
The files of ``deploy/``, and the commands of docs/deployment.rst.

What needs more than a check of a file runs with ``TWSOCK_TESTS=machines``, on a machine of its own
(`tests.machine`), with systemd and HAProxy. The machine has no Internet, so the commands that
install packages are left out.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from benchmarks.rolling import free_port, settings_of
from tests.machine import run_on_a_machine, why_no_machine
from tests.outside_programs import Folder, needs
from tests.services.processes import echo, twistd
from tests.test_outside_tools import find
from tests.tls.peer import SERVER

ROOT: Final = Path(__file__).resolve().parent.parent
DEPLOY: Final = ROOT / "deploy"
PAGE: Final = ROOT / "docs" / "deployment.rst"
UNITS: Final = sorted((DEPLOY / "systemd").glob("*.service"))

#: The commands in a block of the page that has this name.
_BLOCK: Final = r"^\.\. commands: {}\n\n::\n\n((?:    .*\n|\n)+)"

#: What a script of the tests begins with: commands that wait until others have had their effect.
_BEGIN: Final = """
trap 'journalctl --lines 100 --no-pager | cat' ERR
attempt() {
    for _ in {1..600}; do
        if "$@"; then return; fi
        sleep 0.1
    done
    return 1
}
"""

#: Connects, exchanges a frame and closes, again and again, until the file ``stop`` exists.
_CONNECTS: Final = """
cat > connects.py <<'END'
import pathlib, socket
count = 0
while not pathlib.Path("stop").exists():
    with socket.create_connection(("127.0.0.1", 1337), 60) as connection:
        connection.sendall(b"\\0\\0\\0\\1x")
        answer = connection.makefile("rb").read(5)
        assert answer == b"\\0\\0\\0\\1x", answer
    count += 1
    if count == 10:
        pathlib.Path("begun").touch()
print("served", count)
END
/opt/twsock/bin/python3 connects.py &
attempt test -e begun
COMMAND
touch stop
wait %1
"""

#: The same on one connection, which must not end.
_LONG: Final = """
cat > long.py <<'END'
import pathlib, socket
count = 0
with socket.create_connection(("127.0.0.1", 1337), 60) as connection:
    while not pathlib.Path("enough").exists():
        connection.sendall(b"\\0\\0\\0\\1x")
        answer = connection.recv(5, socket.MSG_WAITALL)
        assert answer == b"\\0\\0\\0\\1x", (count, answer)
        count += 1
print("kept", count)
END
/opt/twsock/bin/python3 long.py &
COMMAND
touch enough
wait %1
"""

#: A request for a file and for a WebSocket, through HAProxy.
_WEB: Final = """
useradd --system --user-group twsock
install -D deploy/systemd/twsock-stream.socket /srv/twsock/file
/opt/twsock/bin/twsock certificates init certificates --name example.com
install -m 600 certificates/server.pem /etc/haproxy/twsock.pem
cp deploy/systemd/twsock-websocket@.service /etc/systemd/system/
cp deploy/haproxy/twsock-websocket.cfg /etc/haproxy/haproxy.cfg
echo '127.0.0.1 example.com' >> /etc/hosts
systemctl daemon-reload
systemctl start twsock-websocket@1 twsock-websocket@2
systemctl restart haproxy
attempt curl --fail --cacert certificates/authority.pem https://example.com:8443/file
attempt /opt/twsock/bin/twsock echo wss://example.com:8443/ws Hello --ca certificates/authority.pem
systemctl reload twsock-websocket@1 twsock-websocket@2
attempt /opt/twsock/bin/twsock echo wss://example.com:8443/ws Again --ca certificates/authority.pem
systemctl stop twsock-websocket@1 twsock-websocket@2
systemctl show --property Result twsock-websocket@1 twsock-websocket@2
"""


def commands(name: str) -> str:
    """Return the commands of the page in all blocks of that name."""
    blocks = re.findall(_BLOCK.format(name), PAGE.read_text("utf-8"), re.MULTILINE)
    lines = [line[4:] for block in blocks for line in block.splitlines()]
    # A reload returns before the files are read: the first handshake may be with the old ones.
    return "\n".join(re.sub("^(?=/opt/twsock/bin/twsock echo)", "attempt ", line) for line in lines)


def words_of(unit: Path) -> list[str]:
    """Return the command line of a unit."""
    text = unit.read_text("utf-8").replace("\\\n", " ")
    (options,) = re.findall(r'^Environment="OPTIONS=(.*)"$', text, re.MULTILINE)
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    return shlex.split(line.replace("$OPTIONS", options))


def setting(unit: Path, name: str) -> str:
    """Return a setting of a unit."""
    (value,) = re.findall(rf"^{name}=(.*)$", unit.read_text("utf-8"), re.MULTILINE)
    return str(value)


def hardening(unit: Path) -> str:
    """Return the part of a unit that says what its process may do."""
    found = re.search(r"^# The process reads.*?(?=^\[)", unit.read_text("utf-8"), re.M | re.S)
    assert found is not None, unit
    return found[0]


class UnitTests(Folder):
    """``deploy/systemd``."""

    def check(self, *command: str) -> str:
        """Check all units, with a program that exists here."""
        if find("systemd-analyze") is None:
            raise SkipTest("not installed: systemd-analyze")
        for unit in (DEPLOY / "systemd").iterdir():
            text = unit.read_text("utf-8")
            for name in ("twistd", "twsock"):
                text = text.replace(f"/opt/twsock/bin/{name} ", f"{sys.executable} ")
            self.write(unit.name, text)
        return self.run_program("systemd-analyze", *command)

    def test_systemd_finds_no_mistake(self) -> None:
        """``systemd-analyze verify`` prints nothing about our units."""
        printed = self.check("verify", "--man=no", *(f"./{unit.name}" for unit in UNITS))
        ours = [line for line in printed.splitlines() if "twsock" in line]
        self.assertEqual(ours, [])

    def test_exposure_is_low(self) -> None:
        """Less than 1.5 of 10; the page names the figure of systemd 252."""
        for unit in UNITS:
            printed = self.check("security", "--offline=yes", f"./{unit.name}")
            (exposure,) = re.findall(r"exposure level for \S+: (\d+\.\d+)", printed)
            self.assertLess(float(exposure), 1.5, unit.name)

    def test_hardening_is_the_same_in_all(self) -> None:
        """One text in all units."""
        self.assertEqual(len({hardening(unit) for unit in UNITS}), 1)

    def test_reload_starts_what_the_start_does(self) -> None:
        """``twsock restart`` has the command line of ``ExecStart=`` and the path of its control."""
        for unit in UNITS:
            text = unit.read_text("utf-8").replace("\\\n", " ")
            (start,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
            (reload,) = re.findall(r"^ExecReload=(.*)$", text, re.MULTILINE)
            command, _, program = reload.partition(" -- ")
            self.assertEqual(program.split(), start.split(), unit.name)
            words = words_of(unit)
            self.assertEqual(command.split()[-1], words[words.index("--control") + 1], unit.name)

    def test_systemd_waits_longer_than_the_drain(self) -> None:
        """``TimeoutStopSec=`` is the delay, the timeout, and 10 seconds."""
        for unit in UNITS:
            words = words_of(unit)
            times = [
                float(words[words.index(option) + 1])
                for option in ("--drain-delay", "--drain-timeout")
                if option in words
            ]
            self.assertEqual(float(setting(unit, "TimeoutStopSec")), sum(times) + 10, unit.name)


class ProxyFileTests(Folder):
    """``deploy/haproxy`` and ``deploy/nginx``, as their programs check them."""

    def test_haproxy_accepts_its_files(self) -> None:
        """``haproxy -c``, with a certificate at another path."""
        if find("haproxy") is None:
            raise SkipTest("not installed: haproxy")
        certificate = self.folder / "server.pem"
        SERVER.private_key_and_cert_chain_pem.write_to_path(str(certificate))
        for path in sorted((DEPLOY / "haproxy").iterdir()):
            text = settings_of(path, {"/etc/haproxy/twsock.pem": str(certificate)})
            self.run_program("haproxy", "-c", "-f", self.write(path.name, text))

    def test_instance_is_down_before_it_stops_listening(self) -> None:
        """Three checks take less time than the delay; one check takes less than three."""
        for name in ("stream", "websocket"):
            text = (DEPLOY / "haproxy" / f"twsock-{name}.cfg").read_text("utf-8")
            (checks,) = re.findall(r"check inter (\d+)s fall (\d+) rise (\d+)", text)
            interval, fall, rise = map(int, checks)
            words = words_of(DEPLOY / "systemd" / f"twsock-{name}@.service")
            self.assertLess(interval * fall, float(words[words.index("--drain-delay") + 1]), name)
            self.assertLess(rise, fall, name)

    @needs("nginx")
    def test_nginx_sends_the_address_of_the_client(self) -> None:
        """The log of twsock has it, and a frame is answered."""
        module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
        if not module.exists():
            raise SkipTest("not installed: libnginx-mod-stream")
        port, folder = free_port(), self.folder
        options = ("--endpoint", "haproxy:tcp:0:interface=127.0.0.1", "--log-connections")
        with twistd("twsock-stream", *options) as service:
            (behind,) = service.wait_for_ports()
            changes = {
                "modules/ngx_stream_module.so": str(module),
                "user www-data;\n": "",
                "worker_processes auto;": "daemon off;",
                "pid /run/nginx.pid": f"pid {folder}/pid",
                "/var/log/nginx/error.log": f"{folder}/errors",
                "listen 1337": f"listen 127.0.0.1:{port}",
                "        listen [::]:1337;\n": "",
                "127.0.0.1:13371": f"127.0.0.1:{behind}",
                "127.0.0.1:13372": f"127.0.0.1:{behind} backup",
            }
            text = settings_of(DEPLOY / "nginx" / "twsock-stream.conf", changes)
            with self.running("nginx", "-c", self.write("nginx.conf", text)) as proxy:
                with connect_to(proxy, port) as connection:
                    connection.sendall(b"\0\0\0\1x")
                    self.assertEqual(connection.makefile("rb").read(5), b"\0\0\0\1x")
                    host, number = connection.getsockname()
                service.wait_for(rf"{host}:{number} ended after .* 1 messages")
                proxy.terminate()
                proxy.wait(60)


def connect_to(program: subprocess.Popen[str], port: int) -> socket.socket:
    """Connect to a program as soon as it listens."""
    while program.poll() is None:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port), 60)
    raise AssertionError(f"the program ended with status {program.returncode}")


class PrometheusTests(Folder):
    """``deploy/prometheus``."""

    path = DEPLOY / "prometheus" / "twsock.yml"

    def test_targets_are_the_pages_of_the_instances(self) -> None:
        """Those of two instances of the unit."""
        unit = (DEPLOY / "systemd" / "twsock-stream@.service").read_text("utf-8")
        (port,) = re.findall(r"--metrics tcp:(\S+)%i:interface=127.0.0.1", unit)
        targets = re.findall(r"- (127.0.0.1:\d+)", self.path.read_text("utf-8"))
        self.assertEqual(targets, [f"127.0.0.1:{port}{number}" for number in (1, 2)])

    def test_prometheus_accepts_it(self) -> None:
        """``promtool check config``."""
        if find("promtool") is None:
            raise SkipTest("not installed: promtool")
        self.run_program("promtool", "check", "config", str(self.path))


class ContainerfileTests(SynchronousTestCase):
    """``deploy/Containerfile``, as far as it can be checked without an image of Python."""

    lines = (DEPLOY / "Containerfile").read_text("utf-8").splitlines()

    def arguments(self, instruction: str) -> list[str]:
        """Return the arguments of all instructions of that name."""
        return [line.partition(" ")[2] for line in self.lines if line.startswith(f"{instruction} ")]

    def words(self, instruction: str) -> list[str]:
        """Return the words of the only instruction of that name, in the form without a shell."""
        (argument,) = self.arguments(instruction)
        found = re.search(r"\[.*\]$", argument)
        assert found is not None, argument
        return re.findall(r'"([^"]*)"', found[0])

    def test_copied_files_exist(self) -> None:
        """Those that are copied from the checkout, and no others."""
        copied = [words.split() for words in self.arguments("COPY") if "--from" not in words]
        missing = [name for *names, _ in copied for name in names if not (ROOT / name).exists()]
        self.assertEqual((missing, len(copied)), ([], 3))

    def test_user_is_not_root(self) -> None:
        """Its number is that of no user of a distribution."""
        (user,) = self.arguments("USER")
        self.assertEqual(user, "10001:10001")

    def test_image_checks_its_installation(self) -> None:
        """The last step of the build as root ends well here, too."""
        command, *words = self.arguments("RUN")[-1].split()
        self.assertEqual(command, self.words("ENTRYPOINT")[0])
        with twistd(*words[1:]) as checking:
            self.assertEqual((words[0], checking.wait()), ("--pidfile=", 0), checking.log)

    def test_kubernetes_waits_longer_than_the_drain(self) -> None:
        """The page has the sum of the delay, the timeout, and 10 seconds, twice."""
        words = self.words("CMD")
        times = [int(words[words.index(f"--drain-{name}") + 1]) for name in ("delay", "timeout")]
        text = PAGE.read_text("utf-8")
        self.assertIn(f"terminationGracePeriodSeconds: {sum(times) + 10}\n", text)
        self.assertIn(f"--stop-timeout {sum(times) + 10} twsock", text)

    def test_arguments_serve_and_the_health_check_finds_it(self) -> None:
        """The options of the image, and the program of its check, with other ports."""
        _, *words = [*self.words("ENTRYPOINT"), *self.words("CMD")]
        self.assertEqual(words[:3], ["--pidfile=", "--nodaemon", "twsock-stream"])
        options = " ".join(words[3:])
        for number in ("1337", "9100"):
            options = options.replace(f"tcp:{number}", "tcp:0:interface=127.0.0.1")
        delay = "--drain-delay 5"
        self.assertIn(delay, options)
        _, flag, program = self.words("HEALTHCHECK")
        self.assertEqual(flag, "-c")
        with twistd("twsock-stream", *options.replace(delay, "").split()) as service:
            page, port = service.wait_for_ports(2)
            check = [sys.executable, flag, program.replace("9100", str(page))]
            subprocess.run(check, check=True, timeout=60)
            self.assertEqual(echo(port), b"Hello, World!")
            service.terminate()
            service.wait()


class MachineTests(SynchronousTestCase):
    """The commands of the page on a machine that was just installed."""

    def run_script(self, *parts: str) -> str:
        if (reason := why_no_machine()) is not None:
            raise SkipTest(reason)
        return run_on_a_machine("\n".join([_BEGIN, *parts]))

    def test_two_instances_behind_haproxy(self) -> None:
        """From the first command to the new certificate; no step fails."""
        for program in ("haproxy", "curl", "socat"):
            if find(program) is None:
                raise SkipTest(f"not installed: {program}")
        printed = self.run_script(
            commands("walk"),
            _LONG.replace("COMMAND", f"{commands('reload')}\n" * 2),
            _CONNECTS.replace("COMMAND", commands("restart")),
            commands("drain"),
            commands("certificate"),
            commands("reload"),
            "systemctl stop twsock-stream@1 twsock-stream@2",
            "journalctl --no-pager --unit 'twsock-stream@*'",
            "systemctl show --property Result twsock-stream@1 twsock-stream@2",
        )
        self.assertEqual(printed.count("client received the response"), 5)
        self.assertIn("twsock_open_connections", printed)
        self.assertRegex(printed, r"\nserved \d{2,}\n")
        self.assertRegex(printed, r"\nkept \d{2,}\n")
        # The connection has moved, and systemd waits for the drain of a process that took over.
        self.assertIn("1 connections have moved here", printed)
        self.assertNotIn("which is not our child", printed)
        self.assertEqual(printed.count("Result=success"), 2)
        # The administrative state of the first server: 8 is "drain".
        self.assertRegex(printed, r"\n\d+ frames \d+ one \S+ 2 8 ")

    def test_restart_with_socket_activation_refuses_no_connection(self) -> None:
        """Clients connect while the service is restarted."""
        restart = "systemctl restart twsock-stream.service"
        self.assertIn(restart, PAGE.read_text("utf-8"))
        printed = self.run_script(
            "useradd --system --user-group twsock",
            commands("activation"),
            _CONNECTS.replace("COMMAND", restart),
            "rm begun stop",
            _CONNECTS.replace("COMMAND", "systemctl reload twsock-stream.service"),
            # systemd ends a process that takes over and does not answer the watchdog.
            "process=$(systemctl show --property MainPID --value twsock-stream.service)",
            "tr '\\0' '\\n' < /proc/$process/environ | grep WATCHDOG_USEC=30000000",
            "curl --fail http://127.0.0.1:9100/health/ready",
            "systemctl stop twsock-stream.socket twsock-stream.service",
            "systemctl show --property Result twsock-stream.service",
        )
        self.assertEqual(len(re.findall(r"\nserved \d{2,}\n", printed)), 2)
        self.assertIn("Result=success", printed)

    def test_clients_of_other_networks_are_dropped(self) -> None:
        """Until their network is added, with the command of the page."""
        printed = self.run_script(
            "useradd --system --user-group twsock",
            commands("activation"),
            "ip address add 192.0.2.1/24 dev lo",
            # It waits, as no packet arrives.
            "! timeout 3 /opt/twsock/bin/twsock echo tcp:192.0.2.1:1337 dropped",
            commands("clients"),
            "/opt/twsock/bin/twsock echo tcp:192.0.2.1:1337 accepted",
        )
        self.assertIn('received the response: "accepted"', printed)
        self.assertNotIn('received the response: "dropped"', printed)

    def test_web_site_and_websockets_behind_haproxy(self) -> None:
        """A file and a WebSocket, over TLS that HAProxy terminates, on UNIX sockets."""
        if find("haproxy") is None or find("curl") is None:
            raise SkipTest("not installed: haproxy, curl")
        printed = self.run_script(_WEB)
        self.assertIn("ListenStream=0.0.0.0:1337", printed)
        self.assertEqual(printed.count("client received the response"), 2)
        self.assertEqual(printed.count("Result=success"), 2)
