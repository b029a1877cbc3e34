"""
The multicast sample: programs that share a port, and all receive what is sent to a group.

Run it:        python examples/multicast_sample.py listen 3
Then, in a second terminal:  python examples/multicast_sample.py send 3
You will see:  at both        Joined 224.3.0.5 port 22113 on lo
               at the second  "Hello" sent successfully (three times)
               at both        From … port 22113: "Hello" (three times)

The sender receives its own datagrams, too. The first number is how many datagrams to send and
receive (default 1). A program also exits when nothing arrives for 30 s. Further numbers are other
seconds and another port:
``python examples/multicast_sample.py listen 3 60 22114``. Nothing leaves this machine.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twsock import DatagramSocket, SocketError

GROUP = "224.3.0.5"
INTERFACE = "lo"


async def send(member: DatagramSocket, service: str, count: int) -> None:
    """Send the text to the group a number of times."""
    output = await member.get_output_stream(GROUP, service)
    for _ in range(count):
        await output.write(b"Hello")
        print('"Hello" sent successfully', flush=True)


async def listen(member: DatagramSocket, count: int, seconds: float) -> None:
    """Print a number of datagrams that are sent to the group."""
    for _ in range(count):
        data, (host, port) = await member.receive_from(timeout=seconds)
        text = data.decode(errors="replace")
        print(f'From {host} port {port}: "{text}"', flush=True)


async def main(
    reactor: Any, way: str, count: str = "1", seconds: str = "30", service: str = "22113"
) -> None:
    """Join the group; send, receive, or both."""
    try:
        async with DatagramSocket(reactor) as member:
            # Before binding: a bound port cannot become a shared one.
            member.control.multicast_only = True
            await member.bind_service_name(service, INTERFACE)
            member.join_multicast_group(GROUP)
            port = member.information.local_port
            print(f"Joined {GROUP} port {port} on {INTERFACE}", flush=True)
            if way == "send":
                await send(member, port, int(count))
            await listen(member, int(count), float(seconds))
    except (SocketError, ValueError) as error:
        sys.exit(f"multicast_sample: {getattr(error, 'summary', error)}")


if __name__ == "__main__":
    way, numbers = sys.argv[1:2], sys.argv[2:]
    if way not in (["listen"], ["send"]) or len(numbers) > 3 or not all(map(str.isdigit, numbers)):
        sys.exit(f"usage: {sys.argv[0]} listen|send [COUNT [SECONDS [PORT]]]")
    react(lambda reactor, *words: Deferred.fromCoroutine(main(reactor, *words)), sys.argv[1:])
