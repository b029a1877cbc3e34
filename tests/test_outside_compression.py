"""
Compressed WebSockets, tested by programs that negotiate in their own ways; see docs/websockets.rst.

Each test is skipped where its program is not installed, and in the daily profile.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.autobahn import find_free_port, wait_until_it_listens
from tests.outside_programs import CLOSED, GO_SOURCES, OUR_CLIENT, Folder, echo, needs

_MOJOLICIOUS: Final = Path("/usr/share/perl5/Mojolicious.pm")

# Each client sends a text, an empty one, one that is not ASCII, and one of 900,000 bytes, each
# after the last has come back, and closes with the code 4001.

_NHOOYR_CLIENT: Final = r"""
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"nhooyr.io/websocket"
)

func main() {
	background := context.Background()
	connection, _, err := websocket.Dial(background, os.Args[1], nil)
	if err != nil {
		panic(err)
	}
	connection.SetReadLimit(1 << 20)
	for _, text := range []string{"Hello", "", "h\u00e9llo", strings.Repeat("x", 900000)} {
		connection.Write(background, websocket.MessageText, []byte(text))
		_, received, err := connection.Read(background)
		if err != nil || string(received) != text {
			panic(err)
		}
	}
	if connection.Close(4001, "bye") == nil {
		fmt.Println("closed 4001 bye")
	}
}
"""

_X_NET_CLIENT: Final = r"""
package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/net/websocket"
)

func main() {
	connection, err := websocket.Dial(os.Args[1], "", "http://localhost/")
	if err != nil {
		panic(err)
	}
	for _, text := range []string{"Hello", "", "h\u00e9llo", strings.Repeat("x", 900000)} {
		var received string
		websocket.Message.Send(connection, text)
		err = websocket.Message.Receive(connection, &received)
		if err != nil || received != text {
			panic(err)
		}
	}
	fmt.Println("received all")
}
"""

_MONO_CLIENT: Final = r"""
using System;
using System.IO;
using System.Net.WebSockets;
using System.Text;
using System.Threading;

class Client {
  static void Main(string[] words) {
    var never = CancellationToken.None;
    var socket = new ClientWebSocket();
    socket.ConnectAsync(new Uri(words[0]), never).Wait();
    foreach (var text in new[] { "Hello", "", "h\u00e9llo", new string('x', 900000) }) {
      var sent = new ArraySegment<byte>(Encoding.UTF8.GetBytes(text));
      socket.SendAsync(sent, WebSocketMessageType.Text, true, never).Wait();
      var all = new MemoryStream();
      var piece = new ArraySegment<byte>(new byte[65536]);
      WebSocketReceiveResult result;
      do {
        result = socket.ReceiveAsync(piece, never).Result;
        all.Write(piece.Array, 0, result.Count);
      } while (!result.EndOfMessage);
      if (Encoding.UTF8.GetString(all.ToArray()) != text) throw new Exception("another message");
    }
    socket.CloseAsync((WebSocketCloseStatus) 4001, "bye", never).Wait();
    Console.WriteLine("closed {0} {1}", (int) socket.CloseStatus, socket.CloseStatusDescription);
  }
}
"""

_RUBY_CLIENT: Final = r"""
require "eventmachine"
require "faye/websocket"
texts = ["Hello", "", "h\u00e9llo", "x" * 900_000]
EM.run do
  socket = Faye::WebSocket::Client.new(ARGV[0])
  socket.on(:open) { socket.send(texts[0]) }
  socket.on(:message) do |event|
    abort("another message") if event.data != texts.shift
    texts.empty? ? socket.close(4001, "bye") : socket.send(texts[0])
  end
  socket.on(:close) do |event|
    puts "closed #{event.code} #{event.reason}"
    EM.stop
  end
end
"""

_GORILLA_SERVER: Final = r"""
package main

import (
	"net/http"
	"os"

	"github.com/gorilla/websocket"
)

func main() {
	upgrader := websocket.Upgrader{EnableCompression: true}
	http.HandleFunc("/", func(writer http.ResponseWriter, request *http.Request) {
		connection, err := upgrader.Upgrade(writer, request, nil)
		for err == nil {
			var kind int
			var message []byte
			kind, message, err = connection.ReadMessage()
			if err == nil {
				connection.WriteMessage(kind, message)
			}
		}
	})
	http.ListenAndServe("127.0.0.1:" + os.Args[1], nil)
}
"""

_NHOOYR_SERVER: Final = r"""
package main

import (
	"context"
	"net/http"
	"os"

	"nhooyr.io/websocket"
)

