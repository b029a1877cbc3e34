"""Services offer TLS as their options say, or say in one line why they can't."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.logger import globalLogPublisher
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.services.processes import PATIENCE, twistd
from tests.tls.peer import trusting
from twsock.errors import SocketError
from twsock.protocols import UpgradePolicy
from twsock.services.security import (
    LEVELS,
    CertificateFile,
    Security,
    SecurityOptions,
    development_directory,
    find_development_certificate,
)
from twsock.tls import ClientCertificatePolicy, SocketProtectionLevel

LOCAL = "tcp:0:interface=127.0.0.1"
AUTHORITY = trustme.CA()
SERVER = AUTHORITY.issue_cert("localhost", "127.0.0.1", common_name="server")
OTHER = AUTHORITY.issue_cert("other.example", common_name="other")
CLIENT = AUTHORITY.issue_cert("client@example.com", common_name="client")
FRAME = b"\0\0\0\5Hello"


class CertificatesInFiles(SynchronousTestCase):
    """Files for a command line."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": str(self.folder / "state")})
        self.server = self.write("server.pem", SERVER.private_key_and_cert_chain_pem.bytes())
        self.authority = self.write("authority.pem", AUTHORITY.cert_pem.bytes())

    def write(self, name: str, data: bytes, mode: int = 0o600) -> str:
        """Write a file."""
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(mode)
        return str(path)

    def write_encrypted_key(self) -> str:
        """Write the server's key, encrypted with the password ``secret``."""
        key = load_pem_private_key(SERVER.private_key_pem.bytes(), None)
        return self.write(
            "encrypted.pem",
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
            + SERVER.cert_chain_pems[0].bytes(),
        )

    def client_context(self) -> ssl.SSLContext:
        """Make the context of a client that trusts the authority of these files."""
        return trusting(AUTHORITY)


class OptionsTests(CertificatesInFiles):
    """Options are checked before any port is opened."""

    def read(self, *words: str) -> Security | None:
        """Parse a command line."""
        options = SecurityOptions()
        options.parseOptions(list(words))
        return options.read_security()

    def test_without_options_there_is_no_tls(self) -> None:
        """No certificate is made."""
        self.assertIsNone(self.read())
        self.assertIsNone(self.read("--upgrade", "off"))
        self.assertFalse(development_directory().exists())

    def test_options_choose_the_policy(self) -> None:
        """TLS from the first byte, or in mid-connection."""
        for words, policy in (
            (["--tls"], UpgradePolicy.IMPLICIT),
            (["--upgrade", "allowed"], UpgradePolicy.ALLOWED),
            (["--upgrade", "required"], UpgradePolicy.REQUIRED),
        ):
            security = self.read(*words, "--certificate", self.server)
            assert security is not None
            self.assertIs(security.upgrade.policy, policy, f"{words=}, {security.upgrade.policy=}")

    def test_a_key_may_be_in_another_file(self) -> None:
        """The certificate's file need not have one."""
        certificate = self.write("certificate.pem", SERVER.cert_chain_pems[0].bytes())
        key = self.write("key.pem", SERVER.private_key_pem.bytes())
        self.assertIsNotNone(self.read("--tls", "--certificate", certificate, "--key", key))

    def test_an_encrypted_key_takes_its_password_from_a_file(self) -> None:
        """On the command line every user of the machine could read it."""
        words = ["--tls", "--certificate", self.write_encrypted_key(), "--key-password-file"]
        self.assertIsNotNone(self.read(*words, self.write("password", b"secret\n")))
        for wrong, reason in ((b"wrong\n", "password"), (b"", "password"), (b"\xff\n", "password")):
            error = self.assertRaises(SystemExit, self.read, *words, self.write("password", wrong))
            self.assertIn(reason, str(error), f"{wrong=}: {error}")
            self.assertEqual(str(error).count("\n"), 0, f"{wrong=}")

    def test_options_that_contradict_each_other_are_refused(self) -> None:
        """The error names the option."""
        given = ["--certificate", self.server]
        for words, named in (
            (["--tls", "--upgrade", "allowed"], "--tls"),
            (["--tls", "--upgrade", "off"], "--tls"),
            (["--upgrade", "maybe"], "--upgrade"),
            (given, "--certificate"),
            (["--key", self.server], "--key"),
            (["--client-ca", self.authority], "--client-ca"),
            (["--client-certificate", "required"], "--client-certificate"),
            (["--min-level", "tls13"], "--min-level"),
            (["--upgrade", "off", "--handshake-timeout", "3"], "--handshake-timeout"),
            (["--tls", *given, "--client-certificate", "required"], "--client-ca"),
            (["--tls", *given, "--client-certificate", "sometimes"], "--client-certificate"),
            (["--tls", *given, "--client-ca", self.authority], "--client-ca"),
            (["--tls", "--key", self.server], "--key"),
            (["--tls", *given, *given, "--key", self.server], "--key"),
            (["--tls", "--key-password-file", self.server], "--key-password-file"),
            (["--tls", *given, "--min-level", "tls10"], "--min-level"),
            (["--tls", *given, "--handshake-timeout", "0"], "--handshake-timeout"),
            (["--tls", *given, "--handshake-timeout", "soon"], "--handshake-timeout"),
        ):
            error = self.assertRaises(UsageError, self.read, *words)
            self.assertIn(named, str(error), words)
            self.assertEqual(str(error).count("\n"), 0, words)

    def test_a_file_that_cannot_be_used_is_named(self) -> None:
        """The error is one line with the file."""
        bare = self.write("bare.pem", SERVER.cert_chain_pems[0].bytes())
        nonsense = self.write("nonsense.pem", b"nonsense")
        other_key = self.write("other.pem", OTHER.private_key_pem.bytes())
        missing = str(self.folder / "missing.pem")
        for words, named in (
            ([bare], bare),
            ([nonsense], nonsense),
            ([missing], missing),
            ([bare, "--key", other_key], bare),
            ([bare, "--key", missing], missing),
            ([self.server, "--client-certificate", "required", "--client-ca", missing], missing),
            ([self.write_encrypted_key(), "--key-password-file", missing], missing),
        ):
            error = self.assertRaises(SystemExit, self.read, "--tls", "--certificate", *words)
            self.assertIn(named, str(error), f"{named=}: {error}")
            self.assertIn("TLS cannot be offered", str(error), f"{named=}: {error}")
            self.assertEqual(str(error).count("\n"), 0, f"{named=}")

    def test_the_development_certificate_is_made_once(self) -> None:
        """In the user's state directory."""
        self.assertIsNotNone(self.read("--tls"))
        file = find_development_certificate()
        self.assertEqual(file.path.parent, self.folder / "state" / "twsock" / "certificates")
        before = file.path.read_bytes()
        self.assertIsNotNone(self.read("--tls"))
        self.assertEqual(file.path.read_bytes(), before)

    def test_without_a_home_directory_the_error_says_what_to_do(self) -> None:
        """There is no directory for the certificate."""

        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        self.patch(os, "environ", {})
        self.patch(Path, "home", no_home)
        error = self.assertRaises(SocketError, development_directory)
        self.assertIn("XDG_STATE_HOME", str(error))

    def test_each_word_for_the_lowest_version_is_accepted(self) -> None:
        """Each word means one protection level."""
        self.assertEqual(LEVELS["tls13"], SocketProtectionLevel.TLS13)
        self.assertEqual(list(LEVELS), ["tls12", "tls13"])


