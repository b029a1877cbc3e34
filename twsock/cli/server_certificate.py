"""
What a server showed: certificate → **lines** → standard error.

Asked by `twsock.cli.security` after a handshake. Nearly all of it is the server's word, which a
terminal might obey, and a certificate may have thousands of names: it is escaped and shortened.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from twsock.cli.failure import CommandError
from twsock.cli.screen import escape
from twsock.tls import Certificate, CertificateError, ChainValidationResult, ClientOptions

__all__ = ["MAX_NAMES", "describe_certificate", "explain_refusal"]

#: How many of its names are shown: more than any ordinary certificate has that a person reads.
MAX_NAMES: Final = 20

#: Longest text of a certificate that is shown, in characters. A name in the DNS has at most 253.
_MAX_TEXT: Final = 256

_R = ChainValidationResult

#: In plain words; where a certificate or an option has a part in it, see `_explain`.
_MEANINGS: Final = {
    _R.REVOKED: "it was withdrawn",
    _R.INVALID_SIGNATURE: "its signature is wrong: it was changed, or never signed by its issuer",
    _R.WRONG_USAGE: "it was issued for something else than servers",
    _R.INVALID_CERTIFICATE_AUTHORITY_POLICY: "its issuer's policy does not allow it",
    _R.BASIC_CONSTRAINTS_ERROR: "it was issued by one who is no authority",
    _R.UNKNOWN_CRITICAL_EXTENSION: "it has a critical part that nobody here understands",
    _R.REVOCATION_INFORMATION_MISSING: "nothing says whether it was withdrawn",
    _R.REVOCATION_FAILURE: "it could not be found out whether it was withdrawn",
}


def describe_certificate(certificate: Certificate, connection: str = "") -> list[str]:
    """
    Say what is in a certificate.

    :param connection: version and cipher suite; empty where there is none.
    """
    facts = {
        "subject": _read(lambda: certificate.subject),
        "issuer": _read(lambda: certificate.issuer),
        "names": _describe_names(certificate),
        "valid": _describe_validity(certificate),
        "SHA-256": certificate.get_hash_value("SHA256").hex(),
        "connection": connection,
    }
    lines = [f"  {name:<10}  {fact}" for name, fact in facts.items() if fact]
    return ["the server showed a certificate:", *lines]


def explain_refusal(error: CertificateError, options: ClientOptions) -> CommandError:
    """
    Say why a certificate was refused, reason by reason, and what to do about it.

    :param options: what was asked of the handshake.
    """
    status = error.status
    name = options.host_name.display_name
    return CommandError(
        f"the certificate of {name} is refused: {status.documented_name} ({status.value})",
        details=[
            f"{reason.documented_name}: {_explain(reason, error.certificate, options)}"
            for reason in error.errors
        ],
    )


def _explain(
    reason: ChainValidationResult, certificate: Certificate | None, options: ClientOptions
) -> str:
    if certificate is not None:
        if reason is _R.INVALID_NAME:
            names = _describe_names(certificate)
            return f"it is for {names or 'nobody'}; --name HOST says whom to expect"
        if reason is _R.EXPIRED:
            return f"it is valid {_describe_validity(certificate)}, if its issuers are"
        if reason in (_R.UNTRUSTED, _R.INCOMPLETE_CHAIN):
            issuer = _read(lambda: certificate.issuer)
            if options.trust_roots is None:
                return f"its issuer, {issuer}, is not trusted; --ca FILE says whom to trust"
            return f"its issuer, {issuer}, is not among those in --ca, nor known to them"
    return _MEANINGS.get(reason, "it has a fault that no other reason names")


def _describe_names(certificate: Certificate) -> str:
    def read() -> str:
        names = certificate.subject_alternative_name
        every = (*names.dns_names, *names.ip_addresses, *names.email_names, *names.urls)
        shown = [name[:_MAX_TEXT] for name in every[:MAX_NAMES]]
        if len(every) > MAX_NAMES:
            shown.append(f"{len(every) - MAX_NAMES} more")
        return ", ".join(shown)

    return _read(read, MAX_NAMES * _MAX_TEXT)


def _describe_validity(certificate: Certificate) -> str:
    return f"from {_moment(certificate.valid_from)} to {_moment(certificate.valid_to)} UTC"


def _moment(moment: datetime) -> str:
    return moment.isoformat(" ", "minutes").removesuffix("+00:00")


def _read(read: Callable[[], str], max_text: int = _MAX_TEXT) -> str:
    """Read a part of a certificate, which is looked at only now and may be anything."""
    try:
        text = read()
    except ValueError:
        return "(malformed)"
    shown = text if len(text) <= max_text else f"{text[:max_text]}…"
    return escape(shown.encode(errors="replace"))
