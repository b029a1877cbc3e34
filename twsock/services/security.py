"""
TLS of the services: options → certificates → **security** → handshakes.

The options are read once, the files again on SIGHUP. Later handshakes use the new certificates;
open connections keep theirs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from twisted.python.usage import Options, UsageError

from twsock.errors import SocketError
from twsock.log import TextLogger
from twsock.protocols import UpgradePolicy, UpgradeToSsl
from twsock.services.options import choice_option, seconds_option
from twsock.tls import (
    Certificate,
    ClientCertificatePolicy,
    ServerOptions,
    ServerTls,
    SocketProtectionLevel,
)
from twsock.tls.certificates import is_readable_by_others
from twsock.tls.development import find_or_make_certificates
from twsock.tls.handshake import DEFAULT_HANDSHAKE_TIMEOUT

__all__ = [
    "LEVELS",
    "CertificateFile",
    "Security",
    "SecurityOptions",
    "certificate_directory",
    "development_directory",
    "find_development_certificate",
]

#: Values of ``--min-level``.
LEVELS: Final = {
    "tls12": SocketProtectionLevel.TLS12,
    "tls13": SocketProtectionLevel.TLS13,
}

#: Options that need TLS, except those with a default.
_ONLY_WITH_TLS: Final = ("key", "key-password-file", "client-ca", "min-level", "handshake-timeout")

_POLICIES: Final = ("off", "allowed", "required")


@dataclass(frozen=True, slots=True)
class CertificateFile:
    """
    The files of a server's certificate.

    :ivar path: PEM file of the certificate, its chain and its key; or a PKCS#12 file.
    :ivar key: PEM file of the key, if it is a separate file.
    :ivar password: password of the key.
    :ivar authority: certificate of the issuer that clients need to trust; logged for users.
    """

    path: Path
    key: Path | None = None
    password: str | None = None
    authority: Path | None = None

    def load(self) -> Certificate:
        """
        Read the certificate and its key.

        :raises SocketError: when they cannot be used; the text is one line.
        """
        certificate = Certificate.load(self.path, key=self.key, password=self.password)
        if not certificate.has_private_key:
            raise SocketError(f"cannot use {self.path}: there is no key in it")
        return certificate

    @property
    def is_readable_by_others(self) -> bool:
        """
        Whether other users of this machine can read the key.

        :raises SocketError: when the permissions of the file cannot be read.
        """
        return is_readable_by_others(self.key or self.path)


class Security:
    """
    The TLS settings of a service, with the certificates that they name.

    :param files: the certificates; the first is used if none is for the name in the ClientHello.
    :param policy: whether TLS starts at the first byte, or at an upgrade that is allowed or
        required.
    :param client_certificate: whether clients may or must send a certificate.
    :param client_authorities: issuers of client certificates.
    :param min_protection_level: the lowest version of TLS.
    :param handshake_timeout: seconds that a handshake may take.
    :raises SocketError: when a file cannot be used, or this machine's OpenSSL does not support a
        setting; the text is one line.
    :raises ValueError: when a number is out of bounds, or an authority is missing.
    """

    _log = TextLogger()

    def __init__(
        self,
        files: Sequence[CertificateFile],
        policy: UpgradePolicy,
        *,
        client_certificate: ClientCertificatePolicy = ClientCertificatePolicy.OFF,
        client_authorities: Sequence[Certificate] = (),
        min_protection_level: SocketProtectionLevel = SocketProtectionLevel.UNSPECIFIED,
        handshake_timeout: float = DEFAULT_HANDSHAKE_TIMEOUT,
    ) -> None:
        self._files = tuple(files)
        self._certificates = [file.load() for file in files]
        # Read now, as another user may run the service later and lack the permission.
        self._exposed = [file for file in files if file.is_readable_by_others]
        self._tls = ServerTls(
            ServerOptions(
                self._certificates,
                min_protection_level=min_protection_level,
                client_certificate=ClientCertificatePolicy(client_certificate),
                client_authorities=client_authorities,
            )
        )
        self.upgrade = UpgradeToSsl(self._tls, policy, handshake_timeout=handshake_timeout)

    def describe(self) -> None:
        """Log which certificates are in use, and warn of keys that others can read."""
        for file, certificate in zip(self._files, self._certificates, strict=True):
            self._log.info(
                "TLS {policy}: certificate of {subject} until {until:%Y-%m-%d} ({path})",
                policy=self.upgrade.policy.value,
                subject=certificate.subject,
                until=certificate.valid_to,
                path=file.path,
            )
            if file.authority is not None:
                self._log.info(
                    "this is a development certificate; clients trust it with --ca {authority}",
                    authority=file.authority,
                )
        for file in self._exposed:
            self._log.warn(
                "the key in {path} can be read by others: chmod 600 {path}",
                path=file.key or file.path,
            )

    def reload(self) -> None:
        """Read the files again; if one cannot be used, log why and keep the old certificates."""
        try:
            certificates = [file.load() for file in self._files]
            exposed = [file for file in self._files if file.is_readable_by_others]
            self._tls.replace_certificates(certificates)
        except (SocketError, ValueError) as error:
            self._log.error("certificates not replaced: {error}", error=error)
            return
        self._certificates, self._exposed = certificates, exposed
        self.describe()


def development_directory() -> Path:
    """
    Return the folder of the user's development certificates (XDG Base Directory).

    :raises SocketError: when the user has no home directory.
    """
    try:
        state = Path(os.environ.get("XDG_STATE_HOME", ""))
        if not state.is_absolute():  # As its specification says.
            state = Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise SocketError("this user has no home directory: set XDG_STATE_HOME") from error
    return state / "twsock" / "certificates"


@contextmanager
def certificate_directory(options: Options) -> Iterator[Path | None]:
    """
    Yield the folder of development certificates for `find_development_certificate`.

    With ``--check`` it is a copy, which is removed at the end: a check leaves no file.
    """
    values: Any = options
    if not values.get("check"):
        yield None
        return
    with TemporaryDirectory() as scratch:
        copy = Path(scratch) / "certificates"
        # An error that matters is found when the files are made.
        with suppress(OSError, SocketError):
            shutil.copytree(development_directory(), copy)
        yield copy


def find_development_certificate(directory: Path | None = None) -> CertificateFile:
    """
    Return the development certificate of this user; make it if there is none.

    :param directory: the folder of the certificates; None for that of the user.
    :raises SocketError: when it cannot be made.
    """
    files = find_or_make_certificates(directory or development_directory())
    return CertificateFile(files.server, authority=files.authority)


class SecurityOptions(Options):
    """The TLS options of a service; `read_security` evaluates them."""

    optFlags = [["tls", None, "TLS from the first byte."]]
    optParameters: list[list[Any]] = [
        ["upgrade", None, None, "TLS in mid-connection: off, allowed or required. [default: off]"],
        ["key", None, None, "PEM file of the key, if the certificate file has none."],
        ["key-password-file", None, None, "File whose first line is the password of the key."],
        ["client-ca", None, None, "PEM file of the authorities that issue client certificates."],
        ["client-certificate", None, "off", "Of each client: off, optional or required."],
        ["min-level", None, None, "Lowest version of TLS: tls12 or tls13. [default: tls12]"],
        [
            "handshake-timeout",
            None,
            None,
            f"Seconds for a handshake. [default: {DEFAULT_HANDSHAKE_TIMEOUT:g}]",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["certificates"] = []
        self["security"] = None

    def opt_certificate(self, path: str) -> None:
        """PEM file of certificate, chain and key; repeatable: the client's SNI selects one."""
        self["certificates"].append(path)

    def read_security(self) -> Security | None:
        """
        Make the security of these options.

        :returns: None if the options ask for no TLS.
        :raises UsageError: when options are invalid; the text names one of them.
        :raises SystemExit: when a file cannot be used; the text is a line that names it.
        """
        policy = self._read_policy()
        self._check_combination(policy)
        if policy is UpgradePolicy.OFF:
            return None
        if self["handshake-timeout"] is None:
            self["handshake-timeout"] = DEFAULT_HANDSHAKE_TIMEOUT
        timeout = seconds_option(self, "handshake-timeout")
        if not timeout:
            raise UsageError("--handshake-timeout takes seconds, above 0")
        policies = [member.value for member in ClientCertificatePolicy]
        client_certificate = choice_option(self, "client-certificate", policies)
        level = self["min-level"] or "tls12"
        if level not in LEVELS:
            raise UsageError(f"--min-level takes {' or '.join(LEVELS)}, not {level!r}")
        try:
            with ExitStack() as stack:
                return Security(
                    self._find_files(stack),
                    policy,
                    client_certificate=ClientCertificatePolicy(client_certificate),
                    client_authorities=self._read_authorities(),
                    min_protection_level=LEVELS[level],
                    handshake_timeout=timeout,
                )
        except (SocketError, ValueError) as error:
            # Not a UsageError: twistd would print its whole usage text before the line.
            raise SystemExit(f"twsock: TLS cannot be offered: {error}") from error

    def _read_policy(self) -> UpgradePolicy:
        upgrade = self["upgrade"]
        if upgrade is not None and upgrade not in _POLICIES:
            raise UsageError(f"--upgrade takes off, allowed or required, not {upgrade!r}")
        if not self["tls"]:
            return UpgradePolicy(upgrade or "off")
        if upgrade is not None:
            raise UsageError("--tls excludes --upgrade: --tls is TLS from the first byte")
        return UpgradePolicy.IMPLICIT

    def _check_combination(self, policy: UpgradePolicy) -> None:
        if policy is UpgradePolicy.OFF:
            given = [name for name in _ONLY_WITH_TLS if self[name] is not None]
            if self["certificates"]:
                given.append("certificate")
            if self["client-certificate"] != "off":
                given.append("client-certificate")
            if given:
                raise UsageError(f"--{given[0]} needs --tls or --upgrade")
        if self["key"] and len(self["certificates"]) != 1:
            raise UsageError("--key needs exactly one --certificate")
        if self["key-password-file"] and not self["certificates"]:
            raise UsageError("--key-password-file needs a --certificate")
        asks = self["client-certificate"] != "off"
        if asks and not self["client-ca"]:
            raise UsageError(
                "--client-certificate needs --client-ca, the issuers of those certificates"
            )
        if self["client-ca"] and not asks:
            raise UsageError("--client-ca needs --client-certificate")

    def _find_files(self, stack: ExitStack) -> list[CertificateFile]:
        if not self["certificates"]:
            directory = stack.enter_context(certificate_directory(self))
            return [find_development_certificate(directory)]
        # Absolute, as a daemon changes its directory before it reads them again.
        key = None if self["key"] is None else Path(self["key"]).absolute()
        password = self._read_password()
        paths = [Path(path).absolute() for path in self["certificates"]]
        return [CertificateFile(path, key, password) for path in paths]

    def _read_password(self) -> str | None:
        path = self["key-password-file"]
        if path is None:
            return None
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise SocketError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise SocketError(f"cannot read {path}: it is not UTF-8") from error
        return lines[0] if lines else ""

    def _read_authorities(self) -> list[Certificate]:
        if self["client-ca"] is None:
            return []
        first = Certificate.load(self["client-ca"])
        return [first, *first.intermediates]
