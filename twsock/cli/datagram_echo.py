"""
One run of datagrams against an echo server or a group: ENDPOINT → **way** → exchange → figures.

The ways are `twsock.cli.datagram_peer` and `twsock.cli.datagram_group`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError

from twsock.cli.addresses import find_addresses
from twsock.cli.arguments import EchoArguments
from twsock.cli.datagram_exchange import DatagramExchange
from twsock.cli.datagram_figures import describe_loss, describe_run
from twsock.cli.datagram_group import GroupWay
from twsock.cli.datagram_peer import PeerWay
from twsock.cli.datagram_score import DatagramScore
from twsock.cli.datagram_target import GroupTarget, PeerTarget
from twsock.cli.datagram_way import OpenPort, Way, check_datagram_size
from twsock.cli.failure import CommandError
from twsock.cli.screen import Screen
from twsock.cli.texts import Texts
from twsock.datagram.port import listen_datagrams
from twsock.errors import SocketError, SocketErrorStatus

__all__ = ["echo_datagrams"]


async def echo_datagrams(
    reactor: Any,
    target: PeerTarget | GroupTarget,
    arguments: EchoArguments,
    texts: Texts,
    screen: Screen,
    now: Callable[[], float],
    open_port: OpenPort | None = None,
) -> None:
    """
    Send every message as often as was asked for, count what comes back, and say how it went.

    Cancelling closes the ports at once, and says how it went so far.

    :param now: measures the round trips and the timeouts, in seconds.
    :param open_port: stands for the sockets.
    :raises CommandError: when something was lost, or came back that was not sent, with a line that
        says so.
    """
    open_port = open_port or partial(listen_datagrams, reactor)
    is_group = isinstance(target, GroupTarget)
    is_single = texts.total == 1 and arguments.repeats == 1
    score = DatagramScore(arguments.timeout, is_group=is_group)
    exchange = DatagramExchange(
        reactor, arguments, screen, score, now, is_group=is_group, is_single=is_single
    )
    way: Way
    if isinstance(target, GroupTarget):
        addresses = [target.group]
        way = GroupWay(target, exchange, screen, open_port)
    else:
        addresses = await find_addresses(reactor, target.host, arguments.timeout)
        way = PeerWay(addresses, target.port, exchange, now, open_port)
    for text in arguments.texts:
        check_datagram_size(text, addresses[0])
    try:
        way.open()
        await exchange.run(way, texts)
    except (CancelledError, CommandError):
        if score.sent > 1:
            _say_figures(screen, score, is_group=is_group)
        raise
    finally:
        way.close()
        screen.end_progress()
    if is_single and score.lost:
        raise _nobody_answered(way, arguments)
    screen.say("client closed its socket")
    if not is_single or len(score.responders) > 1:
        _say_figures(screen, score, is_group=is_group)
    if score.sent and score.lost == score.sent:
        raise _nobody_answered(way, arguments)
    if loss := describe_loss(score):
        raise CommandError(loss)


def _say_figures(screen: Screen, score: DatagramScore, *, is_group: bool) -> None:
    screen.end_progress()
    for line in describe_run(score, is_group=is_group):
        screen.say(line)


def _nobody_answered(way: Way, arguments: EchoArguments) -> CommandError:
    nobody = SocketError(f"{way.name} sent nothing", status=SocketErrorStatus.CONNECTION_TIMED_OUT)
    return CommandError(
        f"no answer within {arguments.timeout:g} s: {nobody.summary}; {way.question}"
    )
