"""
The server of the WebSocket sample: an echo that answers in words.

Run it:        python examples/websocket_sample_server.py 8080 8443 certificates
You will see:  ws: on port 8080, wss: on port 8443
Then run examples/websocket_sample.py. Ctrl-C ends the connections with the close code 1001.

Certificates are made in the folder ``certificates`` if it does not exist. There are three paths in
``/WebSocketSample/``:

- ``EchoWebSocket.ashx`` greets, and answers each message with a text;
- ``EchoWebSocketWithClientAuthentication.ashx`` does the same for clients with a certificate, over
  ``wss:``; other clients get the status 403;
- ``partialMessages.ashx`` answers each frame with a frame.

`WebSocketProtocol.fragment_received` gets messages in pieces, which are here the frames of small
messages. A piece of a text may end within a character, so the texts of the last path go through an
incremental decoder.
"""

from __future__ import annotations

import codecs
import sys
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import react

from twsock import Certificate, SocketError
from twsock.protocols import WebSocketFactory, WebSocketProtocol
from twsock.stream.upgrade import UpgradePolicy, UpgradeToSsl
from twsock.tls import ClientCertificatePolicy, ServerOptions
from twsock.tls.development import find_or_make_certificates
from twsock.tls.server import ServerTls
from twsock.websocket import Refusal, Request, refuse

FOLDER = "/WebSocketSample/"
ECHO = FOLDER + "EchoWebSocket.ashx"
WITH_CERTIFICATE = FOLDER + "EchoWebSocketWithClientAuthentication.ashx"
PARTIAL = FOLDER + "partialMessages.ashx"

#: Bytes in a message; a larger one closes the WebSocket with the code 1009.
MAX_MESSAGE = 64 * 1024


class SampleServer(WebSocketProtocol):
    """One client of the sample."""

    max_payload = MAX_MESSAGE
    is_echo = True

    def accept(self, request: Request) -> Refusal | None:
        """Accept the three paths; one of them needs a certificate."""
        if request.path not in (ECHO, WITH_CERTIFICATE, PARTIAL):
            return refuse(404, "no such path")
        if request.path == WITH_CERTIFICATE and self.peer_certificate is None:
            return refuse(403, "a client certificate is required")
        self.is_echo = request.path != PARTIAL
        return None

    def connection_made(self) -> None:
        """Greet the client."""
        self.text = codecs.getincrementaldecoder("utf-8")()
        self.said = ""
        if self.is_echo:
            self.send_text(
                f"EchoWebSocket Connected at: {datetime.now().astimezone():%m/%d/%Y %H:%M:%S}"
            )

    def fragment_received(self, data: bytes, is_text: bool, is_complete: bool) -> None:
        """Answer each message, or each piece of one."""
        if is_text:
            self.said += self.text.decode(data)
        if not self.is_echo:
            answer = f'You said: "{self.said}"\r\n'
            self.send_fragment(answer.encode(), True, is_complete)
            self.said = ""
        elif is_complete:
            if is_text:
                self.send_text(f'You said: "{self.said}"')
            else:  # As in the sample: the size of the last fragment.
                self.send_text(f"binary message received, size={len(data)} bytes")
            self.said = ""


async def main(reactor: Any, port: str, secure_port: str, folder: str) -> None:
    """Serve until Ctrl-C."""
    try:
        files = find_or_make_certificates(folder)
        tls = ServerOptions(
            [Certificate.load(files.server)],
            client_certificate=ClientCertificatePolicy.OPTIONAL,
            client_authorities=[Certificate.load(files.authority)],
        )
        plain = WebSocketFactory(reactor, SampleServer)
        secure = WebSocketFactory(
            reactor, SampleServer, upgrade=UpgradeToSsl(ServerTls(tls), UpgradePolicy.IMPLICIT)
        )
        opened: list[Any] = []
        for factory, number in ((plain, port), (secure, secure_port)):
            endpoint = TCP4ServerEndpoint(reactor, int(number), interface="127.0.0.1")
            opened.append(await factory.listen(endpoint))
    except Exception as error:  # noqa: BLE001 - printed for the user
        sys.exit(f"websocket_sample_server: {SocketError.from_exception(error).summary}")
    ports = [each.getHost().port for each in opened]
    print(f"ws: on port {ports[0]}, wss: on port {ports[1]}", flush=True)

    async def close() -> None:
        for each in opened:
            await each.stopListening()
        for factory in (plain, secure):
            await factory.drain(timeout=5)

    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(close()))
    await Deferred()


if __name__ == "__main__":
    if len(sys.argv) != 4 or not (sys.argv[1] + sys.argv[2]).isdigit():
        sys.exit(f"usage: {sys.argv[0]} PORT TLS_PORT FOLDER, such as 8080 8443 certificates")
    react(lambda reactor, *words: Deferred.fromCoroutine(main(reactor, *words)), sys.argv[1:])
