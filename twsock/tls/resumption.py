"""
Sessions that a client resumes: clean end → **cache** → next handshake with that server.

One cache for the process, used by `twsock.tls.client`. It holds at most `MAX_SETTINGS` times
`MAX_SESSIONS` sessions of about 6.4 KB each. Resuming a session saves the server a signature and
this end the verification (:rfc:`8446`, section 2.2). That is also the risk: OpenSSL then calls no
verify callback, and checks neither chain nor name. Hence these rules:

- A session is stored only if its server was verified without any error, forgiven ones included. The
  server's certificates are stored with it.
- A session is offered only to the same host name and port, under the same settings: trust roots,
  ignorable errors, client certificate, ALPN, versions.
- Name and validity are checked before it is offered and after it was resumed. OpenSSL must have
  recorded no error for it.
- A ticket is used once: an observer could link two uses (:rfc:`8446`, appendix C.4).
- A session is stored only if both ends sent close_notify. By then the tickets of TLS 1.3, which
  follow the handshake, have been read as well.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final

from OpenSSL import SSL
from OpenSSL.crypto import X509

from twsock.names import HostName
from twsock.tls.certificates import Certificate
from twsock.tls.naming import is_named
from twsock.tls.openssl import Binding

__all__ = [
    "MAX_AGE",
    "MAX_SESSIONS",
    "MAX_SETTINGS",
    "ClientSessions",
    "Resumption",
    "ServerVerdict",
    "make_verdict",
]

#: How many different settings have sessions; the least recently used are dropped. Each has a
#: context of OpenSSL, which takes some megabytes if it holds the platform's authorities.
MAX_SETTINGS: Final = 8

#: Sessions under the same settings; the oldest are dropped.
MAX_SESSIONS: Final = 64

#: Seconds after which a context and its sessions are dropped, so that authorities are read again.
#: OpenSSL's servers take a ticket as long by default (``tls1_default_timeout``).
MAX_AGE: Final = 7200.0

_ENDED_IN_ORDER: Final = SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN


@dataclass(frozen=True, slots=True)
class ServerVerdict:
    """
    The result of verifying a server in a full handshake without an error.

    :ivar certificate: the server's.
    :ivar intermediates: the certificates of its issuers that the server sent.
    :ivar valid_from: the latest start of validity in its chain.
    :ivar valid_to: the earliest end of validity in its chain.
    """

    certificate: Certificate
    intermediates: tuple[Certificate, ...]
    valid_from: datetime
    valid_to: datetime

    def is_good(self, host: HostName, now: datetime) -> bool:
        """Return whether the chain is valid at ``now`` and the certificate is for this host."""
        if not self.valid_from <= now <= self.valid_to:
            return False
        return is_named(X509.from_cryptography(self.certificate.to_cryptography()[0]), host)


@dataclass(frozen=True, slots=True)
class _Kept:
    session: SSL.Session
    verdict: ServerVerdict


class _Context:
    """A context, and the sessions that were made with it, the latest last."""

    def __init__(self, context: SSL.Context, born: float) -> None:
        self.context = context
        self.born = born
        self.sessions: list[tuple[Hashable, _Kept]] = []


class ClientSessions:
    """
    The sessions of one process.

    :param clock: seconds, for the age of contexts.
    :param now: the time of day, for the validity of certificates.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self.now = now
        self._clock = clock
        self._contexts: OrderedDict[Hashable, _Context] = OrderedDict()

    def __len__(self) -> int:
        """Return how many sessions are stored."""
        return sum(len(each.sessions) for each in self._contexts.values())

    def begin(
        self,
        binding: Binding,
        settings: Hashable,
        host: HostName,
        service: str,
        make_context: Callable[[], SSL.Context],
    ) -> Resumption:
        """
        Prepare one handshake.

        :param settings: everything that the verification depends on, except the host.
        :param service: port of the server, or another text that differs between servers of a host.
        :param make_context: makes the context for these settings if none is stored.
        """
        context = self._find(settings, make_context)
        return Resumption(binding, self, context, host, (host.canonical_name, service))

    def clear(self) -> None:
        """Drop all contexts and sessions."""
        self._contexts.clear()

    def _find(self, settings: Hashable, make_context: Callable[[], SSL.Context]) -> _Context:
        now = self._clock()
        for old in [key for key, kept in self._contexts.items() if now - kept.born > MAX_AGE]:
            del self._contexts[old]
        if settings not in self._contexts:
            self._contexts[settings] = _Context(make_context(), now)
        self._contexts.move_to_end(settings)
        if len(self._contexts) > MAX_SETTINGS:
            self._contexts.popitem(last=False)
        return self._contexts[settings]


