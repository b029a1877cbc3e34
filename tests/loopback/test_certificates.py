"""Wrong certificates are refused with their reason; the server is Python's ``ssl``."""

from __future__ import annotations

import functools
import itertools
import socket
import ssl
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import trustme
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHostnameResolver
from twisted.names import dns
from zope.interface import implementer

from tests.loopback.contract import OnEveryReactor, failure_of
from tests.loopback.reactors import on_every_reactor
from tests.loopback.test_tls import plain_server
from tests.tls.certificates_for_tests import (
    NOW,
    Authority,
    Extension,
    names_in_bytes,
    sign_itself,
    spoil_signature,
    unknown_critical_extension,
)
from twsock import SocketErrorStatus, StreamSocket
from twsock.tls.certificates import Certificate
from twsock.tls.levels import SocketProtectionLevel
from twsock.tls.validation import ChainValidationResult, SocketSslErrorSeverity

Level = SocketProtectionLevel
Result = ChainValidationResult
Severity = SocketSslErrorSeverity
Status = SocketErrorStatus

T = TypeVar("T")

#: The alerts in OpenSSL's words (:rfc:`8446`, section 6.2), which the server's operator reads; the
#: worst first.
ALERTS: Final = {
    Result.INVALID_SIGNATURE: "alert decrypt error",
    Result.OTHER_ERRORS: "alert certificate unknown",
    Result.UNKNOWN_CRITICAL_EXTENSION: "alert certificate unknown",
    Result.BASIC_CONSTRAINTS_ERROR: "alert unknown ca",
    Result.UNTRUSTED: "alert unknown ca",
    Result.INCOMPLETE_CHAIN: "alert unknown ca",
    Result.INVALID_NAME: "alert bad certificate",
    Result.EXPIRED: "alert certificate expired",
    Result.WRONG_USAGE: "alert unsupported certificate",
}

#: Both versions: they differ in when certificates are sent.
LEVELS: Final = (Level.TLS12, Level.TLS13)
HOUR: Final = timedelta(hours=1)


def only_for(usage: x509.ObjectIdentifier) -> list[Extension]:
    return [(x509.ExtendedKeyUsage([usage]), False)]


def constraints(
    permitted: Iterable[str] | None = None, excluded: Iterable[str] | None = None
) -> list[Extension]:
    """Make the name constraints of an authority."""
    names = [
        None if given is None else [x509.DNSName(name) for name in given]
        for given in (permitted, excluded)
    ]
    return [(x509.NameConstraints(names[0], names[1]), True)]


AUTHORITY = Authority("twsock tests")
STRANGER = Authority("somebody else")
BRANCH = Authority("branch", AUTHORITY)
OLD_BRANCH = Authority("old branch", AUTHORITY, until=NOW - HOUR)
BRANCH_FOR_CLIENTS = Authority(
    "branch for clients", AUTHORITY, extensions=only_for(ExtendedKeyUsageOID.CLIENT_AUTH)
)
NO_AUTHORITY = Authority("not an authority", AUTHORITY, is_authority=False)
LAST_BRANCH = Authority("the last branch", AUTHORITY, path_length=0)
TOO_LOW = Authority("below the last branch", LAST_BRANCH)
PERMITTED = Authority("for example.com", AUTHORITY, extensions=constraints(["example.com"]))
EXCLUDED = Authority("not for this host", AUTHORITY, extensions=constraints(None, ["localhost"]))

CLIENT = AUTHORITY.issue(
    "client.example", common_name="client", usages=[ExtendedKeyUsageOID.CLIENT_AUTH]
)


def with_key(issued: trustme.LeafCert) -> Certificate:
    return Certificate.from_pem(issued.private_key_and_cert_chain_pem.bytes())


@dataclass(frozen=True, slots=True)
class Row:
    """A wrong certificate, and the expected errors; ``alert`` if it is not that of `ALERTS`."""

    what: str
    issued: trustme.LeafCert
    errors: frozenset[ChainValidationResult]
    status: SocketErrorStatus
    severity: SocketSslErrorSeverity = Severity.IGNORABLE
    host: str = "localhost"
    alert: str = ""


def row(
    what: str,
    issued: trustme.LeafCert,
    status: SocketErrorStatus,
    *errors: ChainValidationResult,
    severity: SocketSslErrorSeverity = Severity.IGNORABLE,
    host: str = "localhost",
    alert: str = "",
) -> Row:
    return Row(what, issued, frozenset(errors), status, severity, host, alert)


