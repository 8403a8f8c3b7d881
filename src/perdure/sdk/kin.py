"""A run's parent, and how its children stand, from as few events as that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from perdure.errors import PerdureError
from perdure.ids import RunId
from perdure.io.children import Child, ClosePolicy
from perdure.model.events import (
    CHILD_RUN_COMPLETED,
    DomainEvent,
    Event,
    EventEnvelope,
    RunPhase,
    RunStarted,
)
from perdure.sdk.finding import first_event
from perdure.stores.bundle import Stores
from perdure.stores.legs import end_of

MISSING = "Missing"
"""Among the phases of children: that of one which is not there, or cannot be read."""


def parent_in(started: Event) -> RunId | None:
    """The parent that a run's first event names."""
    return started.parent.run_id if isinstance(started, RunStarted) and started.parent is not None else None


async def parent_of(stores: Stores, run_id: RunId) -> RunId | None:
    """A run's parent; None also for a run whose first event cannot be read."""
    try:
        first = await first_event(stores, run_id)
    except PerdureError:
        return None
    return None if first is None else parent_in(first)


async def phases_of(
    stores: Stores, children: Iterable[RunId], parents_events: Iterable[EventEnvelope]
) -> dict[str, int]:
    """How many of the children are in each phase, by its wire name, or :data:`MISSING`."""
    known = {
        event.payload["child_run_id"]: event.payload.get("status")
        for envelope in parents_events
        if isinstance(event := envelope.event, DomainEvent) and event.name == CHILD_RUN_COMPLETED
    }
    return dict(Counter([known.get(child) or await _phase_of(stores, child) for child in children]))


async def hearers_of(stores: Stores, children: Iterable[Child]) -> int:
    """How many of a run's children hear what it is told: all that have not ended, but abandoned ones."""
    asked = [
        child.run_id
        for child in children
        if not child.has_ended and child.close_policy is not ClosePolicy.ABANDON
    ]
    return [await _phase_of(stores, run_id) for run_id in asked].count(RunPhase.RUNNING.value)


async def _phase_of(stores: Stores, run_id: RunId) -> str:
    try:
        head = await stores.events.head_seq(run_id)
        end = await end_of(stores.events, run_id, head)
    except PerdureError:
        return MISSING
    if not head:
        return MISSING
    return RunPhase.RUNNING.value if end is None else end.status.value
