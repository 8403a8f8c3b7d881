"""Following a run from leg to leg."""

from __future__ import annotations

from perdure.ids import RunId
from perdure.model.events import Event, RunCompleted
from perdure.model.legs import heir_in
from perdure.stores.ports import EventStore, KnowsLegs


async def newest_leg(events: EventStore, run_id: RunId) -> RunId:
    """As ``KnowsLegs.newest_leg``; two reads a leg where the store has no index."""
    if isinstance(events, KnowsLegs):
        return await events.newest_leg(run_id)
    passed = {run_id}
    while True:
        heir = heir_in(await _last_two(events, run_id, await events.head_seq(run_id)))
        if heir is None or heir in passed or not await events.head_seq(heir):
            return run_id
        passed.add(heir)
        run_id = heir


async def end_of(events: EventStore, run_id: RunId, head: int | None = None) -> RunCompleted | None:
    """How a run ended, in its newest leg; None for one that has not, or that nobody began.

    ``head`` is the number of its last event, if the caller knows it.
    """
    last = await _last_two(events, run_id, await events.head_seq(run_id) if head is None else head)
    if heir_in(last) is not None:
        newest = await newest_leg(events, run_id)
        if newest != run_id:
            return await end_of(events, newest)
    end = last[-1] if last else None
    return end if isinstance(end, RunCompleted) else None


async def _last_two(events: EventStore, run_id: RunId, head: int) -> list[Event]:
    """The events that say whether a run has ended, and as what it goes on."""
    last = await events.read_range(run_id, max(head - 1, 1), head) if head else []
    return [each.event for each in last]