NOT_NOW = [
    row(
        "its time is over",
        AUTHORITY.issue("localhost", until=NOW - HOUR),
        Status.CERTIFICATE_EXPIRED,
        Result.EXPIRED,
    ),
    row(
        "its time has not come",
        AUTHORITY.issue("localhost", since=NOW + HOUR),
        Status.CERTIFICATE_EXPIRED,
        Result.EXPIRED,
        alert="alert bad certificate",
    ),
    row(
        "the time of its issuer is over",
        OLD_BRANCH.issue("localhost"),
        Status.CERTIFICATE_EXPIRED,
        Result.EXPIRED,
    ),
]

NOT_TRUSTED = [
    row(
        "nobody knows its issuer",
        STRANGER.issue("localhost"),
        Status.CERTIFICATE_UNTRUSTED_ROOT,
        Result.INCOMPLETE_CHAIN,
    ),
    row(
        "it vouches for itself",
        sign_itself("localhost"),
        Status.CERTIFICATE_UNTRUSTED_ROOT,
        Result.UNTRUSTED,
    ),
    row(
        "the certificate between it and the root is missing",
        BRANCH.issue("localhost", is_whole=False),
        Status.CERTIFICATE_UNTRUSTED_ROOT,
        Result.INCOMPLETE_CHAIN,
    ),
]

NOT_FOR_THIS = [
    row(
        "it is a client's",
        AUTHORITY.issue("localhost", usages=[ExtendedKeyUsageOID.CLIENT_AUTH]),
        Status.CERTIFICATE_WRONG_USAGE,
        Result.WRONG_USAGE,
    ),
    row(
        "it is for signing programs",
        AUTHORITY.issue("localhost", usages=[ExtendedKeyUsageOID.CODE_SIGNING]),
        Status.CERTIFICATE_WRONG_USAGE,
        Result.WRONG_USAGE,
    ),
    row(
        "its issuer is there for clients",
        BRANCH_FOR_CLIENTS.issue("localhost"),
        Status.CERTIFICATE_WRONG_USAGE,
        Result.WRONG_USAGE,
    ),
]

#: Certificates with errors that can't be ignored.
DEFECTIVE = [
    row(
        "its issuer is not an authority",
        NO_AUTHORITY.issue("localhost"),
        Status.CERTIFICATE_IS_INVALID,
        Result.BASIC_CONSTRAINTS_ERROR,
        Result.WRONG_USAGE,
        severity=Severity.FATAL,
    ),
    row(
        "its issuer stands lower than it may",
        TOO_LOW.issue("localhost"),
        Status.CERTIFICATE_IS_INVALID,
        Result.BASIC_CONSTRAINTS_ERROR,
        severity=Severity.FATAL,
    ),
    row(
        "it has a critical extension that nobody knows",
        AUTHORITY.issue("localhost", extensions=[unknown_critical_extension()]),
        Status.CERTIFICATE_IS_INVALID,
        Result.UNKNOWN_CRITICAL_EXTENSION,
        severity=Severity.FATAL,
    ),
    row(
        "its signature is not that of its issuer",
        spoil_signature(AUTHORITY.issue("localhost")),
        Status.CERTIFICATE_IS_INVALID,
        Result.INVALID_SIGNATURE,
        severity=Severity.FATAL,
    ),
]

#: Errors that OpenSSL reports after it has accepted the server's own certificate.
OUT_OF_BOUNDS = [
    row(
        "its issuer may issue for another domain only",
        PERMITTED.issue("localhost"),
        Status.CERTIFICATE_IS_INVALID,
        Result.OTHER_ERRORS,
        severity=Severity.FATAL,
    ),
    row(
        "its issuer may not issue for this host",
        EXCLUDED.issue("localhost"),
        Status.CERTIFICATE_IS_INVALID,
        Result.OTHER_ERRORS,
        severity=Severity.FATAL,
    ),
]


def misnamed(what: str, host: str, *names: str) -> Row:
    issued = AUTHORITY.issue(*names, common_name=host)
    status = Status.CERTIFICATE_COMMON_NAME_IS_INCORRECT
    return row(what, issued, status, Result.INVALID_NAME, host=host)


