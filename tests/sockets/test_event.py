"""Handlers of an event are kept in order, until it is too late for more."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import LocalProtocolError
from twsock.sockets.event import Event

Handler = Callable[[], object]


def first() -> None:
    """Stand for a handler."""


async def second() -> None:
    """Stand for a handler that is a coroutine function."""


class EventTests(SynchronousTestCase):
    """An event that is not frozen, unless told to be."""

    def setUp(self) -> None:
        self.is_frozen = False
        self.event: Event[Handler] = Event("connection_received", lambda: self.is_frozen)

    def test_handlers_come_in_the_order_added(self) -> None:
        """Functions and coroutine functions alike."""
        self.event.add(second)
        self.event.add(first)
        self.assertEqual(list(self.event), [second, first])

    def test_nobody_is_told_by_default(self) -> None:
        """The number of handlers is that of the additions."""
        self.assertEqual((len(self.event), list(self.event)), (0, []))
        self.event.add(first)
        self.assertEqual(len(self.event), 1)

    def test_adding_is_usable_as_a_decorator(self) -> None:
        """What is decorated stays what it is."""
        self.assertIs(self.event.add(first), first)

    def test_a_handler_added_twice_is_called_twice(self) -> None:
        """Each removal takes one of them."""
        self.event.add(first)
        self.event.add(first)
        self.event.remove(first)
        self.assertEqual(list(self.event), [first])

    def test_what_cannot_be_called_is_refused(self) -> None:
        """The message shows what it was."""
        self.assertRaisesRegex(TypeError, "'first'", self.event.add, "first")
        self.assertEqual(len(self.event), 0)

    def test_what_was_not_added_cannot_be_removed(self) -> None:
        """The others stay."""
        self.event.add(first)
        self.assertRaises(ValueError, self.event.remove, second)
        self.assertEqual(list(self.event), [first])

    def test_handlers_may_change_while_they_are_called(self) -> None:
        """A round goes on with those that were there when it began."""
        self.event.add(first)
        self.event.add(second)
        called = []
        for handler in self.event:
            called.append(handler)
            self.event.remove(handler)
        self.assertEqual((called, len(self.event)), ([first, second], 0))

    def test_it_may_be_too_late(self) -> None:
        """Once frozen, adding and removing are illegal calls that name the event."""
        self.event.add(first)
        self.is_frozen = True
        for change, handler in ((self.event.add, second), (self.event.remove, first)):
            with self.assertRaises(LocalProtocolError) as caught:
                change(handler)
            self.assertEqual(caught.exception.hresult, 0x8000000E)
            self.assertIn("connection_received", str(caught.exception))
        self.assertEqual(list(self.event), [first])
