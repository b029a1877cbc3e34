"""
A small SMTP server with STARTTLS, for tools that test STARTTLS of mail servers.

Run it:        python examples/smtp_starttls.py tcp:2525:interface=127.0.0.1 certificates
You will see:  listening on 127.0.0.1:2525
Then, in a second terminal:
    openssl s_client -starttls smtp -connect 127.0.0.1:2525 -CAfile certificates/authority.pem
Ctrl-C stops the server.

The certificates are made in the given folder, unless they exist. `UpgradeToSsl`, a parameter of the
factory, does all of STARTTLS (:rfc:`3207`). In ``connection_secured`` the protocol forgets what was
sent in plaintext. The server accepts no mail.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react

from twsock import Certificate, SocketError
from twsock.protocols import LineProtocol, StreamServerFactory, UpgradeToSsl
from twsock.tls import ServerOptions, ServerTls
from twsock.tls.development import find_or_make_certificates


class Mail(LineProtocol):
    """One SMTP session."""

    max_payload = 510  # bytes in a command without its ending (RFC 5321, section 4.5.3.1.4)
    client = b""

    def connection_made(self) -> None:
        """Greet."""
        self.send_line("220 localhost ESMTP")

    def connection_secured(self) -> None:
        """Forget the client's name: it was sent in plaintext."""
        self.client = b""

    def line_received(self, line: bytes) -> None:
        """Answer one command."""
        word, _, rest = line.partition(b" ")
        match word.upper():
            case b"EHLO" if self.is_secure:
                self.client = rest
                self.send_line("250 localhost")
            case b"EHLO":
                self.client = rest
                self.send_line("250-localhost")
                self.send_line("250 STARTTLS")
            case b"MAIL" if not self.is_secure:
                self.send_line("530 Must issue a STARTTLS command first")
            case b"MAIL" if not self.client:
                self.send_line("503 EHLO comes first")
            case b"MAIL":
                self.send_line("550 No mail is taken here")
            case b"NOOP" | b"RSET":
                self.send_line("250 OK")
            case b"QUIT":
                self.send_line("221 Bye")
                self.close()
            case _:
                self.send_line("500 There is no such command here")


def read_certificate(folder: str) -> UpgradeToSsl:
    """Return the settings of STARTTLS: certificates, and the words of SMTP."""
    certificate = Certificate.load(find_or_make_certificates(folder).server)
    return UpgradeToSsl(
        ServerTls(ServerOptions([certificate])),
        request=b"STARTTLS",
        go_ahead=b"220 Ready to start TLS",
        refusal=b"503 TLS is active already",
        ignores_case=True,
    )


async def main(reactor: Any, endpoint: str, folder: str) -> None:
    """Serve until Ctrl-C."""
    try:
        factory = StreamServerFactory(
            reactor, Mail, max_connections=100, idle_timeout=60, upgrade=read_certificate(folder)
        )
        port: Any = await factory.listen(serverFromString(reactor, endpoint))
    except Exception as error:  # noqa: BLE001 - printed for the user
        sys.exit(f"smtp_starttls: {SocketError.from_exception(error).summary}")
    host = port.getHost()
    place = f"{host.host}:{host.port}" if hasattr(host, "host") else endpoint
    print(f"listening on {place}", flush=True)

    async def close() -> None:
        await port.stopListening()
        await factory.drain(timeout=5)

    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(close()))
    await Deferred()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} ENDPOINT FOLDER")
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, *sys.argv[1:])))
