"""Who executes a run: a port, and the one that executes it in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Protocol

from perdure.engine.results import RunResult
from perdure.errors import PerdureError
from perdure.ids import RunId
from perdure.stores.bundle import Stores

MAX_CONCURRENCY = 100

Drive = Callable[[], Coroutine[Any, Any, RunResult]]
Resume = Callable[[Stores, RunId], Coroutine[Any, Any, RunResult]]


class Dispatcher(Protocol):
    """Has runs executed that others wait for: here, or wherever it hands them to."""

    def submit(self, stores: Stores, run_id: RunId, parent: RunId) -> asyncio.Future[RunResult]:
        """Have a run driven, sometime soon, for ``parent``; one that is driven already is not driven twice.

        The future tells how it was left: ended, or still running because it waits or because others drive it;
        it is cancelled if the run was interrupted, or is one for which ``parent`` itself is driven.
        Cancelling who waits for the future does not stop the run.
        """

    def resting(self, stores: Stores, run_id: RunId) -> AbstractAsyncContextManager[None]:
        """While it is entered, ``run_id`` waits for others, and takes none of the places to run."""

    def hand_on(self, stores: Stores, run_id: RunId, heir: RunId) -> None:
        """Have ``heir``, as which ``run_id`` goes on, stand where that stood, as a parent and as a child."""

    async def withdraw(self, stores: Stores, parent: RunId) -> None:
        """Interrupt, resumable, what is driven here for ``parent`` alone, or for what was driven for it."""


class _Driven:
    """A run that is driven here, and for whom: the one that was asked for, and the ``leg`` that it is now."""

    def __init__(self, run_id: RunId) -> None:
        self.run_id = self.leg = run_id
        self.task: asyncio.Task[RunResult]
        self.parents: set[RunId] = set()
        self.has_begun = False
        self.has_place = False
        self.taking = asyncio.Lock()
        """Held by who waits for a place to go on."""
        self.rests = 0

    def needs_place(self) -> bool:
        """Whether it would go on, but has no place for it."""
        return not (self.has_place or self.rests or self.task.done())


class LocalDispatcher:
    """Executes runs as tasks of the running event loop, at most ``max_concurrency`` at a time."""

    def __init__(self, resume: Resume, max_concurrency: int = MAX_CONCURRENCY) -> None:
        if max_concurrency < 1:
            raise ValueError(f"max_concurrency is to be 1 or more, and is {max_concurrency}")
        self._resume = resume
        self._max_concurrency = max_concurrency
        self._places = asyncio.Semaphore(max_concurrency)
        self._driven: dict[tuple[Stores, RunId], _Driven] = {}
        self._driven_for: dict[tuple[Stores, RunId], set[RunId]] = {}
        """Which of these are driven for a run."""

    def submit(self, stores: Stores, run_id: RunId, parent: RunId) -> asyncio.Future[RunResult]:
        if self._is_above(stores, run_id, parent):
            # In memory they would wait for each other for ever. Parked, they can be told to stop.
            nothing: asyncio.Future[RunResult] = asyncio.get_running_loop().create_future()
            nothing.cancel()
            return nothing
        task = self.take_up(stores, run_id)
        driven = self._driven.get((stores, run_id))
        if driven is not None:
            self._link(stores, driven.run_id, parent)
        return task

    def take_up(self, stores: Stores, run_id: RunId) -> asyncio.Task[RunResult]:
        """Drive a run here when there is a place for it, unless it is driven here already."""
        driven = self._driven.get((stores, run_id))
        if driven is None:
            if not self._driven:
                # It belongs to the event loop in which somebody had to wait for it.
                self._places = asyncio.Semaphore(self._max_concurrency)
            driven = _Driven(run_id)
            driven.task = self._begin(run_id, partial(self._drive, driven, stores, run_id))
            self._driven[stores, run_id] = driven
            driven.task.add_done_callback(lambda _: self._ended(stores, run_id))
        return driven.task

    def _begin(self, run_id: RunId, drive: Drive) -> asyncio.Task[RunResult]:
        return asyncio.create_task(drive(), name=f"perdure-run-{run_id}")

    def _link(self, stores: Stores, run_id: RunId, parent: RunId) -> None:
        self._driven[stores, run_id].parents.add(parent)
        self._driven_for.setdefault((stores, parent), set()).add(run_id)

    def _unlink(self, stores: Stores, run_id: RunId, parent: RunId) -> None:
        self._driven[stores, run_id].parents.discard(parent)
        others = self._driven_for[stores, parent]
        others.discard(run_id)
        if not others:
            del self._driven_for[stores, parent]

    def _is_above(self, stores: Stores, run_id: RunId, of: RunId) -> bool:
        """Whether ``of`` is ``run_id``, or is driven for it, or for a run that is."""
        driven = self._driven.get((stores, of))
        parents = driven.parents if driven is not None else ()
        is_same = driven is not None and driven is self._driven.get((stores, run_id))
        return of == run_id or is_same or any(self._is_above(stores, run_id, parent) for parent in parents)

    async def _drive(self, driven: _Driven, stores: Stores, run_id: RunId) -> RunResult:
        await self._places.acquire()
        driven.has_begun = driven.has_place = True
        try:
            return await self._resume(stores, run_id)
        finally:
            if driven.has_place:
                self._places.release()

    @asynccontextmanager
    async def resting(self, stores: Stores, run_id: RunId) -> AsyncIterator[None]:
        driven = self._driven.get((stores, run_id))
        if driven is None or not driven.has_begun:
            yield
            return
        places = self._places
        # However many children a run waits for, it has one place to give.
        driven.rests += 1
        if driven.has_place:
            driven.has_place = False
            places.release()
        try:
            yield
        except BaseException:
            driven.rests -= 1
            # Who is to stop does not wait for a place: it may be held by the very run that this one stops.
            if not places.locked():
                await self._take_place(driven, places)
            raise
        driven.rests -= 1
        await self._take_place(driven, places)

    async def _take_place(self, driven: _Driven, places: asyncio.Semaphore) -> None:
        async with driven.taking:
            if not driven.needs_place():
                return
            await places.acquire()
            # Meanwhile another branch of its handler may have begun to wait for a child.
            driven.has_place = driven.needs_place()
            if not driven.has_place:
                places.release()

    def hand_on(self, stores: Stores, run_id: RunId, heir: RunId) -> None:
        driven = self._driven.get((stores, run_id))
        if driven is not None:
            self._forget_leg(stores, driven)
            driven.leg = heir
            self._driven[stores, heir] = driven
        for child in self._driven_for.pop((stores, run_id), ()):
            self._driven[stores, child].parents.discard(run_id)
            self._link(stores, child, heir)

    def _forget_leg(self, stores: Stores, driven: _Driven) -> None:
        """Know the run only by the id by which it was asked for: others may still ask so."""
        if driven.leg != driven.run_id:
            self._driven.pop((stores, driven.leg), None)

    async def withdraw(self, stores: Stores, parent: RunId) -> None:
        # Again and again: what is driven for somebody who ends just now is driven for ``parent`` then.
        while alone := self._alone(stores, parent):
            for task in alone:
                task.cancel()
            await asyncio.wait(alone)

    def _alone(self, stores: Stores, parent: RunId) -> list[asyncio.Task[RunResult]]:
        alone: list[asyncio.Task[RunResult]] = []
        for run_id in list(self._driven_for.get((stores, parent), ())):
            driven = self._driven[stores, run_id]
            if driven.parents == {parent}:
                alone.append(driven.task)
            else:
                self._unlink(stores, run_id, parent)
        return alone

    def _ended(self, stores: Stores, run_id: RunId) -> None:
        ended = self._driven[stores, run_id]
        self._forget_leg(stores, ended)
        for child in list(self._driven_for.get((stores, ended.leg), ())):
            self._unlink(stores, child, ended.leg)
            for parent in ended.parents:
                self._link(stores, child, parent)
        for parent in list(ended.parents):
            self._unlink(stores, run_id, parent)
        del self._driven[stores, run_id]
        if not ended.task.cancelled() and (error := ended.task.exception()) is not None:
            level = logging.DEBUG if is_driven_elsewhere(error) else logging.WARNING
            logging.getLogger("perdure").log(level, "run %s cannot be driven here: %s", run_id, error)


def is_driven_elsewhere(error: BaseException) -> bool:
    """Whether a run was not driven because somebody else does it."""
    return isinstance(error, PerdureError) and error.code in ("run_already_active", "claim_lost")
