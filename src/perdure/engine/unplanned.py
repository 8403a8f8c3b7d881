"""Ending a run whose plan nobody here has: terminating it needs none, since nothing is cleaned up."""

from __future__ import annotations

from perdure.engine.decide import PlannedRun
from perdure.engine.history import RunView
from perdure.engine.letters import receive
from perdure.ids import RunId
from perdure.model.events import RUN_CANCEL_REQUESTED, DomainEvent
from perdure.stores.bundle import Stores

NO_PLAN = PlannedRun([], {}, frozenset(), {})
"""For a run that is being terminated, and for no other: to this plan every run has done all it is to do."""


async def is_terminated(stores: Stores, run_id: RunId, view: RunView) -> bool:
    """Whether a run was told to end at once, or is when its letters are read."""
    if view.started is None or view.ended is not None:
        return False
    if view.cancel is not None and view.cancel.terminates:
        return True
    heard = receive(view, await stores.mailbox.unread(run_id)).events
    return any(
        isinstance(event, DomainEvent) and event.name == RUN_CANCEL_REQUESTED and event.payload["terminate"]
        for event in heard
    )
