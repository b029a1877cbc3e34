"""
WebSockets, tested by programs of other projects with their defaults; see docs/websockets.rst.

Each test is skipped where its program is not installed, and in the daily profile. Every program has
a timeout, and only processes that were started here are ended.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests import THOROUGH
from tests.autobahn import find_free_port, wait_until_it_listens
from tests.outside_programs import CLOSED, GO_SOURCES, OUR_CLIENT, Folder, echo, needs
from tests.test_outside_tools import find

#: Where Debian has the libraries of Node.
_NODE: Final = {"NODE_PATH": "/usr/share/nodejs"}
_GORILLA: Final = GO_SOURCES / "github.com/gorilla/websocket"

# Each client sends a text, an empty text, a text that is not ASCII, and one of 900,000 bytes, each
# after the last has come back, and closes with the code 4001.

_NODE_CLIENT: Final = r"""
const WebSocket = require("ws");
const messages = ["Hello", "", "h\u00e9llo \u{1F600}", "x".repeat(900000), Buffer.alloc(70000, 7)];
const socket = new WebSocket(process.argv[2]);
let next = 0;
socket.on("open", () => socket.send(messages[0]));
socket.on("message", (data, isBinary) => {
  const sent = messages[next++];
  if (isBinary !== (typeof sent !== "string") || Buffer.compare(data, Buffer.from(sent))) {
    console.log("another message", next);
    process.exit(1);
  }
  if (next < messages.length) socket.send(messages[next]); else socket.ping();
});
socket.on("pong", () => socket.close(4001, "bye"));
socket.on("close", (code, reason) =>
  console.log("closed", code, reason.toString(), socket.extensions));
socket.on("error", (error) => console.log(error.message));
"""

_NODE_SERVER: Final = r"""
const { WebSocketServer } = require("ws");
const perMessageDeflate = process.argv[2] === "deflate";
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate },
  () => console.log(server.address().port));
server.on("connection", (socket) =>
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary })));
"""

_JAVA_CLIENT: Final = r"""
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.util.concurrent.*;

public class Client implements WebSocket.Listener {
  final LinkedBlockingQueue<String> received = new LinkedBlockingQueue<>();
  final StringBuilder message = new StringBuilder();
  public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean isLast) {
    message.append(data);
    if (isLast) { received.add(message.toString()); message.setLength(0); }
    socket.request(1);
    return null;
  }
  public CompletionStage<?> onPong(WebSocket socket, ByteBuffer data) {
    received.add("pong");
    socket.request(1);
    return null;
  }
  public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
    received.add("closed " + code + " " + reason);
    return null;
  }
  public void onError(WebSocket socket, Throwable error) { received.add("error " + error); }
  public static void main(String[] arguments) throws Exception {
    Client client = new Client();
    WebSocket socket = HttpClient.newHttpClient().newWebSocketBuilder()
      .buildAsync(URI.create(arguments[0]), client).join();
    for (String text : new String[] {"Hello", "", "h\u00e9llo", "x".repeat(900000)}) {
      socket.sendText(text, true).join();
      if (!client.received.take().equals(text)) throw new Exception("another message");
    }
    socket.sendText("in ", false).join();
    socket.sendText("pieces", true).join();
    if (!client.received.take().equals("in pieces")) throw new Exception("another message");
    socket.sendPing(ByteBuffer.wrap(new byte[] {1})).join();
    if (!client.received.take().equals("pong")) throw new Exception("no pong");
    socket.sendClose(4001, "bye").join();
    System.out.println(client.received.take());
    System.exit(0);
  }
}
"""

_GO_CLIENT: Final = r"""
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/gorilla/websocket"
)

func main() {
	dialer := websocket.Dialer{EnableCompression: len(os.Args) > 2}
	connection, _, err := dialer.Dial(os.Args[1], nil)
	if err != nil {
		panic(err)
	}
	for _, text := range []string{"Hello", "", "h\u00e9llo", strings.Repeat("x", 900000)} {
		connection.WriteMessage(websocket.TextMessage, []byte(text))
		_, received, err := connection.ReadMessage()
		if err != nil || string(received) != text {
			panic(err)
		}
	}
	bye := websocket.FormatCloseMessage(4001, "bye")
	connection.WriteMessage(websocket.CloseMessage, bye)
	_, _, err = connection.ReadMessage()
	end := err.(*websocket.CloseError)
	fmt.Println("closed", end.Code, end.Text)
}
"""

#: Connects as a page of this host, and as a page of another host.
_PAGES: Final = """
import sys
from twisted.internet.task import react
from twsock import MessageWebSocket, SocketError, WebSocketError

async def main(reactor):
    for origin in ("https://www.example.com", "https://example.net"):
        try:
            async with MessageWebSocket(reactor) as websocket:
                websocket.set_request_header("Host", "www.example.com")
                websocket.set_request_header("Origin", origin)
                await websocket.connect(sys.argv[1])
                await websocket.send("Hello")
                print(await websocket.receive(timeout=60))
        except SocketError as error:
            print(WebSocketError.get_status(error).name)