def malformed(what: str, host: str, *names: bytes) -> Row:
    issued = AUTHORITY.issue(extensions=[names_in_bytes(*names)])
    status = Status.CERTIFICATE_COMMON_NAME_IS_INCORRECT
    return row(what, issued, status, Result.INVALID_NAME, host=host)


#: Certificates for other names; the common name, which is never used, is always the right one.
FOR_ANOTHER = [
    misnamed("it is for another host", "localhost", "other.example"),
    misnamed("it is for no host: a common name is none", "localhost"),
    misnamed("it is for what the name begins with", "localhost.example", "localhost"),
    misnamed("it is for an address, and a name is asked for", "localhost", "127.0.0.1"),
    misnamed("it is for a name, and an address is asked for", "127.0.0.1", "localhost"),
    misnamed("it is for another address", "127.0.0.1", "127.0.0.2", "::1"),
    misnamed("an IPv4 address is none of IPv6", "127.0.0.1", "::ffff:127.0.0.1"),
    misnamed("a wildcard is not for two labels", "a.b.example.com", "*.example.com"),
    misnamed("a wildcard is not for no label", "example.com", "*.example.com"),
    misnamed("a wildcard is not for part of a label", "ab.example.com", "a*.example.com"),
    misnamed("a wildcard is the first label", "a.b.example.com", "a.*.example.com"),
    misnamed("a wildcard is not for a domain of the first level", "example.com", "*.com"),
    misnamed("a wildcard is not for everything", "localhost", "*"),
    misnamed("a wildcard is not for an A-label", "straße.example.com", "*.example.com"),
    misnamed("IDNA 2003 had another name for it", "straße.example", "strasse.example"),
    misnamed("it looks alike, in another script", "example.com", "xn--xample-hva.com"),
]

MALFORMED_NAMES = [
    malformed("it goes on behind a NUL", "localhost", b"localhost\0.evil.example"),
    malformed("one name is no name, and so none counts", "localhost", b"\0", b"localhost"),
    malformed("it is an address, written as a name", "127.0.0.1", b"127.0.0.1"),
    malformed("it is not in A-labels", "straße.example", "straße.example".encode()),
    malformed("it is empty", "localhost", b""),
    malformed("there is none in the list", "localhost"),
]

#: Certificates whose names `service_identity` can't read.
UNREADABLE_NAMES = [malformed("it is not ASCII, nor UTF-8", "localhost", b"\xff", b"localhost")]

ROWS = [*NOT_NOW, *NOT_TRUSTED, *NOT_FOR_THIS, *DEFECTIVE, *FOR_ANOTHER, *MALFORMED_NAMES]

