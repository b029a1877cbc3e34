"""Handlers of an event are kept in order, until no more can be added."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import LocalProtocolError
from twsock.sockets.event import Event

Handler = Callable[[], object]


def first() -> None:
    """Replace a handler."""


async def second() -> None:
    """Replace a handler that is a coroutine function."""


class EventTests(SynchronousTestCase):
    """An event whose handlers can be changed."""

    def setUp(self) -> None:
        self.is_frozen = False
        self.event: Event[Handler] = Event("connection_received", lambda: self.is_frozen)

    def test_handlers_are_called_in_the_order_added(self) -> None:
        """Functions and coroutine functions alike."""
        self.event.add(second)
        self.event.add(first)
        self.assertEqual(list(self.event), [second, first])

    def test_a_new_event_has_no_handlers(self) -> None:
        """Its length is their number."""
        self.assertEqual((len(self.event), list(self.event)), (0, []))
        self.event.add(first)
        self.assertEqual(len(self.event), 1)

    def test_adding_is_usable_as_a_decorator(self) -> None:
        """It returns the decorated function."""
        self.assertIs(self.event.add(first), first)

    def test_a_handler_added_twice_is_called_twice(self) -> None:
        """Each removal takes one of them."""
        self.event.add(first)
        self.event.add(first)
        self.event.remove(first)
        self.assertEqual(list(self.event), [first])

    def test_a_handler_that_is_not_callable_is_refused(self) -> None:
        """The message shows it."""
        self.assertRaisesRegex(TypeError, "'first'", self.event.add, "first")
        self.assertEqual(len(self.event), 0)

    def test_removing_a_handler_that_was_not_added_raises(self) -> None:
        """The other handlers stay."""
        self.event.add(first)
        self.assertRaises(ValueError, self.event.remove, second)
        self.assertEqual(list(self.event), [first])

    def test_handlers_may_change_while_they_are_called(self) -> None:
        """The current round calls the handlers that were there at its start."""
        self.event.add(first)
        self.event.add(second)
        called = []
        for handler in self.event:
            called.append(handler)
            self.event.remove(handler)
        self.assertEqual((called, len(self.event)), ([first, second], 0))

    def test_changing_a_frozen_event_raises(self) -> None:
        """The error is that of an illegal call, and names the event."""
        self.event.add(first)
        self.is_frozen = True
        for change, handler in ((self.event.add, second), (self.event.remove, first)):
            with self.assertRaises(LocalProtocolError) as caught:
                change(handler)
            self.assertEqual(caught.exception.hresult, 0x8000000E, (change, handler))
            self.assertIn("connection_received", str(caught.exception), (change, handler))
        self.assertEqual(list(self.event), [first])
