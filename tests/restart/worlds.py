"""
Both processes of a restart, and what is on its way between them: every order of their events.

`explore` walks through all worlds that can follow from the first one, with at most some faults: a
process is killed or stopped, a packet is foreign, a deadline passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from twsock.restart import new_side, old_side
from twsock.restart.new_side import Action as NewAction
from twsock.restart.new_side import Event as NewEvent
from twsock.restart.new_side import State as New
from twsock.restart.old_side import Action as OldAction
from twsock.restart.old_side import Event as OldEvent
from twsock.restart.old_side import State as Old

__all__ = ["New", "Old", "World", "explore"]

_TO_NEW = {
    OldAction.SEND_SOCKETS: (NewEvent.SOCKET, NewEvent.SOCKET, NewEvent.LISTED),
    OldAction.REFUSE: (NewEvent.REFUSED,),
    OldAction.OFFER: (NewEvent.CONNECTION,),
    OldAction.REPORT: (NewEvent.MOVED,),
}
_TO_OLD = {
    NewAction.REPORT_READY: (OldEvent.READY,),
    NewAction.SEND_FAREWELL: (OldEvent.FAREWELL,),
}


@dataclass(frozen=True)
class World:
    """The two processes, None for one that was killed."""

    old: Old | None = Old.SERVING
    new: New | None = New.ASKED
    to_old: tuple[OldEvent, ...] = (OldEvent.TAKE_OVER,)
    to_new: tuple[NewEvent, ...] = ()
    old_open: bool = True
    new_open: bool = True
    old_owns: bool = True
    new_owns: bool = False
    is_offering: bool = False
    is_draining: bool = False
    faults: int = 0
    killed_old: bool = False
    stopped_old: bool = False
    stopped_new: bool = False
    killed_alone: bool = False

    @property
    def accepting(self) -> int:
        """How many processes accept connections."""
        return (self.old in (Old.SERVING, Old.SHARED, Old.RETURNING)) + (
            self.new in (New.READY, New.ALONE)
        )

    def at_old(self, event: OldEvent) -> World:
        """Let an event happen to the old process."""
        assert self.old is not None
        after, actions = old_side.follow(self.old, event)
        world = replace(self, old=after)
        for action in actions:
            world = replace(world, to_new=world.to_new + _TO_NEW.get(action, ()))
            if action is OldAction.CLOSE:
                world = replace(world, old_open=False, to_old=())
            elif action in (OldAction.YIELD, OldAction.LEAVE_PATHS):
                world = replace(world, old_owns=False)
            elif action is OldAction.SERVE_AGAIN:
                world = replace(world, old_owns=True, is_draining=False)
            elif action is OldAction.OFFER:
                world = replace(world, is_offering=True)
            elif action is OldAction.DRAIN:
                world = replace(world, is_draining=True)
        return world

    def at_new(self, event: NewEvent) -> World:
        """Let an event happen to the new process."""
        assert self.new is not None
        after, actions = new_side.follow(self.new, event)
        world = replace(self, new=after)
        for action in actions:
            said = _TO_OLD.get(action, ()) if world.old_open else ()
            world = replace(world, to_old=world.to_old + said)
            if action is NewAction.CLOSE:
                world = replace(world, new_open=False, to_new=())
            elif action is NewAction.OWN_PATHS:
                world = replace(world, new_owns=True)
            elif action in (NewAction.DROP, NewAction.END):
                world = replace(world, new_owns=False)
        return world

    def steps(self) -> Iterator[World]:
        """Return every world that follows without a fault."""
        if self.old is not None and self.old_open:
            if self.to_old:
                yield replace(self, to_old=self.to_old[1:]).at_old(self.to_old[0])
            elif not self.new_open and (self.old, OldEvent.BROKEN) in old_side.TABLE:
                yield self.at_old(OldEvent.BROKEN)
        if self.is_offering and self.old in (Old.MOVING, Old.RETURNING, Old.LEAVING):
            yield replace(self, is_offering=False).at_old(OldEvent.ANSWERED)
        # Before it ends, the old process reads what has arrived.
        is_broken = not self.new_open and self.old_open
        if self.is_draining and self.old in (Old.DRAINING, Old.LEAVING) and not is_broken:
            yield self.at_old(OldEvent.DRAINED)._exited()
        if self.new is not None and self.new_open:
            if self.to_new:
                yield replace(self, to_new=self.to_new[1:]).at_new(self.to_new[0])
            elif not self.old_open and (self.new, NewEvent.BROKEN) in new_side.TABLE:
                yield self.at_new(NewEvent.BROKEN)
        if self.new is New.HELD:
            yield self.at_new(NewEvent.STARTED)

    def _exited(self) -> World:
        return replace(self, old_open=False)

    def failures(self) -> Iterator[World]:
        """Return every world that follows with a fault."""
        after = replace(self, faults=self.faults + 1)
        # The other process is not ours, or it is broken: no second fault is combined with that.
        foreign = replace(self, faults=2)
        if self.old not in (None, Old.ENDED):
            # It may be killed before it has sent all packets of a step.
            for sent in range(len(self.to_new) + 1):
                left = self.to_new[:sent]
                gone = replace(after, old=None, old_open=False, to_new=left, to_old=())
                yield replace(gone, killed_old=True, killed_alone=self.new is None)
            yield replace(after.at_old(OldEvent.STOPPED)._exited(), stopped_old=True)
            connected = (Old.SHARED, Old.MOVING, Old.DRAINING)
            if self.old_open and self.old in connected and not self.faults:
                yield foreign.at_old(OldEvent.FOREIGN)
            if self.old is Old.SHARED:
                yield after.at_old(OldEvent.DEADLINE)
        if self.new in (New.HELD, New.READY, New.ALONE):
            yield replace(after.at_new(NewEvent.STOPPED), new_open=False, stopped_new=True)
        if self.new not in (None, New.FAILED, New.ENDING):
            gone = replace(after, new=None, new_open=False, to_new=())
            yield replace(gone, killed_alone=self.old in (None, Old.ENDED, Old.LEAVING))
            if self.new_open and self.new is not New.ALONE and not self.faults:
                yield foreign.at_new(NewEvent.FOREIGN)
        if self.new in (New.ASKED, New.RECEIVING):
            yield after.at_new(NewEvent.DEADLINE)


def explore(most_faults: int) -> tuple[set[World], set[World]]:
    """Return all worlds, and those in which nothing more happens without a fault."""
    seen, left, ends = {World()}, [World()], set()
    while left:
        world = left.pop()
        steps = list(world.steps())
        if not steps:
            ends.add(world)
        if world.faults < most_faults:
            steps += world.failures()
        fresh = [step for step in steps if step not in seen]
        seen.update(fresh)
        left += fresh
    return seen, ends
