"""Waiting, in a live attempt: in the process for what is near, parked for everything else."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from perdure.clock import Clock
from perdure.ids import ArtifactId, RunId
from perdure.io.journal import Entry, Journal
from perdure.io.scope import AttemptScope, Pulse, Stopped
from perdure.io.storing import append
from perdure.io.waits import (
    CHILD,
    EFFECT_IN_DOUBT,
    NOTHING,
    SIGNAL,
    SLEEP,
    Wait,
    answer_to,
    wait_key,
    wait_started,
)

_LOOKS_AGAIN_SECONDS = 60.0
"""How soon an item that waits looks at the clock again, which may have been set."""


class LiveWaits:
    """The waits of one attempt. A wait that ends further away than ``park_after`` parks the run."""

    def __init__(
        self, scope: AttemptScope, journal: Journal, clock: Clock, park_after: timedelta, pulse: Pulse
    ) -> None:
        self._scope = scope
        self._pulse = pulse
        self._journal = journal
        self._clock = clock
        self._park_after_millis = park_after // timedelta(milliseconds=1)
        self._begun: set[str] = set()

    async def sleep_until(self, due_millis: int | None, name: str | None, after_millis: int = 0) -> None:
        """Wait for a moment; without ``due_millis`` for ``after_millis`` from now on, once begun."""
        due = self._clock.now_millis() + after_millis if due_millis is None else due_millis
        await self._end_of(self._wait(name, SLEEP, due))

    async def signal(self, names: tuple[str, ...], name: str | None, limit_millis: int | None) -> ArtifactId:
        """Wait for the first signal of these names; the payload's id, that of null if time ran out."""
        until = None if limit_millis is None else self._clock.now_millis() + limit_millis
        return await self._end_of(self._wait(name, SIGNAL, until, names))

    async def settlement(self, effect_key: str, intents: int) -> None:
        """Wait until somebody says what became of an effect in doubt."""
        name = f"{EFFECT_IN_DOUBT}:{effect_key}#{intents}"
        await self._end_of(self._wait(name, EFFECT_IN_DOUBT, None, (), effect_key))

    async def child(self, run_id: RunId) -> None:
        """Wait until a run has ended that is not executed here."""
        await self._end_of(self._wait(f"{CHILD}:{run_id}", CHILD, None, child_run_id=run_id))

    def _wait(
        self,
        name: str | None,
        kind: str,
        until_millis: int | None,
        signals: tuple[str, ...] = (),
        effect: str | None = None,
        child_run_id: RunId | None = None,
    ) -> Wait:
        """The wait as it was begun first, by this attempt or an earlier one, else a new one."""
        self._scope.check()
        place = self._scope.place
        if name is None:
            key = wait_key(place.key, place.waits)
            place.waits += 1
        else:
            key = wait_key(place.key, name)
        self._scope.reach(key)
        begun = self._journal.waits.get(key)
        if begun is not None:
            until_millis = begun.until_millis
        scope = self._scope
        return Wait(scope.state_id, scope.attempt, key, kind, until_millis, signals, effect, child_run_id)

    async def _end_of(self, wait: Wait) -> ArtifactId:
        while (bound := self._journal.facts.get(wait.key)) is None:
            if self._next_of(wait).events:
                await append(self._scope, self._journal, lambda: self._next_of(wait))
                self._begun.add(wait.key)
            elif wait.until_millis is None or self._is_far(wait.until_millis):
                await self._park(wait)
            else:
                await self._until_due_or_news(wait.until_millis)
        return bound.payload_id

    def _next_of(self, wait: Wait) -> Entry:
        """What is to be written of ``wait`` now: that it begins, how it ended, both, or nothing."""
        self._scope.check()
        journal = self._journal
        if wait.key in journal.facts:
            return Entry()
        # Two different waits of one name, at once, are one: the first to begin says what it waits for.
        has_begun = wait.key in self._begun or journal.waits.get(wait.key) == wait
        begins = [] if has_begun else [wait_started(wait)]
        answer = answer_to(wait, journal.inbox, journal.effects, self._clock.now_millis())
        if answer is not None:
            return Entry([*begins, answer], [NOTHING])
        # What parks the run is begun when the run is parked.
        return Entry() if wait.until_millis is None or self._is_far(wait.until_millis) else Entry(begins)

    def _is_far(self, due_millis: int) -> bool:
        return due_millis - self._clock.now_millis() > self._park_after_millis

    async def _park(self, wait: Wait) -> None:
        """Have the attempt parked. An item returns when there is news, for others may go on for long."""
        scope, place = self._scope, self._scope.place
        if not place.is_item:
            await scope.park(wait)
        scope.parking[wait.key] = wait
        quiet = asyncio.ensure_future(scope.quiet())
        news = asyncio.ensure_future(self._journal.news())
        try:
            with place.resting(), self._pulse:
                # By the loop's clock, which a test's does not make jump: what can be parked is.
                limit = self._seconds_until(wait.until_millis)
                await asyncio.wait({quiet, news}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
                if quiet.done() and not news.done():
                    scope.stop(Stopped.PARKED)
                    await asyncio.get_running_loop().create_future()
        finally:
            quiet.cancel()
            news.cancel()
            if scope.stopped is None:
                del scope.parking[wait.key]

    def _seconds_until(self, due_millis: int | None) -> float:
        if due_millis is None:
            return _LOOKS_AGAIN_SECONDS
        return min(_LOOKS_AGAIN_SECONDS, max(0, due_millis - self._clock.now_millis()) / 1000)

    async def _until_due_or_news(self, due_millis: int) -> None:
        due = asyncio.ensure_future(self._clock.sleep_until(due_millis))
        news = asyncio.ensure_future(self._journal.news())
        try:
            with self._pulse:
                await asyncio.wait({due, news}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            due.cancel()
            news.cancel()
