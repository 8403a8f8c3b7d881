"""Histories that grow while they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from perdure import (
    ArtifactId,
    ConcurrencyError,
    OpId,
    RunCompleted,
    RunId,
    RunStarted,
    RunStatus,
    StateCompleted,
    StateEntered,
    StateId,
    Stores,
)
from perdure.engine.recovery import read_view
from perdure.model.events import DomainEvent, Event, EventEnvelope

STATE, SNAPSHOT = StateId("m.main.a"), ArtifactId("0" * 64)
BEFORE: list[Event] = [RunStarted(OpId("m"), SNAPSHOT, SNAPSHOT), StateEntered(STATE, 0, SNAPSHOT)]
ENDED: list[Event] = [StateCompleted(STATE, SNAPSHOT), RunCompleted(RunStatus.COMPLETED, SNAPSHOT)]


class _Growing:
    """Events to which another owner adds some as soon as a page of them was read."""

    def __init__(self, events: Any, late: Sequence[Event]) -> None:
        self._events = events
        self._late = list(late)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._events, name)

    async def read_engine_events(self, run_id: RunId, from_seq: int, limit: int) -> list[EventEnvelope]:
        page: list[EventEnvelope] = await self._events.read_engine_events(run_id, from_seq, limit)
        late, self._late = self._late, []
        if late:
            await self._events.append(run_id, await self._events.head_seq(run_id), late)
        return page


@pytest.mark.parametrize("late", [ENDED, ENDED[:1], [DomainEvent("note", {}), *ENDED]])
async def test_what_is_added_meanwhile_does_not_seem_to_have_been_read(late: list[Event]) -> None:
    """An owner who was slow may still end a run that another one has begun to take over: it stays ended."""
    async with Stores.in_memory() as stores:
        run_id = RunId.random()
        await stores.events.append(run_id, 0, BEFORE)
        stores.events = _Growing(stores.events, late)
        view = await read_view(stores, run_id)
        assert (view.head_seq, view.ended) == (2, None)
        with pytest.raises(ConcurrencyError, match="event_store_concurrency"):
            await stores.events.append(run_id, view.head_seq, [StateEntered(STATE, 1, SNAPSHOT)])


async def test_events_that_recovery_does_not_need_are_numbered_all_the_same() -> None:
    """Those after the last one that it reads."""
    async with Stores.in_memory() as stores:
        run_id = RunId.random()
        await stores.events.append(run_id, 0, [*BEFORE, DomainEvent("note", {}), DomainEvent("note", {})])
        assert (await read_view(stores, run_id)).head_seq == 4