react(main)
"""

#: The settings of nginx around those of the page.
_NGINX: Final = """
daemon off; master_process off; pid FOLDER/pid; error_log FOLDER/errors; events {}
http {
  access_log off;
  client_body_temp_path FOLDER/1; proxy_temp_path FOLDER/2; fastcgi_temp_path FOLDER/3;
  uwsgi_temp_path FOLDER/4; scgi_temp_path FOLDER/5;
  server {
    listen 127.0.0.1:PORT;
    %s
  }
}
"""


def settings_in_page(first_line: str) -> str:
    """Return the settings in docs/websockets.rst that begin with a line."""
    page = (Path(__file__).parents[1] / "docs" / "websockets.rst").read_text(encoding="utf-8")
    _, _, rest = page.partition(f"::\n\n    {first_line}\n")
    lines = itertools.takewhile(lambda line: line.startswith("    "), rest.splitlines())
    return "\n".join((first_line, *lines)) + "\n"


def _has_node_ws() -> bool:
    node = find("node") if THOROUGH else None
    if node is None:
        return False
    command = [node, "-e", "require('ws')"]
    done = subprocess.run(command, env={**os.environ, **_NODE}, check=False, capture_output=True)
    return done.returncode == 0


needs_node = needs("node", why="" if _has_node_ws() else "ws of Node (node-ws)")
needs_go = needs("go", why="" if _GORILLA.is_dir() else "golang-github-gorilla-websocket-dev")


#: The options of the service for both ways.
_BOTH: Final[Sequence[tuple[str, ...]]] = ((), ("--compression",))


class ClientTests(Folder):
    """Clients of other projects, with the echo of ``twistd twsock-websocket``."""

    def node_client(self, port: int) -> str:
        """Run the client of Node; return what it prints."""
        client = self.write("client.js", _NODE_CLIENT)
        return self.run_program("node", client, f"ws://127.0.0.1:{port}/", variables=_NODE).strip()

    @needs_node
    def test_ws_of_node(self) -> None:
        """It offers compression, which is used if the service has the option."""
        for options, extension in zip(_BOTH, ("", " permessage-deflate"), strict=True):
            with echo(*options) as port:
                self.assertEqual(self.node_client(port), CLOSED + extension, options)

    @needs("javac")
    def test_websocket_of_java(self) -> None:
        """``java.net.http.WebSocket``, which offers no compression."""
        client = self.write("Client.java", _JAVA_CLIENT)
        with echo("--compression") as port:
            printed = self.run_program("java", client, f"ws://127.0.0.1:{port}/")
        self.assertEqual(printed.strip(), CLOSED)

    @needs_go
    def test_gorilla_of_go(self) -> None:
        """With and without compression."""
        client = self.build_go(_GO_CLIENT)
        with echo("--compression") as port:
            for words in ((), ("compressed",)):
                printed = self.run_program(client, f"ws://127.0.0.1:{port}/", *words)
                self.assertEqual(printed.strip(), CLOSED, words)


class ServerTests(Folder):
    """`MessageWebSocket` with servers of other projects."""

    @needs_node
    def test_ws_of_node(self) -> None:
        """With and without compression, of either end."""
        server = self.write("server.js", _NODE_SERVER)
        for word, compressed in (("plain", "plain"), ("deflate", "compressed")):
            with self.running("node", server, word, variables=_NODE) as process:
                assert process.stdout is not None
                uri = f"ws://127.0.0.1:{int(process.stdout.readline())}/"
                printed = self.run_program(sys.executable, "-c", OUR_CLIENT, uri)
            self.assertEqual(printed.split(), ["plain", compressed, compressed], word)


class ProxyTests(Folder):
    """Reverse proxies in front of ``twistd twsock-websocket``."""

    def converse_through(self, program: str, option: str, settings: str) -> None:
        """Run our clients through a proxy; the server has the name of the page and its path."""
        port = find_free_port()
        names = ("--host", "www.example.com", "--path", "/chat")
        with echo("--compression", *names) as server:
            text = settings.replace("127.0.0.1:1341", f"127.0.0.1:{server}")
            text = text.replace("bind :80", f"bind 127.0.0.1:{port}")
            text = text.replace("PORT", str(port)).replace("FOLDER", str(self.folder))
            with self.running(program, *option.split(), self.write("settings", text)):
                wait_until_it_listens(port)
                uri = f"ws://127.0.0.1:{port}/chat"
                messages = self.run_program(sys.executable, "-c", OUR_CLIENT, uri)
                pages = self.run_program(sys.executable, "-c", _PAGES, uri)
        self.assertEqual(messages.split(), ["plain", "compressed", "compressed"])
        self.assertEqual(pages.split(), ["Hello", "FORBIDDEN"])

    @needs("nginx")
    def test_nginx(self) -> None:
        """With the settings of docs/websockets.rst."""
        self.converse_through("nginx", "-c", _NGINX % settings_in_page("location /chat {"))

    @needs("haproxy")
    def test_haproxy(self) -> None:
        """With the settings of docs/websockets.rst, none of which is for WebSockets."""
        self.converse_through("haproxy", "-db -f", settings_in_page("defaults"))
