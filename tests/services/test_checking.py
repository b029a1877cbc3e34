"""``--check``: every option with wrong values, for every service."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.tls.peer import SERVER
from twsock.services.checking import describe_check
from twsock.services.listening import ListeningService

_STREAM, _WEB_SOCKET, _DATAGRAM, _MULTICAST, _ALL = (
    "stream",
    "websocket",
    "datagram",
    "multicast",
    "everything",
)

#: Wrong options of every service, and words of the line.
_EVERYWHERE = (
    ("--log-format xml", "--log-format takes"),
    ("--log-level loud", "--log-level takes"),
    ("--metrics tcp:70000", "a port is a number from 0 to 65535"),
    ("--metrics unix:folder", "the file there is not a socket"),
    ("--metrics unix:file", "the file there is not a socket"),
    ("--metrics unix:nowhere/page", "there is no folder"),
    ("--metrics udp:1:interface=127.0.0.1", "run twsock-datagram"),
    ("--metrics ssl:1:privateKey=missing.pem", "missing.pem"),
    ("--metrics systemd:domain=INET:index=0", "LISTEN_FDS is not set"),
    ("--health tcp:1:interface=203.0.113.7", "annot assign requested address"),
    (f"--health unix:{'x' * 200}", "at most 107 bytes"),
    ("--metrics tcp:9100 --health tcp:9100", "given 2 times"),
    ("--drain-delay 5", "needs --metrics or --health"),
    ("--control folder", "--control: cannot use"),
    ("--control nowhere/control", "there is no folder"),
    ("--health tcp:0 --drain-delay nan", "--drain-delay takes seconds"),
    ("--nonsense", "--nonsense not recognized"),
    ("extra", "number of arguments"),
)

#: Wrong options of services of connections.
_CONNECTIONS = (
    ("--endpoint tcp:x", "a port is a number"),
    ("--endpoint=", "does not begin with a kind"),
    ("--endpoint unix:folder", "not a socket"),
    ("--endpoint haproxy:unix:no/such", "there is no folder"),
    ("--endpoint unix:a:mode=999", "octal"),
    ("--endpoint ssl:1:privateKey=folder", "Is a directory"),
    ("--endpoint tls:missing:1", "there is no folder of certificates"),
    ("--endpoint tcp:1:interface=203.0.113.7", "annot assign requested address"),
    ("--endpoint tcp:1337 --endpoint tcp:1337", "given 2 times"),
    ("--tls --certificate missing.pem", "missing.pem: No such file"),
    ("--tls --certificate file", "neither a PEM nor a DER"),
    ("--tls --certificate folder", "Is a directory"),
    ("--tls --certificate chain.pem", "there is no key"),
    ("--tls --certificate chain.pem --key missing.pem", "missing.pem: No such file"),
    ("--tls --certificate chain.pem --key file", "its key cannot be read"),
    ("--tls --certificate good.pem --key-password-file folder", "folder: Is a directory"),
    ("--tls --certificate good.pem --key-password-file binary", "binary: it is not UTF-8"),
    ("--tls --certificate good.pem --client-certificate required", "needs --client-ca"),
    (
        "--tls --certificate good.pem --client-certificate required --client-ca file",
        "neither a PEM nor a DER",
    ),
    ("--tls --certificate good.pem --min-level ssl3", "--min-level takes"),
    ("--tls --certificate good.pem --handshake-timeout 0", "--handshake-timeout takes"),
    ("--handshake-timeout 3", "needs --tls"),
    ("--upgrade maybe", "--upgrade "),
    ("--tls --upgrade allowed", "--upgrade"),
    ("--max-connections 0", "--max-connections takes"),
    ("--max-connections-per-address x", "--max-connections-per-address takes"),
    ("--max-buffered 1e9", "--max-buffered takes"),
    ("--drain-timeout inf", "--drain-timeout takes"),
    ("--socket-mode rw", "--socket-mode takes"),
    ("--proxy-from x", "--proxy-from: 'x' is not an address"),
    ("--proxy-from 10.0.0.0/8", "needs a haproxy: endpoint"),
)

#: Wrong options of services of datagrams.
_DATAGRAMS = (
    ("--endpoint tcp:1", "not for"),
    ("--endpoint=", "does not begin with a kind"),
    ("--receive-buffer 0", "--receive-buffer takes"),
    ("--max-datagram 99999", "--max-datagram takes"),
)

_WRONG: dict[str, tuple[tuple[str, str], ...]] = {
    _STREAM: (
        *_EVERYWHERE,
        *_CONNECTIONS,
        ("--framing x", "--framing takes"),
        ("--max-frame -1", "--max-frame takes"),
        ("--max-frame 99999999999", "--max-frame takes"),
        ("--idle-timeout x", "--idle-timeout takes"),
        (
            "--upgrade allowed --certificate good.pem --max-frame 4000000000",
            "--max-frame: with an upgrade",
        ),
    ),
    _WEB_SOCKET: (
        *_EVERYWHERE,
        *_CONNECTIONS[:-2],
        ("--path nope", "--path: "),
        ("--site missing", "cannot read the folder"),
        ("--site file", "cannot read the folder"),
        ("--site=", "the name of the folder is empty"),
        ("--site folder --tls --certificate good.pem", "cannot be used with --tls"),
        ("--max-message-size x", "--max-message-size takes"),
        ("--ping-interval -1", "--ping-interval takes"),
        ("--host a/b", "--host: "),
        ("--origin example", "--origin: "),
        ("--subprotocol a/b", "--subprotocol: "),
        ("--upgrade allowed --certificate good.pem", "use --tls"),
    ),
    _DATAGRAM: (
        *_EVERYWHERE,
        *_DATAGRAMS,
        ("--endpoint udp:70000", "a number, 0 to 65535"),
        ("--endpoint udp:1:interface=203.0.113.7", "annot assign requested address"),
        ("--endpoint udp:1:receiveBuffer=x", "receiveBuffer is a number"),
        ("--endpoint udp:1 --endpoint udp:1", "given 2 times"),
        ("--rate-limit 0", "--rate-limit takes"),
        ("--reply-port 70000", "--reply-port takes"),
    ),
    _MULTICAST: (
        *_EVERYWHERE,
        *_DATAGRAMS,
        ("--endpoint multicast:10.0.0.1:1", "not a multicast address"),
        ("--endpoint multicast:224.3.0.5:1:interface=nowhere0", "there is no interface"),
        ("--reply x", "--reply takes"),
    ),
    _ALL: _EVERYWHERE,
}


class CheckTests(SynchronousTestCase):
    """A check in this process."""

    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: F401 - it keeps descriptors of its own

        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.folder = Path(made.name)
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.folder)
        (self.folder / "folder").mkdir()
        (self.folder / "file").write_text("no certificate")
        (self.folder / "binary").write_bytes(b"\xff\xfe")
        (self.folder / "good.pem").write_bytes(SERVER.private_key_and_cert_chain_pem.bytes())
        chain = b"".join(each.bytes() for each in SERVER.cert_chain_pems)
        (self.folder / "chain.pem").write_bytes(chain)
        self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": str(self.folder / "state")})

    def left(self) -> tuple[list[Path], list[str]]:
        """Return the files of the folder, and the open descriptors."""
        descriptors = []
        for each in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # The one that reads the folder.
                descriptors.append(str(each.readlink()))
        return sorted(self.folder.rglob("*")), sorted(descriptors)

    @contextlib.contextmanager
    def nothing_is_left(self) -> Iterator[None]:
        """Fail on a file or a socket that is left, or a socket that listens meanwhile."""
        before = self.left()
        listened: list[object] = []
        self.patch(socket.socket, "listen", lambda *_: listened.append(_))
        yield
        after = self.left()
        self.assertEqual((after, listened), (before, []))

    def check(self, service: str, text: str) -> SystemExit:
        """Check options; return how the process would end."""
        module: Any = import_module(f"twsock.services.{service}")
        options = module.Options()
        with self.assertRaises(SystemExit) as raised:
            # As twistd does.
            options.parseOptions([*text.split(), "--check"])
            module.makeService(options)
        ended: SystemExit = raised.exception
        return ended

    def check_all(self, service: str) -> None:
        """Each wrong value is one line and status 1, and leaves nothing."""
        for text, words in _WRONG[service]:
            with self.nothing_is_left(), self.subTest(text):
                line = str(self.check(service, text))
                self.assertTrue(line.startswith("twsock: "), (text, line))
                self.assertEqual(len(line.splitlines()), 1, (text, line))
                self.assertIn(words, line, text)

    def test_wrong_options_of_streams(self) -> None:
        """Each is one line."""
        self.check_all(_STREAM)

    def test_wrong_options_of_web_sockets(self) -> None:
        """Each is one line."""
        self.check_all(_WEB_SOCKET)

    def test_wrong_options_of_datagrams(self) -> None:
        """Each is one line."""
        self.check_all(_DATAGRAM)

    def test_wrong_options_of_groups(self) -> None:
        """Each is one line."""
        self.check_all(_MULTICAST)

    def test_wrong_options_of_all_services(self) -> None:
        """Each is one line."""
        self.check_all(_ALL)

    def test_a_check_makes_no_certificate(self) -> None:
        """A start would make it."""
        for service, text in ((_ALL, ""), (_STREAM, "--tls"), (_WEB_SOCKET, "--tls")):
            printed = io.StringIO()
            with self.nothing_is_left(), contextlib.redirect_stdout(printed):
                self.assertEqual(self.check(service, text).code, 0, service)
            self.assertIn("nothing was started", printed.getvalue(), service)

    def test_a_folder_without_permission_is_refused(self) -> None:
        """Root may write everywhere, so access(2) is replaced."""
        self.patch(os, "access", lambda *_: False)
        line = str(self.check(_STREAM, "--endpoint unix:echo"))
        self.assertIn("this user may not make files in", line)


class DescribeTests(SynchronousTestCase):
    """Endpoints that services would listen on."""

    def describe(self, *descriptions: str) -> list[str]:
        """Return the lines for endpoints."""
        service = ListeningService(None, [(each, None) for each in descriptions])
        return describe_check([service])

    def test_some_endpoints_may_be_given_twice(self) -> None:
        """The system chooses the port, or many programs may use it."""
        for text in ("tcp:0", "udp:0:interface=127.0.0.1", "multicast:224.3.0.5:1:interface=lo"):
            self.assertEqual(self.describe(text, text)[:2], [f"would listen on {text}"] * 2)

    def test_other_endpoints_are_described_as_they_are(self) -> None:
        """An abstract name, and the grammar of a plugin."""
        for text in ("unix:\0name", "plugin:[x"):
            self.assertEqual(self.describe(text)[0], f"would listen on {text}")

    def test_a_socket_of_a_running_service_may_be_there(self) -> None:
        """The check says nothing about it."""
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as other:
            path = f"{folder}/echo"
            other.bind(path)
            other.listen()
            self.assertEqual(self.describe(f"unix:{path}")[0], f"would listen on unix:{path}")

    def test_a_name_that_cannot_be_one_is_refused(self) -> None:
        """Python raises an error of its own for it."""
        with self.assertRaisesRegex(ValueError, "is not the name of a host"):
            self.describe(f"tcp:1:interface={'a' * 64}.example")