class Resumption:
    """
    Offers a session in one handshake, and stores the session of its connection.

    Made by `ClientSessions.begin`.

    :ivar context: to be used for the connection, since a session belongs to its context.
    """

    def __init__(
        self,
        binding: Binding,
        sessions: ClientSessions,
        context: _Context,
        host: HostName,
        key: Hashable,
    ) -> None:
        self.context = context.context
        self._binding = binding
        self._sessions = sessions
        self._context = context
        self._host = host
        self._key = key
        self._offered: _Kept | None = None

    def offer(self, connection: SSL.Connection) -> None:
        """Offer a session to the server if a good one is stored. Call this before the handshake."""
        kept = self._take()
        if kept is not None:
            self._offered = kept
            connection.set_session(kept.session)

    def is_resumed(self, connection: SSL.Connection) -> bool:
        """Return whether the server resumed a session, so that nothing was verified."""
        return self._binding.is_resumed(connection)

    def verdict(self, connection: SSL.Connection) -> ServerVerdict | None:
        """
        Return the verdict that was stored with the resumed session.

        :returns: None if it is no longer good, or the server's certificate is a different one.
        """
        if self._offered is None or self._binding.verify_result(connection):
            return None
        verdict = self._offered.verdict
        shown = connection.get_peer_certificate(as_cryptography=True)
        if shown != verdict.certificate.to_cryptography()[0]:
            return None
        return verdict if verdict.is_good(self._host, self._sessions.now()) else None

    def keep(self, connection: SSL.Connection, verdict: ServerVerdict) -> None:
        """
        Store the session of a connection that has ended, if it ended in order.

        :param verdict: the verdict on its server.
        """
        session = connection.get_session()
        if connection.get_shutdown() != _ENDED_IN_ORDER or session is None:
            return
        if self._binding.verify_result(connection):
            return
        offered = self._offered
        if offered is not None and self._binding.is_same_session(session, offered.session):
            return  # The server sent no new ticket.
        sessions = self._context.sessions
        sessions.append((self._key, _Kept(session, verdict)))
        del sessions[:-MAX_SESSIONS]

    def _take(self) -> _Kept | None:
        """Remove and return the latest good session of this server; drop those found expired."""
        sessions = self._context.sessions
        now = self._sessions.now()
        for index in range(len(sessions) - 1, -1, -1):
            if sessions[index][0] == self._key:
                kept = sessions.pop(index)[1]
                if kept.verdict.is_good(self._host, now):
                    return kept
        return None


def make_verdict(
    connection: SSL.Connection, certificate: Certificate, intermediates: tuple[Certificate, ...]
) -> ServerVerdict | None:
    """
    Return the verdict of a full handshake without an error.

    :param certificate: the server's.
    :param intermediates: the certificates of its issuers that the server sent.
    :returns: None if OpenSSL has no verified chain.
    """
    chain = connection.get_verified_chain(as_cryptography=True)
    if not chain:
        return None
    return ServerVerdict(
        certificate,
        intermediates,
        max(each.not_valid_before_utc for each in chain),
        min(each.not_valid_after_utc for each in chain),
    )
