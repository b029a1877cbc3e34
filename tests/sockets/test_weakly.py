"""A part of an object asks it something, and does not keep it alive."""

from __future__ import annotations

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from twsock.sockets.weakly import ask_weakly, make_weakly, tell_weakly


class Owner:
    """Has parts that ask it, tell it and have it make something."""

    def __init__(self) -> None:
        self.number = 1
        self.ask = ask_weakly(self.answer, -1)
        self.tell = tell_weakly(self.hear)
        self.make = make_weakly(self.answer, lambda: -2)

    def answer(self) -> int:
        return self.number

    def hear(self, number: int) -> None:
        self.number = number


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

    def test_what_is_told_is_heard_while_somebody_is_there(self) -> None:
        """Afterwards it is not, and what is made is made by another."""
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
