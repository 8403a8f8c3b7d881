"""Places for the conformance suite, and what is done there again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from perdure.errors import PerdureError
from perdure.ids import RunId
from perdure.model.events import DomainEvent, Event, RunCompleted, RunStatus
from perdure.stores.bundle import Stores
from perdure.stores.ports import Append, Claim, Release

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from perdure.testing.clock import FakeClock

RUN = RunId("00000000-0000-0000-0000-000000000001")
OTHER = RunId("00000000-0000-0000-0000-000000000002")
TTL = timedelta(seconds=30)
ENDED = RunCompleted(RunStatus.FAILED, None)


def told(*names: str) -> list[Event]:
    """Domain events of these names."""
    return [DomainEvent(name, {"of": name}) for name in names]


async def refusal(work: Awaitable[Any]) -> PerdureError:
    """The error of ``work``, which must fail."""
    try:
        await work
    except PerdureError as error:
        return error
    raise AssertionError("the store accepted what it must refuse")


async def begin(stores: Stores, *run_ids: RunId) -> None:
    """Give each run a first event that has none."""
    for run_id in run_ids:
        if not await stores.events.head_seq(run_id):
            await stores.events.append(run_id, 0, told("begun"))


async def own(stores: Stores, run_id: RunId) -> Claim:
    """A durable claim on the run, which is begun with it if it has no events."""
    claim = await stores.claims.acquire(run_id, "owner", TTL)
    begun = await stores.events.head_seq(run_id) > 0
    await stores.commit([], [] if begun else [Append(run_id, 0, told("begun"))], claim)
    return claim


async def park(stores: Stores, run_id: RunId, due_millis: int | None, *awaits: RunId) -> None:
    """Have the run left by an owner until ``due_millis``, or until one of those ends that it awaits."""
    await stores.commit([], [], await own(stores, run_id), release=Release(due_millis, awaits))


async def ids(stores: Stores, run_id: RunId) -> list[str]:
    """The ids of the run's unread letters."""
    return [letter.id for letter in await stores.mailbox.unread(run_id)]


async def agenda(stores: Stores) -> tuple[list[RunId], int | None]:
    """What is due now, and when the next run is."""
    return await stores.agenda.due_runs(9), await stores.agenda.next_due_millis()


class StorePlaces:
    """``open_place`` gives stores of a place; with one ``name``, always of the same place."""

    #: Whether claims and commits survive in the place itself, so that another handle sees them.
    shares_claims = True
    #: Whether one commit is all or nothing across artifacts and runs.
    is_atomic = True

    def open_place(self, name: str, clock: FakeClock) -> Stores:
        """A new handle on the place called ``name``; its time is ``clock``'s."""
        raise NotImplementedError

    @asynccontextmanager
    async def place(self, handles: int = 1) -> AsyncIterator[tuple[FakeClock, list[Stores]]]:
        """A clock and ``handles`` handles on one fresh place."""
        from perdure.testing.clock import FakeClock

        clock = FakeClock()
        name = hashlib.sha256(str(id(clock)).encode()).hexdigest()[:12]
        stores = [self.open_place(name, clock) for _ in range(handles)]
        try:
            yield clock, stores
        finally:
            for each in stores:
                await each.close()
