"""A part of an object calls it without keeping it alive."""

from __future__ import annotations

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from twsock.sockets.weakly import weak_callback, weak_factory, weak_getter


class Owner:
    """An object whose parts call it."""

    def __init__(self) -> None:
        self.number = 1
        self.ask = weak_getter(self.answer, -1)
        self.tell = weak_callback(self.hear)
        self.make = weak_factory(self.answer, lambda: -2)

    def answer(self) -> int:
        return self.number

    def hear(self, number: int) -> None:
        self.number = number


class WeakCallTests(SynchronousTestCase):
    """Calls while the owner exists, and after it was freed."""

    def test_a_call_returns_the_result_of_the_owner(self) -> None:
        """At each call."""
        owner = Owner()
        self.assertEqual(owner.ask(), 1)
        owner.number = 2
        self.assertEqual(owner.ask(), 2)

    def test_the_owner_is_freed_with_its_last_reference(self) -> None:
        """Without the garbage collector; later calls return the fixed result."""
        gc.disable()
        self.addCleanup(gc.enable)
        owner = Owner()
        ask, reference = owner.ask, weakref.ref(owner)
        del owner
        self.assertIsNone(reference())
        self.assertEqual(ask(), -1)

    def test_calls_after_the_owner_was_freed_do_nothing(self) -> None:
        """A factory method is replaced by the other factory."""
        gc.disable()
        self.addCleanup(gc.enable)
        owner = Owner()
        tell, make, reference = owner.tell, owner.make, weakref.ref(owner)
        tell(7)
        self.assertEqual((owner.number, make()), (7, 7))
        del owner
        self.assertIsNone(reference())
        tell(8)
        self.assertEqual(make(), -2)
