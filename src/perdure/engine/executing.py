"""Executing one attempt of a run: what its handler is given, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

import msgspec

from perdure.engine.attempt import Completed, Failed, Halted, execute
from perdure.engine.attempts import OpenAttempt
from perdure.engine.children import Children
from perdure.engine.decide import PlannedRun, deadline_of, fail
from perdure.engine.legs import Legs
from perdure.engine.recorder import AttemptRecorder
from perdure.engine.replaying import ReplaySource
from perdure.engine.writer import RunWriter
from perdure.errors import Json
from perdure.ids import ArtifactId, RunId
from perdure.io.live import LiveIo
from perdure.io.replay import ReplayIo
from perdure.io.scope import AttemptScope, Stopped
from perdure.io.waits import wait_started
from perdure.io.world import World
from perdure.model.config import RunConfig
from perdure.model.context import Snapshot, StagedContext
from perdure.model.events import VALUE_PUBLISHED, DomainEvent, StateCompleted
from perdure.stores.ports import snapshot_blob
from perdure.stores.reading import read_snapshot

Outcome = Completed | Failed | Halted


class Hands(msgspec.Struct, frozen=True):
    """What the owner of a run has to execute its attempts with."""

    run_id: RunId
    writer: RunWriter
    plan: PlannedRun
    config: RunConfig
    world: World
    replay: ReplaySource | None
    children: Children
    legs: Legs

    async def read_snapshot(self, snapshot_id: ArtifactId) -> Snapshot:
        """A stored context; ``CorruptionError`` for what is none."""
        return await read_snapshot(self.world.stores.artifacts, snapshot_id)


class AttemptRun:
    """An attempt whose handler runs, from ``base``, in ``task``."""

    __slots__ = ("_hands", "_io", "attempt", "base", "meta", "rec", "scope")

    def __init__(
        self,
        hands: Hands,
        attempt: OpenAttempt,
        base: Snapshot,
        task: asyncio.Task[Any] | None,
        *,
        ran_before: bool,
    ) -> None:
        self._hands = hands
        self.attempt = attempt
        self.base = base
        self.scope = scope = AttemptScope(hands.run_id, attempt.state_id, attempt.attempt, task)
        self.meta = meta = hands.plan.metas[attempt.state_id]
        self.rec = rec = AttemptRecorder(
            scope.check,
            hands.config.event_profile,
            hands.writer.append,
            self._published if ran_before else None,
        )
        self._io = (
            self._replay_io(hands.replay)
            if hands.replay is not None
            else LiveIo(hands.world, scope, meta, rec)
        )

    def outcome(self) -> Coroutine[Any, Any, Outcome]:
        """Run the handler. Raises as :func:`execute`.

        Of an attempt that the run's deadline ended, it is known when the clock that decides has come to that.
        """
        hands, scope, world = self._hands, self.scope, self._hands.world
        state = hands.plan.nodes[scope.state_id].state
        ctx = StagedContext(self.base, scope.check)
        executing = execute(state, self.meta, ctx, self._io, self.rec, scope, world.clock, world.failpoints)
        view = hands.writer.view
        deadline = None if hands.config.timeout is None else deadline_of(view, hands.config)
        return executing if deadline is None or view.cancel is not None else self._until(deadline, executing)

    async def _until(self, deadline: int, executing: Awaitable[Outcome]) -> Outcome:
        clock = self._hands.world.clock
        seconds = max(0, deadline - clock.now_millis()) / 1000
        expiry = asyncio.get_running_loop().call_later(seconds, self.scope.stop, Stopped.EXPIRED)
        try:
            outcome = await executing
        finally:
            expiry.cancel()
        if isinstance(outcome, Halted) and outcome.why is Stopped.EXPIRED:
            await clock.sleep_until(deadline)
        return outcome

    def stage(self, outcome: Outcome) -> None:
        """Stage what the attempt came to. One that was stopped by a request is left for whoever decides."""
        hands, attempt, writer = self._hands, self.attempt, self._hands.writer
        if isinstance(outcome, Halted):
            if outcome.why is Stopped.PARKED:
                # The handler will say all of it again when it is run again.
                begun, parking = writer.waits, self.scope.parking.items()
                writer.stage([wait_started(wait) for key, wait in parking if begun.get(key) != wait])
                writer.stage_riding()
            else:
                self.stage_emitted()
            return
        self.stage_emitted()
        snapshot = outcome.snapshot
        blobs = [] if snapshot is None or snapshot is self.base else [snapshot_blob(snapshot)]
        if isinstance(outcome, Completed):
            writer.stage((StateCompleted(attempt.state_id, outcome.snapshot.id),), blobs)
            return
        failure_id = None if snapshot is None else snapshot.id
        now = hands.world.clock.now_millis()
        policy = hands.plan.retry_policy(attempt.state_id)
        events = fail(writer.view, attempt, outcome.info, failure_id, policy, now, outcome.retry_after)
        writer.stage(events, blobs)

    def stage_emitted(self) -> None:
        """Stage what the attempt has to say besides how it ended: its readings, events and artifacts."""
        self._hands.writer.stage_riding()
        events, blobs = self.rec.events, self.rec.blobs
        if events or blobs:
            self.rec.events, self.rec.blobs = [], []
            self._hands.writer.stage(events, blobs)

    def _replay_io(self, replay: ReplaySource) -> ReplayIo:
        hands, scope = self._hands, self.scope
        attempt = replay.attempts.get(scope.state_id, scope.attempt)
        retryable = hands.config.replay_missing_fact_retryable
        return replay.io(scope, hands.world.stores, attempt, self.meta, missing_fact_retryable=retryable)

    async def _published(self) -> list[Json]:
        """What was published before the run was parked. Recovery does not read that."""
        hands = self._hands
        stored = await hands.world.stores.events.read_range(hands.run_id, self.attempt.entered_seq)
        events = (envelope.event for envelope in stored)
        return [
            each.payload for each in events if isinstance(each, DomainEvent) and each.name == VALUE_PUBLISHED
        ]
