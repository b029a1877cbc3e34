"""Work that blocks runs in threads that nobody has to wait for."""

from __future__ import annotations

import socket
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IAddress, IHostnameResolver, IResolutionReceiver
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twsock.cli.resolver import ThreadResolver, first_of, in_thread


class InThreadTests(TestCase):
    """One call."""

    async def test_the_result_comes_back(self) -> None:
        """In the reactor's thread."""
        self.assertEqual(await in_thread(reactor, divmod, 7, 2), (3, 1))  # type: ignore[arg-type]

    async def test_an_exception_comes_back(self) -> None:
        """As the failure of the Deferred."""
        with self.assertRaises(ZeroDivisionError):
            await in_thread(reactor, divmod, 7, 0)  # type: ignore[arg-type]

    async def test_a_call_that_was_given_up_goes_on_alone(self) -> None:
        """Its thread is a daemon, and its result is dropped."""
        go_on = threading.Event()
        running: Deferred[threading.Thread] = Deferred()

        def block() -> None:
            reactor.callFromThread(running.callback, threading.current_thread())  # type: ignore[attr-defined]
            go_on.wait(60)

        waiting = in_thread(reactor, block)  # type: ignore[arg-type]
        thread = await running
        waiting.cancel()
        with self.assertRaises(CancelledError):
            await waiting
        self.assertTrue(thread.daemon)
        go_on.set()
        thread.join(60)
        await in_thread(reactor, int)  # type: ignore[arg-type]


@implementer(IResolutionReceiver)
class Receiver:
    """Keeps the addresses."""

    def __init__(self) -> None:
        self.addresses: list[IAddress] = []
        self.done: Deferred[list[IAddress]] = Deferred()

    def resolutionBegan(self, resolution: Any) -> None:
        self.name = resolution.name
        resolution.cancel()

    def addressResolved(self, address: IAddress) -> None:
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        self.done.callback(self.addresses)


class ThreadResolverTests(TestCase):
    """Names become addresses."""

    def resolve(self, name: str, *arguments: Any, **settings: Any) -> Deferred[list[IAddress]]:
        receiver = Receiver()
        resolver = ThreadResolver(reactor, **settings)  # type: ignore[arg-type]
        resolver.resolveHostName(receiver, name, 1337, *arguments)
        self.assertEqual(receiver.name, name)
        return receiver.done

    def test_it_is_what_twisted_asks_for(self) -> None:
        """The reactor takes it."""
        verifyObject(IHostnameResolver, ThreadResolver(reactor))  # type: ignore[arg-type]

    async def test_an_address_stands_for_itself(self) -> None:
        """Of either version."""
        self.assertEqual(await self.resolve("127.0.0.1"), [IPv4Address("TCP", "127.0.0.1", 1337)])
        self.assertEqual(await self.resolve("::1"), [IPv6Address("TCP", "::1", 1337)])

    async def test_only_the_kinds_asked_for_come(self) -> None:
        """And a kind that is no internet address never comes."""
        found = [
            (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("fe80::1", 1337, 0, 2)),
            (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.1", 1337)),
            (socket.AF_UNIX, socket.SOCK_DGRAM, 0, "", "/path"),
        ]
        for kinds, hosts in (
            (None, ["fe80::1%2", "192.0.2.1"]),
            ([IPv4Address], ["192.0.2.1"]),
            ([IPv6Address], ["fe80::1%2"]),
        ):
            addresses: list[Any] = await self.resolve("h", kinds, "UDP", look_up=lambda *_: found)
            self.assertEqual([address.host for address in addresses], hosts, f"{kinds=}")
            self.assertEqual({address.type for address in addresses}, {"UDP"}, f"{kinds=}")

    async def test_a_name_that_cannot_be_one_has_no_addresses(self) -> None:
        """Neither an unknown one nor one that IDNA forbids ends in a traceback."""
        self.assertEqual(await self.resolve("a" * 300), [])
        self.assertEqual(await self.resolve(".."), [])

        def unknown(*_: Any) -> list[Any]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        self.assertEqual(await self.resolve("nowhere", look_up=unknown), [])


class FirstOfTests(SynchronousTestCase):
    """A wait for several things."""

    def test_the_first_result_cancels_the_others(self) -> None:
        """Before anybody learns of it: a stream can be read again at once."""
        waits: list[Deferred[str]] = [Deferred(), Deferred()]
        seen: list[bool] = []
        first = first_of(*waits)

        def learn(result: tuple[int, str]) -> tuple[int, str]:
            seen.append(waits[0].called)
            return result

        first.addCallback(learn)
        waits[1].callback("second")
        self.assertEqual(self.successResultOf(first), (1, "second"))
        self.assertEqual(seen, [True])

    def test_the_first_failure_counts_too(self) -> None:
        """It is the failure of all."""
        waits: list[Deferred[str]] = [Deferred(), Deferred()]
        first = first_of(*waits)
        waits[0].errback(ZeroDivisionError())
        self.failureResultOf(first, ZeroDivisionError)
        self.assertTrue(waits[1].called)

    def test_a_result_that_is_there_needs_no_wait(self) -> None:
        """The other is cancelled all the same."""
        other: Deferred[str] = Deferred()
        self.assertEqual(self.successResultOf(first_of(succeed("now"), other)), (0, "now"))
        self.assertTrue(other.called)

    def test_cancelling_cancels_all(self) -> None:
        """Nothing is left."""
        waits: list[Deferred[str]] = [Deferred(), Deferred()]
        first = first_of(*waits)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual([wait.called for wait in waits], [True, True])
