"""
The client of the WebSocket sample: texts, a binary stream, a client certificate, partial messages.

Start the server, examples/websocket_sample_server.py, in another terminal, in the same folder.

Run it:        python examples/websocket_sample.py text
You will see:  Connected
               Utf8 message: EchoWebSocket Connected at: 11/29/2026 12:00:00
               Utf8 message: You said: "Hello World"
               Closed; code: 1000, reason: "Closed due to user request."
Run it:        python examples/websocket_sample.py binary
You will see:  Connected
               Sent 30 bytes, received 161 bytes
               Reading has ended: OperationCanceled
               Closed; code: 1000, reason: "Closed due to user request."
Run it:        python examples/websocket_sample.py certificate
You will see:  Connected
               Closed; code: 1000, reason: "Closed due to user request."
Run it:        python examples/websocket_sample.py partial
You will see:  Connected
               Utf8 piece: You said: "Gr"
               Utf8 piece: You said: "üße", the last one
               Closed; code: 1000, reason: "Closed due to user request."

A URI may follow, and then the folder of the server's certificates. Over ``wss:`` the authority in
this folder is the only one that is trusted.
"""

from __future__ import annotations

import codecs
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from twsock import (
    Certificate,
    CertificateQuery,
    CertificateStores,
    DataWriter,
    MessageWebSocket,
    MessageWebSocketMessageReceivedEventArgs,
    MessageWebSocketReceiveMode,
    SocketError,
    SocketMessageType,
    StreamWebSocket,
    WebErrorStatus,
    WebSocketClosedEventArgs,
    WebSocketError,
    WebSocketServerCustomValidationRequestedEventArgs,
)
from twsock.tls.development import CertificateFiles

PATH = "/WebSocketSample/EchoWebSocket"
DEFAULT_URIS = {
    "text": f"ws://localhost:8080{PATH}.ashx",
    "binary": f"ws://localhost:8080{PATH}.ashx",
    "certificate": f"wss://localhost:8443{PATH}WithClientAuthentication.ashx",
    "partial": "ws://localhost:8080/WebSocketSample/partialMessages.ashx",
}

#: The reason of each close; its code is 1000.
REASON = "Closed due to user request."

#: The HRESULT of a connect whose certificate was rejected by `validate`.
REJECTED = 0x800C000E

#: Failures that are likely if the server of the sample does not run.
NO_SERVER = (
    WebErrorStatus.CANNOT_CONNECT,
    WebErrorStatus.NOT_FOUND,
    WebErrorStatus.REQUEST_TIMEOUT,
)


def describe(error: SocketError) -> str:
    """Return one line for the user."""
    status = WebSocketError.get_status(error)
    if error.hresult == REJECTED:
        return "rejected by custom validation"
    if status in NO_SERVER:
        return "cannot connect: run websocket_sample_server.py"
    if status is WebErrorStatus.UNKNOWN:
        return f"0x{error.hresult:08X}: {error}"
    return status.documented_name


def show_closed(_websocket: Any, args: WebSocketClosedEventArgs) -> None:
    """Print the first close frame, of either end."""
    print(f'Closed; code: {args.code}, reason: "{args.reason}"')


def prepare(websocket: Any, folder: str) -> None:
    """Trust the server's authority; validate the issuers of a certificate once more."""
    files = CertificateFiles(Path(folder))

    async def validate(
        _websocket: Any, args: WebSocketServerCustomValidationRequestedEventArgs
    ) -> None:
        # The connect waits for this coroutine. A function that decides later takes a deferral.
        leaf = args.server_certificate
        chain = (*([leaf] if leaf else ()), *args.server_intermediate_certificates)
        if any(each.issuer != authority.subject for each in chain):
            args.reject()

    if files.authority.exists():
        authority = Certificate.load(files.authority)
        # The sample of WinRT ignores the errors Untrusted and InvalidName instead.
        websocket.control.trust_roots = [authority]
        websocket.server_custom_validation_requested.add(validate)
    websocket.closed.add(show_closed)


