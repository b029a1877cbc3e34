"""Datagrams are exchanged with other programs."""

from __future__ import annotations

import shutil
import subprocess
import threading
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.trial.unittest import SkipTest

from tests.loopback.contract import OnEveryReactor
from tests.ports import free_udp_port
from twsock.datagram.port import listen_datagrams
from twsock.datagram.protocol import EchoCounters
from twsock.errors import SocketError
from twsock.protocols import DatagramEcho, DatagramProtocol

HOST = "127.0.0.1"

#: Seconds for a tool, many times what it takes.
PATIENCE = 120

#: Seconds between two tries to reach a process that has yet to begin.
PAUSE = 0.02


def socat() -> str:
    """Return the path of the program, or skip the test."""
    program = shutil.which("socat")
    if program is None:
        raise SkipTest("socat is not installed")
    return program


def ask(program: str, address: str, requests: list[bytes]) -> list[bytes]:
    """Let socat send each request after the previous answer; return what it receives."""
    answers = []
    with subprocess.Popen(
        [program, "-", address], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        patience = threading.Timer(PATIENCE, process.kill)
        patience.start()
        assert process.stdin is not None
        assert process.stdout is not None
        for request in requests:
            process.stdin.write(request)
            process.stdin.flush()
            answers.append(process.stdout.read(len(request)))
        patience.cancel()
        process.kill()
    return answers


class Asking(DatagramProtocol):
    """
    Sends to its connected peer, repeats while nothing listens there, and waits for the answer.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._answer: Deferred[bytes] = Deferred()
        self._tries = int(PATIENCE / PAUSE)
        self._request = b""

    def ask(self, request: bytes) -> Deferred[bytes]:
        """Send; one request at a time."""
        self._request, self._answer = request, Deferred()
        self.send(request)
        return self._answer

    def refused(self, error: SocketError) -> None:
        self._tries -= 1
        if self._tries:
            deferLater(self._reactor, PAUSE, self.send, self._request)
        else:
            self._answer.errback(error)

    def datagram_received(self, data: bytes, source: Any) -> None:
        self._answer.callback(data)


class DatagramPeers(OnEveryReactor):
    """Each peer runs in its own process."""

    requests = [b"Hello", b"a\r\n\0", bytes(range(256)) * 4]

    def test_socat_as_client_is_answered(self) -> None:
        """On a socket of its own, and on a connected one."""
        program = socat()

        async def work(reactor: Any) -> None:
            echo = DatagramEcho()
            port = listen_datagrams(reactor, echo, 0, HOST)
            for kind in ("UDP4-SENDTO", "UDP4"):
                address = f"{kind}:{HOST}:{port.getHost().port}"
                answers = await deferToThreadPool(
                    reactor, reactor.getThreadPool(), ask, program, address, self.requests
                )
                self.assertEqual(answers, self.requests, kind)
            self.assertEqual(echo.counters, EchoCounters(received=6, answered=6))
            await port.stopListening()

        self.conduct(work)

    def test_socat_as_server_answers(self) -> None:
        """It runs ``cat`` for each datagram."""
        number = free_udp_port()
        process = subprocess.Popen(
            [socat(), f"UDP4-RECVFROM:{number},bind={HOST},fork", "EXEC:cat"]
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        async def work(reactor: Any) -> None:
            protocol = Asking(reactor)
            port = listen_datagrams(reactor, protocol, 0, HOST)
            port.connect(HOST, number)
            for request in self.requests:
                self.assertEqual(await protocol.ask(request), request, f"{request=}")
            await port.stopListening()

        self.conduct(work)


globals().update(DatagramPeers.makeTestCaseClasses())
del DatagramPeers
