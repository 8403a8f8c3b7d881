"""Waiting for news of runs: told in this process, looked for in others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from perdure.engine.recovery import read_view
from perdure.engine.results import RunResult
from perdure.ids import RunId
from perdure.model.events import EventEnvelope, RunCompleted
from perdure.sdk.checks import expect, refuse_call
from perdure.sdk.driven import DrivenRuns
from perdure.sdk.finding import existing_events
from perdure.sdk.refusals import client_closed
from perdure.sdk.waking import POLL_SECONDS
from perdure.stores.bundle import Stores
from perdure.stores.refusals import run_not_found

_SEQ_BITS = 62
"""No event has a larger number; stores count with signed numbers of 64 bits."""


class Watcher:
    """Waits for what becomes of runs, for a client that drives some of them.

    With ``closes_stores`` nothing can be read any more when the client has been closed.
    """

    def __init__(self, stores: Stores, driven: DrivenRuns, *, closes_stores: bool) -> None:
        self._stores = stores
        self._driven = driven
        self._closes_stores = closes_stores
        self._changed: dict[RunId, asyncio.Event] = {}

    def notify(self, run_id: RunId) -> None:
        """Say that there is news of a run."""
        changed = self._changed.pop(run_id, None)
        if changed is not None:
            changed.set()

    def notify_all(self) -> None:
        """Have everybody look who waits."""
        for run_id in list(self._changed):
            self.notify(run_id)

    async def wait(self, run_id: RunId) -> RunResult:
        """As ``Client.wait``."""
        seen = -1
        asked = run_id = RunId(run_id)
        while True:
            task = self._driven.tasks.get(run_id)
            if task is not None:
                await asyncio.wait({task})
                if task.cancelled():
                    raise client_closed(run_id)
            self._refuse_closed_stores(run_id)
            # A run may wait for a month; its history is read again only when it has grown.
            head = await self._stores.events.head_seq(run_id)
            if head != seen:
                seen = head
                view = await read_view(self._stores, run_id)
                if not view.head_seq:
                    raise run_not_found(run_id)
                if view.ended is not None:
                    newest = await self._stores.newest_leg(run_id)
                    if newest == run_id:
                        return RunResult(run_id, view.phase, view.ended.final_snapshot_id)
                    run_id, seen = newest, -1
                    continue
            for each in (run_id, asked):
                if each in self._driven.failures:
                    raise self._driven.failures[each]
            await self._change(run_id)

    async def events_of(self, run_id: RunId, after: int) -> AsyncIterator[EventEnvelope]:
        """As ``Client.events_of``."""
        run_id = RunId(run_id)
        expect(after, int, "events(after=…)", "the number of an event")
        if after.bit_length() > _SEQ_BITS:
            refuse_call(after, "events(after=…)", "the number of an event")
        self._refuse_closed_stores(run_id)
        await existing_events(self._stores, run_id, after + 1)
        view = await read_view(self._stores, run_id)
        if view.ended is not None and view.head_seq <= after:
            return
        while True:
            changed = self._changed.setdefault(run_id, asyncio.Event())
            for envelope in await self._stores.events.read_range(run_id, after + 1):
                after = envelope.seq
                yield envelope
                if isinstance(envelope.event, RunCompleted):
                    return
            await self._change(run_id, changed)

    async def _change(self, run_id: RunId, changed: asyncio.Event | None = None) -> None:
        if self._driven.is_closed:
            raise client_closed(run_id)
        changed = changed or self._changed.setdefault(run_id, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), POLL_SECONDS)
        self._refuse_closed_stores(run_id)

    def _refuse_closed_stores(self, run_id: RunId) -> None:
        if self._driven.is_closed and self._closes_stores:
            raise client_closed(run_id)