#: The host as it is typed, the name in the certificate, and the name sent to the server (SNI).
WELL_NAMED: list[tuple[str, str, str | None]] = [
    ("localhost", "localhost", "localhost"),
    ("LocalHost", "localhost", "localhost"),
    ("localhost", "LOCALHOST", "localhost"),
    ("localhost.", "localhost", "localhost"),
    ("www.example.com", "*.example.com", "www.example.com"),
    ("straße.example", "xn--strae-oqa.example", "xn--strae-oqa.example"),
    ("STRASSE.example", "strasse.example", "strasse.example"),
    ("Straße。Example", "xn--strae-oqa.example", "xn--strae-oqa.example"),
    ("xn--strae-oqa.example", "xn--strae-oqa.example", "xn--strae-oqa.example"),
    ("bücher.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
    ("127.0.0.1", "127.0.0.1", None),
    ("::1", "::1", None),
    ("0:0:0:0:0:0:0:1", "::1", None),
    ("fe80::1%lo", "fe80::1", None),
]


class Witness:
    """
    A server that asks each client for a certificate, and records what it receives.

    :param issued: its certificate.
    :param prelude: called in plaintext before the handshake; returns what it read.
    :param greeting: sent inside TLS, in one piece with the end of the handshake if possible.
    :param setup: changes its context.
    :ivar wire: the received bytes, without those of the prelude.
    :ivar inside: the bytes received inside TLS, which it sends back.
    :ivar names: the host that each client asked for (SNI), or None.
    :ivar shown: certificates of clients, DER.
    """

    def __init__(
        self,
        issued: trustme.LeafCert,
        prelude: Callable[[socket.socket], object] = lambda connection: None,
        *,
        greeting: bytes = b"",
        setup: Callable[[ssl.SSLContext], object] = lambda context: None,
    ) -> None:
        self.wire = self.inside = b""
        self.names: list[str | None] = []
        self.shown: list[bytes] = []
        self._prelude = prelude
        self._greeting = greeting
        self._issued = issued
        self._setup = setup

    @functools.cached_property
    def _context(self) -> ssl.SSLContext:
        # Made at the first handshake, since most clients of some tests begin none.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._issued.configure_cert(context)
        authority = AUTHORITY.certificate.get_certificate_blob()
        context.load_verify_locations(cadata=authority)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.sni_callback = self._note_name
        self._setup(context)
        return context

    def serve(self, connection: socket.socket) -> None:
        """Serve one client, to its end."""
        self._prelude(connection)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        inside = self._context.wrap_bio(incoming, outgoing, server_side=True)
        steps = self._converse(inside)
        while data := connection.recv(65536):
            self.wire += data
            incoming.write(data)
            try:
                next(steps)
            except StopIteration:
                return
            finally:
                connection.sendall(outgoing.read())

    def _converse(self, inside: ssl.SSLObject) -> Iterator[None]:
        """Continue until bytes are missing, then receive, and again."""
        yield from _until_done(inside.do_handshake)
        self.shown += filter(None, [inside.getpeercert(True)])
        inside.write(self._greeting)
        while request := (yield from _until_done(lambda: inside.read(65536))):
            self.inside += request
            inside.write(request)
        yield from _until_done(inside.unwrap)

    def _note_name(self, _inside: object, name: str | None, _context: object) -> None:
        self.names.append(name)


def _until_done(step: Callable[[], T]) -> Generator[None, None, T]:
    """Try again whenever more bytes have arrived."""
    while True:
        try:
            return step()
        except ssl.SSLWantReadError:
            yield


@implementer(IHostnameResolver)
class EverywhereHere:
    """
    A DNS in which every host is this machine.

    :ivar asked: the names that were looked up.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []

    # Called by Twisted.

    def resolveHostName(
        self,
        resolutionReceiver: Any,  # noqa: N803 - Twisted's names
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        addressTypes: object = None,  # noqa: N803
        transportSemantics: str = "TCP",  # noqa: N803
    ) -> Any:
        self.asked.append(hostName)
        resolutionReceiver.resolutionBegan(self)
        resolutionReceiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        resolutionReceiver.resolutionComplete()
        return resolutionReceiver


class Services:
    """A resolver of services: each service is on one host and port."""

    def __init__(self, host: str, port: int) -> None:
        self._record = dns.Record_SRV(0, 0, port, host)

    # Called as Twisted's resolvers are.

    def lookupService(self, name: str, timeout: object = None) -> Any:  # noqa: N802 - theirs

        async def look_up() -> Any:
            return [dns.RRHeader(name, dns.SRV, payload=self._record)], [], []

        return look_up()


class CertificateCase(OnEveryReactor):
    """What all tests of certificates share."""

    has_variants = True

    def client(self, reactor: Any, *forgiven: ChainValidationResult) -> StreamSocket:
        """Make a socket that trusts the authority of the tests, and has a client certificate."""
        made = StreamSocket(reactor)
        made.control.trust_roots = [AUTHORITY.certificate]
        made.control.client_certificate = with_key(CLIENT)
        made.control.ignorable_server_certificate_errors.extend(forgiven)
        return made

    async def refuse(
        self, reactor: Any, case: Row, level: SocketProtectionLevel, *forgiven: Result
    ) -> None:
        """
        Connect to a server with this certificate; check the errors, and the bytes that were sent.
        """
        witness = Witness(case.issued, greeting=b"trust me")
        with plain_server(witness.serve) as server:
            client = self.client(reactor, *forgiven)
            try:
                await client.connect("127.0.0.1", server.port)
                upgrading = client.upgrade_to_ssl(level, case.host)
                writing = client.output_stream.write(b"password")
                error = await failure_of(upgrading)
                self.assertFalse(client.is_open, case.what)
                for pending in (writing, client.input_stream.receive_some()):
                    await failure_of(pending)
            finally:
                await client.abort()
        information = client.information
        self.assertIs(error.status, case.status, case.what)
        self.assertEqual(set(information.server_certificate_errors), case.errors, case.what)
        self.assertIs(information.server_certificate_error_severity, case.severity, case.what)
        self.assertEqual(information.server_certificate, with_key(case.issued), case.what)
        left = case.errors if case.severity is Severity.FATAL else case.errors - set(forgiven)
        alert = next(alert for error, alert in ALERTS.items() if error in left)
        self.assertIn(case.alert or alert, "".join(server.seen), case.what)
        self.assertEqual(witness.inside, b"", case.what)
        self.assertEqual(witness.shown, [], case.what)
        for secret in (b"password", with_key(CLIENT).get_certificate_blob()):
            self.assertNotIn(secret, witness.wire, case.what)

    async def accept(
        self, reactor: Any, case: Row, level: SocketProtectionLevel, *forgiven: Result
    ) -> None:
        """Connect, and ignore these errors."""
        witness = Witness(case.issued)
        with plain_server(witness.serve) as server:
            client = self.client(reactor, *forgiven)
            await client.connect("127.0.0.1", server.port)
            await client.upgrade_to_ssl(level, case.host)
            await client.output_stream.write(b"password")
            self.assertEqual(await client.input_stream.receive_exactly(8), b"password", case.what)
            self.assertEqual(set(client.information.server_certificate_errors), case.errors)
            await client.close()
            await client.wait_closed()
        self.assertNotIn(b"password", witness.wire, case.what)

    def refuse_all(self, rows: Iterable[Row], *forgiven: Result) -> None:
        async def work(reactor: Any) -> None:
            for case, level in itertools.product(rows, LEVELS):
                await self.refuse(reactor, case, level, *forgiven)

        self.conduct(work)


class RefusedTests(CertificateCase):
    """
    Refused certificates: the reason is named; no data, client certificate or message is passed.
    """

    @on_every_reactor
    def test_certificates_out_of_date_are_refused(self) -> None:
        """C10, E17, E21: the server's certificate, or one above it."""
        self.refuse_all(NOT_NOW)

    def test_certificates_of_unknown_issuers_are_refused(self) -> None:
        """C10, E17, E21: of another authority, of none, of one that can't be found."""
        self.refuse_all(NOT_TRUSTED)

    def test_certificates_for_another_use_are_refused(self) -> None:
        """E21: the certificate has to be for servers."""
        self.refuse_all(NOT_FOR_THIS)

    def test_defective_certificates_are_refused(self) -> None:
        """E17, E21: these errors are fatal."""
        self.refuse_all(DEFECTIVE)

    def test_certificates_outside_the_name_constraints_are_refused(self) -> None:
        """An authority for some domains may not issue for others."""
        self.refuse_all(OUT_OF_BOUNDS)

    def test_certificates_for_another_name_are_refused(self) -> None:
        """C10: names, addresses, wildcards; the common name is not used."""
        self.refuse_all(FOR_ANOTHER)

    def test_certificates_with_malformed_names_are_refused(self) -> None:
        """C10: a malformed name matches no host."""
        self.refuse_all(MALFORMED_NAMES)

    def test_certificates_with_unreadable_names_are_refused(self) -> None:
        """The reason is named."""
        self.refuse_all(UNREADABLE_NAMES)

    def test_the_issuers_of_a_refused_certificate_can_be_read(self) -> None:
        """E19: in the order of the chain."""

        async def work(reactor: Any) -> None:
            with plain_server(Witness(OLD_BRANCH.issue("localhost")).serve) as server:
                client = self.client(reactor)
                await failure_of(client.connect("localhost", server.port, Level.TLS13))
                sent = client.information.server_intermediate_certificates
                self.assertEqual(sent, (OLD_BRANCH.certificate,))

        self.conduct(work)


class ForgivenTests(CertificateCase):
    """Ignored errors: those that the application listed, and no others."""

    #: A certificate with three errors.
    worst = row(
        "everything that can be forgiven",
        STRANGER.issue("other.example", until=NOW - HOUR),
        Status.CERTIFICATE_UNTRUSTED_ROOT,
        Result.INCOMPLETE_CHAIN,
        Result.INVALID_NAME,
        Result.EXPIRED,
    )

    @on_every_reactor
    def test_listed_errors_are_ignored(self) -> None:
        """E18: each that can be ignored; it is still reported."""

        async def work(reactor: Any) -> None:
            for case in (*NOT_NOW, *NOT_TRUSTED, *NOT_FOR_THIS, FOR_ANOTHER[0], self.worst):
                await self.accept(reactor, case, Level.TLS13, *case.errors)

        self.conduct(work)

    def test_an_error_that_is_not_listed_is_not_ignored(self) -> None:
        """E18: although all other errors are listed."""
        twins = {Result.UNTRUSTED, Result.INCOMPLETE_CHAIN}

        async def work(reactor: Any) -> None:
            for case in (*NOT_NOW, *NOT_TRUSTED, *NOT_FOR_THIS, FOR_ANOTHER[0]):
                meant = case.errors | (twins if case.errors & twins else set())
                await self.refuse(reactor, case, Level.TLS13, *(set(Result) - meant))

        self.conduct(work)

    def test_two_of_three_errors_listed_are_not_enough(self) -> None:
        """E18: the connection fails on the third."""

        async def work(reactor: Any) -> None:
            for count in (1, 2):
                for listed in itertools.combinations(sorted(self.worst.errors), count):
                    await self.refuse(reactor, self.worst, Level.TLS13, *listed)

        self.conduct(work)

    def test_fatal_errors_are_never_ignored(self) -> None:
        """E18: whatever is listed."""
        self.refuse_all(DEFECTIVE, *Result)

    def test_a_violated_name_constraint_is_never_ignored(self) -> None:
        """E18: whatever is listed."""
        self.refuse_all(OUT_OF_BOUNDS, *Result)


class AcceptedTests(CertificateCase):
    """Right certificates."""

    def test_the_typed_name_is_verified_and_sent(self) -> None:
        """C10, C11, E6: in any spelling, as A-labels; an address is not sent."""

        async def work(reactor: Any) -> None:
            reactor.installNameResolver(EverywhereHere())
            for host, name, told in WELL_NAMED:
                witness = Witness(AUTHORITY.issue(name, common_name="somebody"))
                with plain_server(witness.serve) as server:
                    client = self.client(reactor)
                    await client.connect("127.0.0.1", server.port)
                    await client.upgrade_to_ssl(Level.TLS13, host)
                    await client.close()
                    await client.wait_closed()
                self.assertEqual(witness.names, [told], host)

        self.conduct(work)

    @on_every_reactor
    def test_the_name_of_the_connect_is_verified_and_sent(self) -> None:
        """C11: answers of the DNS do not change it."""

        async def work(reactor: Any) -> None:
            resolver = EverywhereHere()
            reactor.installNameResolver(resolver)
            witness = Witness(AUTHORITY.issue("xn--strae-oqa.example"))
            with plain_server(witness.serve) as server:
                client = self.client(reactor)
                await client.connect("Straße.example.", server.port, Level.TLS13)
                await client.close()
                await client.wait_closed()
                other = self.client(reactor)
                error = await failure_of(other.connect("localhost", server.port, Level.TLS13))
                self.assertIs(error.status, Status.CERTIFICATE_COMMON_NAME_IS_INCORRECT)
            self.assertEqual(resolver.asked, ["xn--strae-oqa.example", "localhost"])
            self.assertEqual(witness.names, resolver.asked)

        self.conduct(work)

    def test_a_service_record_does_not_change_the_name(self) -> None:
        """C11, C8: it leads to a host with another name than the service's."""

        async def work(reactor: Any) -> None:
            reactor.installNameResolver(EverywhereHere())
            for name, is_right in (("service.example", True), ("target.example", False)):
                witness = Witness(AUTHORITY.issue(name))
                with plain_server(witness.serve) as server:
                    found: Any = Services("target.example", server.port)
                    client = StreamSocket(reactor, resolver=found)
                    client.control.trust_roots = [AUTHORITY.certificate]
                    connecting = client.connect("service.example", "nosuchservice", Level.TLS13)
                    if is_right:
                        await connecting
                    else:
                        error = await failure_of(connecting)
                        self.assertIs(
                            error.status,
                            Status.CERTIFICATE_COMMON_NAME_IS_INCORRECT,
                            f"{name=}, {error.status=}",
                        )
                    await client.close()
                    await client.wait_closed()
                self.assertEqual(witness.names, ["service.example"], f"{name=}")

        self.conduct(work)

    def test_a_certificate_without_a_usage_is_accepted(self) -> None:
        """It is for every use."""
        anything = AUTHORITY.issue("localhost", usages=())
        case = row("it does not say", anything, Status.UNKNOWN)
        self.conduct(lambda reactor: self.accept(reactor, case, Level.TLS13))

    def test_a_certificate_of_an_intermediate_authority_is_accepted(self) -> None:
        """
        The server sends the intermediate certificate; also with a name constraint for the domain.
        """
        whole = row("a branch", BRANCH.issue("localhost"), Status.UNKNOWN)
        permitted = row(
            "in its bounds", PERMITTED.issue("a.example.com"), Status.UNKNOWN, host="a.example.com"
        )

        async def work(reactor: Any) -> None:
            for case, level in itertools.product((whole, permitted), LEVELS):
                await self.accept(reactor, case, level)

        self.conduct(work)

    def test_a_trusted_self_signed_certificate_is_accepted(self) -> None:
        """A certificate can be trusted as an authority is."""
        alone = sign_itself("localhost")

        async def work(reactor: Any) -> None:
            with plain_server(Witness(alone).serve) as server:
                client = self.client(reactor)
                client.control.trust_roots = [with_key(alone)]
                await client.connect("localhost", server.port, Level.TLS13)
                self.assertEqual(client.information.server_certificate_errors, ())
                await client.close()
                await client.wait_closed()

        self.conduct(work)

    def test_revocation_is_not_checked(self) -> None:
        """
        E17, E21: unlike in WinRT, the addresses in a certificate are not connected to.

        OpenSSL gets no revocation list, so only unit tests test its verdicts on revocation.
        """
        asked: list[socket.socket] = []

        async def work(reactor: Any) -> None:
            with plain_server(asked.append) as office:
                url = x509.UniformResourceIdentifier(f"http://127.0.0.1:{office.port}/")
                lists = x509.CRLDistributionPoints(
                    [x509.DistributionPoint([url], None, None, None)]
                )
                responder = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, url)
                issued = AUTHORITY.issue(
                    "localhost",
                    extensions=[
                        (lists, False),
                        (x509.AuthorityInformationAccess([responder]), False),
                    ],
                )
                case = row("it names who knows of revocation", issued, Status.UNKNOWN)
                for level in LEVELS:
                    await self.accept(reactor, case, level)

        self.conduct(work)
        self.assertEqual(asked, [])


