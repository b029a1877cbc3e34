"""``twsock certificates init`` makes three files, and says what to type next."""

from __future__ import annotations

import io
import shlex
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.arguments import InitArguments, parse_arguments
from twsock.cli.certificates import init_certificates
from twsock.cli.failure import CommandError
from twsock.cli.screen import Screen
from twsock.tls import Certificate


class InitTests(SynchronousTestCase):
    """One folder."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute() / "it's here"

    def init(self, *names: str) -> list[str]:
        """Make certificates; give the lines."""
        output = io.BytesIO()
        arguments = InitArguments(str(self.folder), names or InitArguments("").names)
        init_certificates(arguments, Screen(output))
        return output.getvalue().decode().splitlines()

    def fails(self, *names: str) -> str:
        """Give the line for standard error."""
        line = self.assertRaises(CommandError, self.init, *names).line
        self.assertNotIn("\n", line)
        return str(line)

    def test_three_files_are_made(self) -> None:
        """An authority, and what it issued: the server's is for the names."""
        self.init("a.example", "192.0.2.1")
        self.assertEqual(
            sorted(path.name for path in self.folder.iterdir()),
            ["authority.pem", "client.pem", "server.pem"],
        )
        authority = Certificate.load(self.folder / "authority.pem")
        server = Certificate.load(self.folder / "server.pem")
        names = server.subject_alternative_name
        self.assertEqual((names.dns_names, names.ip_addresses), (("a.example",), ("192.0.2.1",)))
        self.assertEqual(server.issuer, authority.subject)
        self.assertFalse(authority.has_private_key)

    def test_keys_are_of_the_kind_that_was_asked_for(self) -> None:
        """``--key rsa`` reaches the files."""
        words = ["certificates", "init", str(self.folder), "--key", "rsa"]
        arguments = parse_arguments(words)
        assert isinstance(arguments, InitArguments)
        init_certificates(arguments, Screen(io.BytesIO()))
        key = Certificate.load(self.folder / "server.pem").to_cryptography()[1]
        self.assertIsInstance(key, rsa.RSAPrivateKey)

    def test_keys_are_secret(self) -> None:
        """From everybody but the user."""
        self.init()
        for name in ("server.pem", "client.pem"):
            self.assertEqual(stat.S_IMODE((self.folder / name).stat().st_mode), 0o600)

    def test_the_lines_name_the_files(self) -> None:
        """Each with what it is."""
        lines = self.init()
        for line, name in zip(lines, ("authority", "server", "client"), strict=False):
            self.assertTrue(line.startswith(f"{self.folder / name}.pem: "), line)

    def test_the_next_commands_can_be_typed_as_they_are(self) -> None:
        """Whatever the folder is called: a shell reads the same paths."""
        serve, use = map(shlex.split, self.init()[-2:])
        self.assertEqual(serve[:4], ["twistd", "--pidfile=", "-n", "twsock-stream"])
        self.assertEqual(serve[4:], ["--tls", "--certificate", str(self.folder / "server.pem")])
        self.assertEqual(use[0], "twsock")
        arguments = parse_arguments(use[1:])
        assert not isinstance(arguments, InitArguments) and arguments.security is not None
        self.assertEqual(arguments.endpoint, "tcp:127.0.0.1:1337")
        self.assertEqual(arguments.security.authorities, str(self.folder / "authority.pem"))
        self.assertIsNone(arguments.security.name)

    def test_a_certificate_for_others_is_asked_for_by_name(self) -> None:
        """Which the address of this machine is not."""
        self.assertEqual(shlex.split(self.init("a.example")[-1])[-2:], ["--name", "a.example"])

    def test_a_folder_with_anything_in_it_is_refused(self) -> None:
        """And left as it is."""
        self.folder.mkdir(parents=True)
        (self.folder / "mine").touch()
        self.assertEqual(
            self.fails(),
            f"cannot make certificates in {self.folder}: it exists and is not empty",
        )
        self.assertEqual([path.name for path in self.folder.iterdir()], ["mine"])

    def test_any_name_will_do(self) -> None:
        """However long, and with the zone of an address, which is this machine's own matter."""
        for name in ("a" * 63 + ".example", "fe80::1%lo"):
            self.folder = self.folder / "below"
            self.assertIn(name, self.init(name)[1])
