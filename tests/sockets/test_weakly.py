"""A part of an object asks it something, and does not keep it alive."""

from __future__ import annotations

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from twsock.sockets.weakly import ask_weakly


class Owner:
    """Has a part that asks it."""

    def __init__(self) -> None:
        self.number = 1
        self.ask = ask_weakly(self.answer, -1)

    def answer(self) -> int:
        return self.number


class AskWeaklyTests(SynchronousTestCase):
    """Answers while the owner is there, and afterwards."""

    def test_the_owner_answers(self) -> None:
        """Each time anew."""
        owner = Owner()
        self.assertEqual(owner.ask(), 1)
        owner.number = 2
        self.assertEqual(owner.ask(), 2)

    def test_it_dies_with_its_last_reference(self) -> None:
        """Without the garbage collector; the part has an answer all the same."""
        gc.disable()
        self.addCleanup(gc.enable)
        owner = Owner()
        ask, reference = owner.ask, weakref.ref(owner)
        del owner
        self.assertIsNone(reference())
        self.assertEqual(ask(), -1)