class IdentityTests(CertificateCase):
    """
    The client's own certificate, and the servers that receive it; see `RefusedTests` for others.
    """

    @on_every_reactor
    def test_a_verified_server_receives_the_client_certificate(self) -> None:
        """C16: in either version, if it asks."""

        async def work(reactor: Any) -> None:
            for level in LEVELS:
                witness = Witness(AUTHORITY.issue("localhost"))
                with plain_server(witness.serve) as server:
                    client = self.client(reactor)
                    await client.connect("localhost", server.port, level)
                    await client.output_stream.write(b"x")
                    self.assertEqual(
                        await client.input_stream.receive_exactly(1), b"x", f"{level=}"
                    )
                    await client.close()
                    await client.wait_closed()
                self.assertEqual(
                    witness.shown, [with_key(CLIENT).get_certificate_blob()], f"{level=}"
                )

        self.conduct(work)

    def test_a_server_that_does_not_ask_receives_no_client_certificate(self) -> None:
        """The client never sends it unasked."""

        def ask_for_nothing(context: ssl.SSLContext) -> None:
            context.verify_mode = ssl.CERT_NONE

        async def work(reactor: Any) -> None:
            for level in LEVELS:
                witness = Witness(AUTHORITY.issue("localhost"), setup=ask_for_nothing)
                with plain_server(witness.serve) as server:
                    client = self.client(reactor)
                    await client.connect("localhost", server.port, level)
                    await client.close()
                    await client.wait_closed()
                self.assertEqual(witness.shown, [], f"{level=}")
                self.assertNotIn(
                    with_key(CLIENT).get_certificate_blob(),
                    witness.wire,
                    f"{level=}: {witness.wire!r}",
                )

        self.conduct(work)


CASES = (RefusedTests, ForgivenTests, AcceptedTests, IdentityTests)
for case in CASES:
    globals().update(case.makeTestCaseClasses())
