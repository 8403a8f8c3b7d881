"""Waking runs when their time has come, or when somebody has told them something."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Literal

from perdure.clock import Clock
from perdure.errors import StorageError
from perdure.ids import RunId
from perdure.stores.bundle import Stores

POLL_SECONDS = 0.25
"""How often what other processes do is looked at."""
AHEAD = timedelta(seconds=1)


class Waker:
    """Wakes the runs that were parked here; and, once it recovers, has everything taken up that is due.

    ``wake`` drives one run on. ``recover`` drives on everything that is due and that nobody owns, and says
    when the next schedule is due.
    """

    def __init__(
        self,
        stores: Stores,
        clock: Clock,
        park_after: timedelta,
        wake: Callable[[RunId], None],
        recover: Callable[[], Awaitable[int | None]],
    ) -> None:
        # Taken up before their time, runs are awake when it comes; their sleep ends in the process.
        self.ahead_millis = min(park_after, AHEAD) // timedelta(milliseconds=1)
        self._stores = stores
        self._clock = clock
        self._wake = wake
        self._recover = recover
        self._recovers = False
        self._parked: dict[RunId, int | None] = {}
        self._task: asyncio.Task[None] | None = None
        self._mail = asyncio.Event()
        self._is_closed = False

    def park(self, run_id: RunId, due_millis: int | None) -> None:
        """Wake a run when it is due: then, with a letter for it, or with the end of a run that it awaits."""
        self._parked[run_id] = due_millis
        self._begin()

    def recover_from_now_on(self) -> None:
        """Have whatever is due, and that nobody owns, taken up."""
        self._recovers = True
        self._begin()

    def nudge(self) -> None:
        """Say that a letter was posted, or that a run has ended."""
        self._mail.set()

    async def aclose(self) -> None:
        """Wake nothing any more."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def seconds_until_due(self, limit: float) -> float:
        """How long nothing is due that nobody owns, at most ``limit``."""
        due = await self._stores.agenda.next_due_millis()
        now = self._clock.now_millis() + self.ahead_millis
        # What is due already, and was not taken up, cannot be driven here.
        return limit if due is None or due <= now else min(limit, (due - now) / 1000)

    def _begin(self) -> None:
        if not self._is_closed and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._watch(), name="perdure-waker")

    async def _watch(self) -> None:
        while self._parked or self._recovers:
            self._mail.clear()
            scheduled = None
            try:
                if self._recovers:
                    scheduled = await self._recover()
                for run_id in await self._due_here():
                    del self._parked[run_id]
                    self._wake(run_id)
                next_due = await self._next_due()
            except StorageError as error:
                logging.getLogger("perdure").warning("the store could not be asked what is due: %s", error)
                next_due = None
            await self._until(self._sooner(next_due, scheduled))

    async def _due_here(self) -> set[RunId]:
        if not self._parked:
            return set()
        parked, limit = self._parked.keys(), len(self._parked)
        agenda = self._stores.agenda
        return set(await agenda.due_runs(limit, within_millis=self.ahead_millis, among=parked))

    async def _next_due(self) -> int | None:
        moments = [moment for moment in self._parked.values() if moment is not None]
        if self._recovers:
            stored = await self._stores.agenda.next_due_millis()
            is_ahead = stored is not None and stored > self._clock.now_millis() + self.ahead_millis
            moments += [stored] if stored is not None and is_ahead else []
        return min(moments) - self.ahead_millis if moments else None

    def _sooner(self, due_millis: int | None, scheduled_millis: int | None) -> int | None:
        # What a schedule has due already, and was not started, cannot be started here.
        is_ahead = scheduled_millis is not None and scheduled_millis > self._clock.now_millis()
        moments = (due_millis, scheduled_millis if is_ahead else None)
        return min((each for each in moments if each is not None), default=None)

    async def _until(self, due_millis: int | None) -> None:
        """Wait until something is due or a letter was sent here; look again after a moment in any case."""
        waiting = [asyncio.ensure_future(self._mail.wait())]
        if due_millis is not None:
            waiting.append(asyncio.ensure_future(_true(self._clock.sleep_until(due_millis))))
        try:
            await asyncio.wait(waiting, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()


async def _true(work: Awaitable[None]) -> Literal[True]:
    await work
    return True