class CertificateFileTests(CertificatesInFiles):
    """What is known of a certificate file besides its contents."""

    def test_a_readable_key_file_is_reported(self) -> None:
        """The permissions of the file with the key count."""
        self.assertFalse(CertificateFile(Path(self.server)).is_readable_by_others)
        key = Path(self.write("key.pem", SERVER.private_key_pem.bytes(), 0o640))
        self.assertTrue(CertificateFile(Path(self.server), key).is_readable_by_others)

    def test_a_certificate_without_a_key_is_refused(self) -> None:
        """A server needs the key."""
        bare = self.write("bare.pem", SERVER.cert_chain_pems[0].bytes())
        error = self.assertRaises(SocketError, CertificateFile(Path(bare)).load)
        self.assertIn("no key", str(error))


class SecurityTests(CertificatesInFiles):
    """Reloading of certificates."""

    def test_a_reload_keeps_certificates_that_work(self) -> None:
        """A file that can't be used changes nothing, and is logged."""
        security = Security(
            [CertificateFile(Path(self.server))],
            UpgradePolicy.ALLOWED,
            client_certificate=ClientCertificatePolicy.OFF,
        )
        Path(self.server).write_bytes(b"nonsense")
        events: list[Any] = []
        publisher: Any = globalLogPublisher
        publisher.addObserver(events.append)
        self.addCleanup(publisher.removeObserver, events.append)
        security.reload()
        self.assertEqual([event["log_level"].name for event in events], ["error"])
        Path(self.server).write_bytes(OTHER.private_key_and_cert_chain_pem.bytes())
        security.reload()
        self.assertEqual(events[-1]["subject"], "other")

    def test_permissions_of_a_file_are_checked_when_it_is_read(self) -> None:
        """A service that has become another user may not look later."""
        Path(self.server).chmod(0o644)
        security = Security([CertificateFile(Path(self.server))], UpgradePolicy.ALLOWED)
        Path(self.server).unlink()
        events: list[Any] = []
        publisher: Any = globalLogPublisher
        publisher.addObserver(events.append)
        self.addCleanup(publisher.removeObserver, events.append)
        security.describe()
        self.assertEqual([event["log_level"].name for event in events], ["info", "warn"])


