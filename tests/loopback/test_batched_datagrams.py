"""Claims C9 to C12: the system calls of a batch of datagrams, counted with strace."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twsock.datagram.network.packet_info import request_runs

_TOP = Path(__file__).parents[2]
_STRACE = shutil.which("strace")

#: Sends datagrams of the given sizes to a plain socket, and prints the results.
_PROGRAM = """
import json, socket, sys
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twsock import DatagramSocket, SocketError

way, *sizes = sys.argv[1:]
TEXT = b"Hello, World!" * 6000

async def outcome(write):
    try:
        return await write
    except SocketError as error:
        return error.status.name

async def send(stream):
    if way == "awaited":
        return [await stream.write(TEXT[:int(size)]) for size in sizes]
    writes = [stream.write(TEXT[:int(size)]) for size in sizes]
    if way == "together":
        return [await outcome(write) for write in writes]
    assert await stream.flush() is True
    assert all(write.called for write in writes)
    return [await outcome(write) for write in writes]

async def main(reactor):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(60)
        async with DatagramSocket(reactor) as sender:
            if way == "flushed elsewhere":
                stream = await sender.get_output_stream(*peer.getsockname())
            else:
                await sender.connect(*peer.getsockname())
                stream = sender.output_stream
            results = await send(stream)
        count = len([result for result in results if isinstance(result, int)])
        received = [len(peer.recv(65535)) for _ in range(count)]
        peer.setblocking(False)
        try:
            received.append(["surplus", len(peer.recv(65535))])
        except BlockingIOError:
            pass
    print(json.dumps([results, received]))

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""


def _cuts_runs() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return request_runs(probe)


class BatchTests(SynchronousTestCase):
    """Datagrams of a socket in a traced process."""

    if _STRACE is None:
        skip = "strace is not installed"
    elif not _cuts_runs():
        skip = "this kernel does not split runs: each datagram is a call"

    def send(self, way: str, *sizes: int) -> tuple[int, list[Any], list[Any]]:
        """
        Send datagrams of these sizes.

        :returns: the number of calls, the result of each write, and the sizes of the datagrams
            that the peer received.
        """
        trace = Path(self.mktemp()).absolute()
        traced = subprocess.run(
            [
                *(str(_STRACE), "-f", "--seccomp-bpf", "-s", "5"),
                *("-e", "trace=sendto,sendmsg,sendmmsg,write,writev"),
                *("-o", str(trace), sys.executable, "-c", _PROGRAM, way, *map(str, sizes)),
            ],
            cwd=_TOP,
            env={"PYTHONPATH": str(_TOP)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if not trace.exists() or "Operation not permitted" in traced.stderr:
            self.skipTest(f"strace may not trace here: {traced.stderr[:100]}")
        self.assertEqual(traced.returncode, 0, traced.stderr)
        lines = trace.read_text().splitlines()
        results, received = json.loads(traced.stdout)
        return len([line for line in lines if '"Hello"' in line]), results, received

    def test_c9_five_writes_and_a_flush_are_one_call(self) -> None:
        """C9: the peer gets five datagrams of 13 bytes."""
        expected = (1, [13] * 5, [13] * 5)
        self.assertEqual(self.send("flushed", *[13] * 5), expected)
        # Waiting for all of them is as good.
        self.assertEqual(self.send("together", *[13] * 5), expected)

    def test_c9_five_awaited_writes_are_five_calls(self) -> None:
        """For comparison with a batch."""
        self.assertEqual(self.send("awaited", *[13] * 5), (5, [13] * 5, [13] * 5))

    def test_c9_sixty_four_writes_and_a_flush_are_one_call(self) -> None:
        """C9: the largest number of segments of one call."""
        self.assertEqual(self.send("flushed", *[100] * 64), (1, [100] * 64, [100] * 64))

    def test_c10_a_batch_never_merges_datagrams(self) -> None:
        """C10: each arrives with its own size, in order, for any sizes around it."""
        sizes = [13, 13, 5, 1200, 7, 7, 1200, 1200, 1200, 9000, 6]
        calls, results, received = self.send("flushed", *sizes)
        self.assertEqual((results, received), (sizes, sizes))
        self.assertLess(calls, len(sizes))

    def test_c11_a_datagram_that_is_too_long_fails_alone(self) -> None:
        """C11: it fails with ``MESSAGE_TOO_LONG``; the others arrive."""
        calls, results, received = self.send("flushed", 13, 13, 65_508, 13, 13)
        self.assertEqual(results, [13, 13, "MESSAGE_TOO_LONG", 13, 13])
        self.assertEqual(received, [13] * 4)
        self.assertLess(calls, 4)

    def test_c12_a_flush_completes_the_writes_on_every_stream(self) -> None:
        """
        C12: every write is done when the flush is. WinRT promises it only for the stream of a
        connected socket. Here it is also true for `DatagramSocket.get_output_stream`.
        """
        self.assertEqual(self.send("flushed elsewhere", *[13] * 5), (1, [13] * 5, [13] * 5))
        sizes = [13, 65_508, 5, 9000]
        _, results, received = self.send("flushed elsewhere", *sizes)
        self.assertEqual(results, [13, "MESSAGE_TOO_LONG", 5, 9000])
        self.assertEqual(received, [13, 5, 9000])