func main() {
	background := context.Background()
	http.HandleFunc("/", func(writer http.ResponseWriter, request *http.Request) {
		connection, err := websocket.Accept(writer, request, nil)
		for err == nil {
			connection.SetReadLimit(1 << 20)
			var kind websocket.MessageType
			var message []byte
			kind, message, err = connection.Read(background)
			if err == nil {
				connection.Write(background, kind, message)
			}
		}
	})
	http.ListenAndServe("127.0.0.1:" + os.Args[1], nil)
}
"""

_PERL_SERVER: Final = r"""
use Mojolicious::Lite -signatures;
websocket "/" => sub ($c) {
  $c->tx->max_websocket_size(2 ** 20);
  $c->tx->with_compression;
  $c->on(text => sub ($c, $message) { $c->send({text => $message}) });
  $c->on(binary => sub ($c, $message) { $c->send({binary => $message}) });
};
app->log->level("error");
app->start;
"""

_TORNADO_SERVER: Final = """
import asyncio, sys
from tornado.web import Application
from tornado.websocket import WebSocketHandler

class Echo(WebSocketHandler):
    def get_compression_options(self):
        return {}

    def on_message(self, message):
        self.write_message(message, isinstance(message, bytes))

async def main():
    Application([("/", Echo)]).listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()

asyncio.run(main())
"""


def needs_go(name: str, package: str) -> Callable[[Any], Any]:
    """Skip a test if a library of Go is missing."""
    return needs("go", why="" if (GO_SOURCES / name).is_dir() else package)


needs_nhooyr = needs_go("nhooyr.io/websocket", "golang-nhooyr-websocket-dev")
needs_gorilla = needs_go("github.com/gorilla/websocket", "golang-github-gorilla-websocket-dev")
needs_x_net = needs_go("golang.org/x/net/websocket", "golang-golang-x-net-dev")
_FAYE: Final = Path("/usr/share/rubygems-integration/all/specifications")
needs_faye = needs("ruby", why="" if any(_FAYE.glob("faye-websocket-*")) else "ruby-faye-websocket")
needs_perl = needs("perl", why="" if _MOJOLICIOUS.exists() else "libmojolicious-perl")
needs_tornado = needs(why="" if importlib.util.find_spec("tornado") else "tornado")


class ClientTests(Folder):
    """Clients of other projects, with the echo of ``twistd twsock-websocket --compression``."""

    def converse(self, *command: str) -> str:
        """Run a client; return what it prints."""
        with echo("--compression") as port:
            return self.run_program(*command, f"ws://localhost:{port}/").strip()

    @needs_nhooyr
    def test_nhooyr_of_go(self) -> None:
        """It offers compression, and knows no answer with the window of the server."""
        self.assertEqual(self.converse(self.build_go(_NHOOYR_CLIENT)), CLOSED)

    @needs_x_net
    def test_x_net_of_go(self) -> None:
        """Its origin ends with a slash."""
        self.assertEqual(self.converse(self.build_go(_X_NET_CLIENT)), "received all")

    @needs("mcs", "mono")
    def test_client_websocket_of_mono(self) -> None:
        """It sends no extensions."""
        self.run_program("mcs", "-r:System.dll", self.write("client.cs", _MONO_CLIENT))
        self.assertEqual(self.converse("mono", str(self.folder / "client.exe")), CLOSED)

    @needs_faye
    def test_faye_of_ruby(self) -> None:
        """With its defaults."""
        self.assertEqual(self.converse("ruby", self.write("client.rb", _RUBY_CLIENT)), CLOSED)


class ServerTests(Folder):
    """`MessageWebSocket` with servers of other projects, which compress if the client offers it."""

    def check(self, *command: str) -> None:
        """Converse with a server that listens on the port in its last word."""
        port = command[-1].rpartition(":")[2]
        with self.running(*command):
            wait_until_it_listens(int(port))
            uri = f"ws://127.0.0.1:{port}/"
            printed = self.run_program(sys.executable, "-c", OUR_CLIENT, uri)
        self.assertEqual(printed.split(), ["plain", "compressed", "compressed"])

    @needs_gorilla
    def test_gorilla_of_go(self) -> None:
        """It does not agree to a window."""
        self.check(self.build_go(_GORILLA_SERVER), str(find_free_port()))

    @needs_nhooyr
    def test_nhooyr_of_go(self) -> None:
        """It refuses an offer of a window for the server."""
        self.check(self.build_go(_NHOOYR_SERVER), str(find_free_port()))

    @needs_perl
    def test_mojolicious_of_perl(self) -> None:
        """It keeps its context, and compresses empty messages to nothing."""
        server = self.write("server.pl", _PERL_SERVER)
        local = f"http://127.0.0.1:{find_free_port()}"
        self.check("perl", server, "daemon", "-l", local)

    @needs_tornado
    def test_tornado(self) -> None:
        """It keeps its context."""
        server = self.write("server.py", _TORNADO_SERVER)
        self.check(sys.executable, server, str(find_free_port()))
