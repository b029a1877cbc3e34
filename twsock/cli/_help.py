"""
The help of each command, as it is printed: at most 80 columns.

Printed by the parsers of `twsock.cli.arguments`; tests compare it with their options.
"""

from __future__ import annotations

from typing import Final

from twsock.wire.frames import DEFAULT_MAX_PAYLOAD
from twsock.wire.lines import DEFAULT_MAX_LINE

__all__ = ["CERTIFICATES_HELP", "ECHO_HELP", "RESTART_HELP"]

ECHO_HELP: Final = f"""\
usage: twsock echo [OPTION ...] ENDPOINT [TEXT ...]

Send each TEXT to an echo server, and compare the answer with it.

arguments:
  ENDPOINT            HOST:PORT or tcp:HOST:PORT, also tcp:[::1]:PORT, or any
                      client endpoint string of Twisted, such as
                      unix:/run/echo.sock;
                      ws://HOST[:PORT]/PATH or wss://HOST[:PORT]/PATH for
                      messages of a WebSocket, wss with TLS;
                      udp:HOST:PORT for datagrams to one peer;
                      multicast:GROUP:PORT[:interface=NAME][:ttl=N] for
                      datagrams to a group; NAME is the name, index or address
                      of the interface (default: lo), N the largest number of
                      hops (default: 1)
  TEXT                one message; without a TEXT, each line of standard input
                      is one message. Put a TEXT that begins with a dash
                      after --

options:
  --framing FORMAT    uint32: 4-byte big-endian length, then bytes (default);
                      line: text ended by CRLF
  --raw               no messages: send the bytes of standard input, and write
                      the received bytes to standard output
  --count N           send each TEXT N times, and print the round trips at the
                      end (default: 1)
  --size BYTES        generate messages of that size, instead of a TEXT;
                      datagrams are numbered
  --interval SECONDS  time between two sends (default: 0: send when the last
                      answer has arrived). On a connection, the next send also
                      waits for a late answer; datagrams do not wait
  --timeout SECONDS   limit for the connection, and for each answer (default:
                      10, with udp: 2, with multicast: 1). With multicast the
                      command waits that long for the answers of all members
  --max-frame BYTES   largest message (default: {DEFAULT_MAX_PAYLOAD}, with line {DEFAULT_MAX_LINE})
  --quiet             write only the responses, one per line
  -h, --help          show this help message and exit

WebSockets:
  --binary            send binary messages (default: texts)
  --subprotocol NAME  subprotocol to offer, the preferred one first; can be
                      given several times
  --header 'NAME: VALUE'
                      header field to add to the request, such as Origin or
                      Authorization; can be given several times
  --proxy URI         HTTP proxy to connect through: http://HOST:PORT, or
                      https://HOST:PORT for TLS to the proxy; variables such as
                      HTTPS_PROXY are not read
  --proxy-credential FILE
                      file with the line USER:PASSWORD for the proxy; with
                      http:// it is sent without encryption
  --proxy-ca FILE     trust the authorities in FILE for an https:// proxy, and
                      no others (default: those of this machine)

TLS:
  --tls               TLS from the first byte
  --upgrade[=HOW]     TLS in mid-connection: --upgrade or --upgrade=direct
                      begins the handshake at once; --upgrade=command first
                      sends STARTTLS and waits for OK
  --ca FILE           trust the authorities in FILE (PEM), and no others
                      (default: those of this machine)
  --name HOST         host that the server's certificate must name (default:
                      HOST in tcp:HOST:PORT or wss://HOST)
  --client-certificate FILE
                      certificate to send if the server requests one (PEM or
                      PKCS#12, with the key)
  --level VERSION     highest version offered: tls12 or tls13; the lowest is
                      TLS 1.2 (default: the highest that OpenSSL supports)
  --show-certificate  show the server's certificate on standard error, also if
                      it is refused

Options can be before, between and after the arguments. wss:// is TLS from the
first byte: the other options for TLS apply, and --tls and --upgrade do not.

With --tls, --upgrade or wss:// no TEXT is sent before the server's certificate
has been verified, and a connection never continues in plaintext.

The next message is sent when the answer to the last has arrived. Control
characters, and bytes that are not UTF-8, are written as escapes. Responses are
written byte for byte only with --quiet, and not to a terminal.

With --raw the command sends and receives at the same time. At the end of the
input it closes its sending side. It ends when the server closes the connection,
or when nothing has arrived for --timeout seconds after the end of the input.

Each message of a WebSocket is one TEXT, and the answer must have the same type.
Redirections are not followed.

Each datagram is one TEXT and nothing else. The next is sent when the last was
answered, or after --timeout; with --interval it is sent on time in any case.
All members of a group may answer; each is listed with its figures. Datagrams
with --size begin with a number (8 bytes, big-endian), so that losses and
duplicates are counted exactly.

exit status:
  0    every answer is equal to its message; with --raw, the connection ended
       in order
  1    something failed, was lost or changed; standard error has one line with
       the error, and one more for each reason why a certificate is refused
  2    the command line is wrong
  130  ended by Ctrl-C, with the figures so far

examples:
  twsock echo localhost:1337 "Hello, World!"
  twsock echo tcp:127.0.0.1:1337 --count 1000 --quiet ping > /dev/null
  twsock echo unix:/run/echo.sock --framing line < messages.txt
  twsock echo tcp:localhost:1337 "Hello, World!" --upgrade --ca authority.pem
  printf 'GET / HTTP/1.0\\r\\n\\r\\n' | twsock echo localhost:8000 --raw
  twsock echo ws://127.0.0.1:1338/ Hello
  twsock echo udp:127.0.0.1:1337 --size 1200 --count 1000 --interval 0.001
  twsock echo multicast:224.3.0.5:22113 Hello
"""

CERTIFICATES_HELP: Final = """\
usage: twsock certificates init [OPTION ...] DIR

Make an authority, a server's and a client's certificate, to test TLS.

arguments:
  DIR            folder for the files; it is empty, or does not exist

options:
  --name HOST    host or address that the server's certificate names; can be
                 given several times (default: localhost, 127.0.0.1, ::1)
  --key KIND     kind of the keys: ecdsa (default), or rsa for peers that do
                 not support ecdsa, such as old .NET
  -h, --help     show this help message and exit

The certificates are valid for a year. Only you can read the keys. The key of
the authority is not stored, so nobody can issue more certificates with it.

exit status:
  0    DIR has authority.pem, server.pem and client.pem
  1    something failed; standard error has one line with the error
  2    the command line is wrong
"""

RESTART_HELP: Final = """\
usage: twsock restart --control PATH [--timeout SECONDS] -- COMMAND [ARG ...]

Start COMMAND, which takes over from a running service, without a refused or
lost connection.

arguments:
  COMMAND             program to start, without a shell, and its arguments. It
                      must have the same --control PATH

options:
  --control PATH      control socket of the running service, which was started
                      with --control PATH
  --timeout SECONDS   limit for the restart (default: 30)
  -h, --help          show this help message and exit

COMMAND is started in a session of its own, with the standard output and error
of this command, and without input.

If COMMAND fails, is too late, or if Ctrl-C ends the wait, then COMMAND is ended
and the old process goes on. After the restart, the old process ends once its
last connections have ended.

exit status:
  0    the new process serves; standard output has one line
  1    the old process goes on, or none ran; standard error has one line
  2    the command line is wrong
  130  ended by Ctrl-C; the old process goes on

example:
  twsock restart --control /run/echo/control -- \\
      twistd --pidfile= -n twsock-stream --control /run/echo/control
"""