class TwistdTests(CertificatesInFiles):
    """Real processes, and Python's ``ssl`` as the peer."""

    def connect(self, port: int) -> socket.socket:
        """Open a connection until the end of the test."""
        connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.addCleanup(connection.close)
        return connection

    def secure(self, connection: socket.socket, context: ssl.SSLContext | None = None) -> Any:
        """Do the handshake."""
        inside = (context or self.client_context()).wrap_socket(
            connection, server_hostname="localhost"
        )
        self.addCleanup(inside.close)
        return inside

    def assert_echoes(self, connection: socket.socket) -> None:
        """Send a frame, and require its echo."""
        connection.sendall(FRAME)
        answer = b""
        while len(answer) < len(FRAME) and (piece := connection.recv(len(FRAME) - len(answer))):
            answer += piece
        self.assertEqual(answer, FRAME)

    def test_with_tls_from_the_first_byte_plaintext_is_not_answered(self) -> None:
        """Frames inside TLS are."""
        with twistd("twsock-stream", "-e", LOCAL, "--tls", "--certificate", self.server) as server:
            (port,) = server.wait_for_ports()
            self.assert_echoes(self.secure(self.connect(port)))
            plain = self.connect(port)
            plain.sendall(FRAME)
            self.assertRaises(ConnectionResetError, plain.recv, 1)
            server.wait_for("security violation|plaintext")

    def test_with_a_required_upgrade_plaintext_frames_are_not_answered(self) -> None:
        """Frames after the upgrade are."""
        words = ["--upgrade", "required", "--certificate", self.server]
        with twistd("twsock-stream", "-e", LOCAL, *words) as server:
            (port,) = server.wait_for_ports()
            plain = self.connect(port)
            plain.sendall(FRAME)
            self.assert_echoes(self.secure(plain))

    def test_a_client_without_a_required_certificate_is_refused(self) -> None:
        """A client with one is served."""
        words = ["--certificate", self.server, "--client-ca", self.authority]
        words += ["--client-certificate", "required", "--min-level", "tls13"]
        with twistd("twsock-stream", "-e", LOCAL, "--tls", *words) as server:
            (port,) = server.wait_for_ports()
            nobody = self.secure(self.connect(port))
            self.assertRaises((ssl.SSLError, ConnectionError), nobody.recv, 1)
            context = self.client_context()
            CLIENT.configure_cert(context)
            somebody = self.secure(self.connect(port), context)
            self.assertEqual(somebody.version(), "TLSv1.3")
            self.assert_echoes(somebody)

    def test_the_certificate_is_chosen_by_the_server_name(self) -> None:
        """The first one is the default."""
        other = self.write("other.pem", OTHER.private_key_and_cert_chain_pem.bytes())
        words = ["--certificate", self.server, "--certificate", other]
        context = self.client_context()
        context.check_hostname = False
        with twistd("twsock-stream", "-e", LOCAL, "--tls", *words) as server:
            (port,) = server.wait_for_ports()
            for name, shown in (
                ("localhost", "localhost"),
                ("other.example", "other.example"),
                ("third.example", "localhost"),
            ):
                with context.wrap_socket(self.connect(port), server_hostname=name) as inside:
                    certificate: Any = inside.getpeercert()
                    self.assertEqual(
                        certificate["subjectAltName"][0][1], shown, f"{name=}, {shown=}"
                    )

    def test_sighup_reloads_the_files(self) -> None:
        """An open connection continues; the next handshake shows the new certificate."""
        with twistd("twsock-stream", "-e", LOCAL, "--tls", "--certificate", self.server) as server:
            (port,) = server.wait_for_ports()
            standing = self.secure(self.connect(port))
            self.assert_echoes(standing)
            Path(self.server).write_bytes(OTHER.private_key_and_cert_chain_pem.bytes())
            server.process.send_signal(signal.SIGHUP)
            server.wait_for("certificate of other until")
            self.assert_echoes(standing)
            context = self.client_context()
            with context.wrap_socket(
                self.connect(port), server_hostname="other.example"
            ) as renewed:
                self.assert_echoes(renewed)

    def test_a_key_that_others_can_read_is_used_with_a_warning(self) -> None:
        """The log names its file."""
        Path(self.server).chmod(0o644)
        with twistd("twsock-stream", "-e", LOCAL, "--tls", "--certificate", self.server) as server:
            server.wait_for(r"can be read by others: chmod 600 .*server\.pem")

    def test_a_wrong_file_is_reported_in_the_last_line(self) -> None:
        """Exit status not zero, no traceback."""
        with twistd("twsock-stream", "--tls", "--certificate", self.authority) as server:
            self.assertNotEqual(server.wait(), 0)
            self.assertNotIn("Traceback", server.log)
            (line,) = server.log.splitlines()
            self.assertIn("there is no key in it", line)