async def send_texts(reactor: Any, uri: str, folder: str) -> None:
    """Send one text; each message of the server arrives in a handler."""
    answered: Deferred[None] = Deferred()
    arrived = 0

    def show(_websocket: Any, args: MessageWebSocketMessageReceivedEventArgs) -> None:
        nonlocal arrived
        try:
            reader = args.get_data_reader()
        except SocketError as error:  # The connection was lost, or the server broke a rule.
            answered.errback(error)
            return
        text = reader.read_string(reader.unconsumed_buffer_length)
        print(f"{args.message_type.documented_name} message: {text}")
        arrived += 1
        if arrived == 2:  # The greeting and the answer.
            answered.callback(None)

    websocket = MessageWebSocket(reactor)
    prepare(websocket, folder)
    websocket.control.message_type = SocketMessageType.UTF8
    websocket.message_received.add(show)
    await websocket.connect(uri)
    print("Connected")
    writer = DataWriter(websocket.output_stream)
    writer.write_string("Hello World")
    await writer.store()  # One message.
    await answered
    await websocket.close(1000, REASON)


async def send_stream(reactor: Any, uri: str, folder: str) -> None:
    """Send ten bytes a second for three seconds; count what arrives."""
    websocket = StreamWebSocket(reactor)
    prepare(websocket, folder)
    await websocket.connect(uri)
    print("Connected")
    received = 0

    async def read() -> None:
        nonlocal received
        try:
            while data := await websocket.input_stream.receive_some(1000):
                received += len(data)
        except SocketError as error:
            print(f"Reading has ended: {WebSocketError.get_status(error).documented_name}")

    reading = Deferred.fromCoroutine(read())
    sent = 0
    for _ in range(3):
        sent += await websocket.output_stream.write(bytes(range(10)))
        await deferLater(reactor, 1)
    print(f"Sent {sent} bytes, received {received} bytes")
    await websocket.close(1000, REASON)
    await reading


async def send_certificate(reactor: Any, uri: str, folder: str) -> None:
    """Connect with a certificate that is found in the folder; the server refuses others."""
    query = CertificateQuery(has_private_key=True, enhanced_key_usages=["1.3.6.1.5.5.7.3.2"])
    found = CertificateStores(folder).find_all(query)
    websocket = StreamWebSocket(reactor)
    prepare(websocket, folder)
    websocket.control.client_certificate = found[0] if found else None
    await websocket.connect(uri)
    print("Connected")
    await websocket.close(1000, REASON)


async def send_parts(reactor: Any, uri: str, folder: str) -> None:
    """Send a text in two frames, divided within a character; print each piece of the answer."""
    ended: Deferred[None] = Deferred()
    decoder = codecs.getincrementaldecoder("utf-8")()  # A piece may end within a character.

    def show(_websocket: Any, args: MessageWebSocketMessageReceivedEventArgs) -> None:
        try:
            reader = args.get_data_reader()
        except SocketError as error:
            ended.errback(error)
            return
        text = decoder.decode(reader.read_bytes(reader.unconsumed_buffer_length)).strip()
        last = ", the last one" if args.is_message_complete else ""
        print(f"{args.message_type.documented_name} piece: {text}{last}")
        if args.is_message_complete:
            ended.callback(None)

    websocket = MessageWebSocket(reactor)
    prepare(websocket, folder)
    websocket.control.receive_mode = MessageWebSocketReceiveMode.PARTIAL_MESSAGE
    websocket.control.message_type = SocketMessageType.UTF8
    websocket.message_received.add(show)
    await websocket.connect(uri)
    print("Connected")
    await websocket.send_nonfinal_frame(b"Gr\xc3")
    await websocket.send_final_frame(b"\xbc\xc3\x9fe")
    await ended
    await websocket.close(1000, REASON)


SCENARIOS = {
    "text": send_texts,
    "binary": send_stream,
    "certificate": send_certificate,
    "partial": send_parts,
}


async def main(reactor: Any, scenario: str, uri: str = "", folder: str = "certificates") -> None:
    """Run one scenario; exit with one line if it fails."""
    try:
        await SCENARIOS[scenario](reactor, uri or DEFAULT_URIS[scenario], folder)
    except SocketError as error:
        sys.exit(f"websocket_sample: {describe(error)}")
    except ValueError as error:  # A malformed URI.
        sys.exit(f"websocket_sample: {error}")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 4 or sys.argv[1] not in SCENARIOS:
        sys.exit(f"usage: {sys.argv[0]} text|binary|certificate|partial [URI [FOLDER]]")
    react(lambda reactor, *words: Deferred.fromCoroutine(main(reactor, *words)), sys.argv[1:])
