"""The one loop behind start and resume: decide, stage, flush, act."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from perdure.canonical import CanonicalJsonError
from perdure.clock import Clock
from perdure.engine.attempt import Completed, Halted, execute
from perdure.engine.children import Children
from perdure.engine.decide import Pause, PlannedRun, Run, Stop, deadline_of, decide, fail
from perdure.engine.history import ATTEMPT_INTERRUPTED, OpenAttempt
from perdure.engine.legs import Legs
from perdure.engine.letters import LetterWatch, receive
from perdure.engine.recorder import AttemptRecorder
from perdure.engine.replaying import ReplaySource
from perdure.engine.starting import Beginning
from perdure.engine.writer import RunWriter
from perdure.errors import CorruptionError, ErrorCategory, ErrorInfo, Json, StorageError
from perdure.failpoints import Failpoints, FailpointStop
from perdure.ids import ArtifactId, RunId
from perdure.io.journal import Entry
from perdure.io.live import LiveIo
from perdure.io.port import TransportFactory
from perdure.io.replay import ReplayIo
from perdure.io.router import TransportRouter
from perdure.io.scope import AttemptScope, Stopped
from perdure.io.waits import wait_started
from perdure.model.config import RunConfig
from perdure.model.context import Snapshot, StagedContext
from perdure.model.events import (
    VALUE_PUBLISHED,
    DomainEvent,
    RunCompleted,
    StateCompleted,
)
from perdure.model.meta import StateMeta
from perdure.secrets import SecretResolver
from perdure.stores.bundle import Stores
from perdure.stores.ports import Letter, Release, snapshot_blob
from perdure.stores.reading import read_json


class Stint:
    """One owner's work on one run, from its claim to the end of the run or of the owner."""

    def __init__(
        self,
        stores: Stores,
        run_id: RunId,
        writer: RunWriter,
        plan: PlannedRun,
        config: RunConfig,
        transports: TransportFactory | None,
        secrets: SecretResolver,
        clock: Clock,
        failpoints: Failpoints,
        replay: ReplaySource | None,
        letters: LetterWatch,
        park_after: timedelta,
        children: Children,
        legs: Legs,
    ) -> None:
        self.legs = legs
        self._children = children
        self._ends: dict[RunId, RunCompleted | None] = {}
        self._stores = stores
        self._run_id = run_id
        self._writer = writer
        self._view = writer.view
        self._plan = plan
        self._config = config
        self._transports = transports if transports is not None else TransportRouter()
        self._secrets = secrets
        self._clock = clock
        self._failpoints = failpoints
        self._replay = replay
        self._letters = letters
        self._park_after = park_after
        self._park_after_millis = park_after // timedelta(milliseconds=1)
        self._mail: asyncio.Future[None] | None = None
        self._has_mail = False
        self._reading: asyncio.Task[None] | None = None
        self._scope: AttemptScope | None = None
        self.waiting: Pause | None = None
        """What the run waits for, once it is parked."""
        self._snapshot: Snapshot | None = None
        self._recorder: AttemptRecorder | None = None

    def begin(self, beginning: Beginning) -> None:
        """Stage the first events of a new run, and its context."""
        self._writer.stage((beginning.started, *beginning.events), beginning.blobs)
        self._snapshot = beginning.snapshot

    def know(self, snapshot: Snapshot) -> None:
        """Spare reading ``snapshot`` if it is where the run stands."""
        self._snapshot = snapshot

    async def leave(self) -> None:
        """Write what is staged and give the run up to whoever resumes it."""
        await self._writer.flush(release=Release())

    async def drive(self, *, runs_handlers: bool = True, has_mail: bool = False) -> None:
        """Take steps until the run ends or is parked; without ``runs_handlers`` only as far as those."""
        self._has_mail = has_mail
        self._children.runs_handlers = runs_handlers
        self._letters.watch(self._run_id, self._told_of_mail)
        try:
            await self._take_steps(runs_handlers)
        except (asyncio.CancelledError, KeyboardInterrupt):
            try:
                await self._interrupt()
            except StorageError as error:
                # The attempt stays open, and is recovered as an orphan.
                logging.getLogger("perdure").warning("run %s: %s", self._run_id, error)
            raise
        finally:
            self._letters.leave(self._run_id)

    async def _take_steps(self, runs_handlers: bool) -> None:
        place = 0
        while True:
            if self._has_mail:
                self._has_mail = False
                letters = await self._stores.mailbox.unread(self._run_id)
                heard = receive(self._view, letters)
                self._writer.stage(heard.events, heard.blobs, heard.read)
                place = 0
            if self._children.has_news:
                await self._writer.flush()
                await self._children.pass_down()
            now = self._clock.now_millis()
            step = decide(self._view, self._plan, self._config, now, place, self._ends)
            place = step.place
            if isinstance(step.then, Run) and not runs_handlers:
                await self.leave()
                return
            if isinstance(step.then, Stop) and self._children.to_part_from:
                # They are not told of an end that a crash could take back.
                await self._writer.flush()
                await self._children.part()
            self._writer.stage(step.events, step.blobs)
            if isinstance(step.then, Stop):
                await self._writer.flush(release=Release())
                return
            if isinstance(step.then, Pause):
                until = step.then.until_millis
                if step.then.awaits and await self._look_after(step.then):
                    continue
                now = self._clock.now_millis()
                if not runs_handlers or until is None or until - now > self._park_after_millis:
                    self.waiting = step.then
                    await self._writer.flush(release=Release(until, step.then.awaits))
                    return
                await self._writer.flush()
                await self._until_due_or_mail(until)
            elif isinstance(step.then, Run):
                await self._writer.flush()
                await self._attempt(step.then.attempt)
                if self.legs.next is not None:
                    return

    def _told_of_mail(self) -> None:
        self._has_mail = True
        if self._reading is None and self._scope is not None:
            self._reading = asyncio.create_task(self._hear(self._scope))
        if self._mail is not None and not self._mail.done():
            self._mail.set_result(None)

    async def _hear(self, scope: AttemptScope) -> None:
        """Turn letters into events while a handler runs, and stop it if that is what they ask for."""
        self._has_mail = False
        try:
            letters = await self._stores.mailbox.unread(self._run_id)
            await self._writer.append(lambda: self._heard(letters))
            # First the handler, so that it spawns no more children that nobody would tell.
            self._stop_if_told(scope)
            await self._children.pass_down()
        except (Exception, FailpointStop) as error:  # noqa: BLE001 — it ends the stint, where it is raised
            # Whatever the handler is doing, it may no longer act for the run.
            scope.fatal = error
            scope.stop(Stopped.TERMINATED)
        finally:
            self._reading = None

    def _stop_if_told(self, scope: AttemptScope) -> None:
        cancel = self._view.cancel
        if cancel is not None and cancel.terminates:
            scope.stop(Stopped.TERMINATED)
        elif cancel is not None and scope.state_id not in self._plan.cleanup_ids:
            scope.stop(Stopped.CANCELLED)

    def _heard(self, letters: Sequence[Letter]) -> Entry:
        entry = receive(self._view, letters, while_running=True)
        # What cannot be said yet is read again when the handler has ended.
        self._has_mail = self._has_mail or len(entry.read) < len(letters)
        return entry

    async def _look_after(self, pause: Pause) -> bool:
        """Have the runs driven that are awaited; whether there is anything new to decide upon."""
        ends = await self._children.ends_of(pause.awaits)
        if not ends:
            await self._writer.flush()
            following = asyncio.ensure_future(
                self._children.follow_many(pause.awaits, until_all=pause.awaits_all)
            )
            await self._until_due_or_mail(pause.until_millis, following)
            if self._has_mail:
                return True
            ends = await self._children.ends_of(pause.awaits)
        self._ends |= ends
        return bool(ends)

    async def _until_due_or_mail(
        self, due_millis: int | None, other: asyncio.Future[bool] | None = None
    ) -> None:
        """Wait until a moment, or until a letter comes, or ``other`` is done, which ends with the waiting."""
        self._mail = asyncio.get_running_loop().create_future()
        waiting: list[asyncio.Future[Any]] = [self._mail]
        if due_millis is not None:
            waiting.append(asyncio.ensure_future(self._clock.sleep_until(due_millis)))
        if other is not None:
            waiting.append(other)
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._mail = None
            for each in waiting:
                each.cancel()

    async def _attempt(self, attempt: OpenAttempt) -> None:
        base = await self._base(attempt.base_snapshot_id)
        scope = AttemptScope(self._run_id, attempt.state_id, attempt.attempt)
        state = self._plan.nodes[attempt.state_id].state
        self._recorder = rec = AttemptRecorder(
            scope.check,
            self._config.event_profile,
            self._writer.append,
            partial(self._published_in, attempt) if self._view.head_seq > attempt.entered_seq else None,
        )
        meta = self._plan.metas[attempt.state_id]
        io = self._io(scope, meta, rec)
        ctx = StagedContext(base, scope.check)
        self._scope = scope
        deadline = None if self._view.cancel is not None else deadline_of(self._view, self._config)
        expiry = None
        if deadline is not None:
            seconds = max(0, deadline - self._clock.now_millis()) / 1000
            expiry = asyncio.get_running_loop().call_later(seconds, scope.stop, Stopped.EXPIRED)
        try:
            outcome = await execute(state, meta, ctx, io, rec, scope, self._clock, self._failpoints)
        finally:
            self._scope = None
            if expiry is not None:
                expiry.cancel()
            if self._reading is not None:
                await asyncio.wait({self._reading})
            await self._writer.quiet()
        if scope.fatal is not None:
            raise scope.fatal

        if isinstance(outcome, Halted):
            if outcome.why is Stopped.PARKED:
                # The handler will say all of it again when it is run again.
                self._recorder = None
                begun, parking = self._view.waits, scope.parking.items()
                self._writer.stage([wait_started(wait) for key, wait in parking if begun.get(key) != wait])
            elif outcome.why is Stopped.EXPIRED and deadline is not None:
                # The loop's clock may be a little ahead of the one that decides.
                await self._clock.sleep_until(deadline)
            self._stage_emitted()
            return
        self._stage_emitted()
        if isinstance(outcome, Completed) and outcome.continuation is not None:
            left = await self.legs.go_on(attempt, outcome, outcome.continuation)
            if left is None:
                return
            outcome = left
        snapshot = outcome.snapshot
        blobs = []
        if snapshot is not None and snapshot is not base:
            blobs.append(snapshot_blob(snapshot))
        if isinstance(outcome, Completed):
            self._writer.stage((StateCompleted(attempt.state_id, outcome.snapshot.id),), blobs)
            self._snapshot = outcome.snapshot
        else:
            failure_id = None if snapshot is None else snapshot.id
            now = self._clock.now_millis()
            policy = self._plan.retry_policy(attempt.state_id)
            events = fail(self._view, attempt, outcome.info, failure_id, policy, now, outcome.retry_after)
            self._writer.stage(events, blobs)

    async def _published_in(self, attempt: OpenAttempt) -> list[Json]:
        """What the attempt's handler published before the run was parked. Recovery does not read that."""
        stored = await self._stores.events.read_range(self._run_id, attempt.entered_seq)
        events = (envelope.event for envelope in stored)
        return [
            each.payload for each in events if isinstance(each, DomainEvent) and each.name == VALUE_PUBLISHED
        ]

    async def _interrupt(self) -> None:
        """Close what is open, so that the run can be resumed at once."""
        if self._writer.is_released:
            return
        for attempt in list(self._view.open_attempts.values()):
            self._stage_emitted()
            info = ErrorInfo(
                ATTEMPT_INTERRUPTED, ErrorCategory.UNKNOWN, True, "the run's owner was asked to stop"
            )
            now = self._clock.now_millis()
            policy = self._plan.retry_policy(attempt.state_id)
            self._writer.stage(fail(self._view, attempt, info, None, policy, now)[:1])
        await self.leave()

    def _stage_emitted(self) -> None:
        """Stage what the attempt has to say besides how it ended: its readings, events and artifacts."""
        self._writer.stage_riding()
        rec, self._recorder = self._recorder, None
        if rec is not None and (rec.events or rec.blobs):
            self._writer.stage(rec.events, rec.blobs)

    def _io(self, scope: AttemptScope, meta: StateMeta, rec: AttemptRecorder) -> LiveIo | ReplayIo:
        if self._replay is not None:
            attempt = self._replay.attempts.get(scope.state_id, scope.attempt)
            retryable = self._config.replay_missing_fact_retryable
            return self._replay.io(scope, self._stores, attempt, meta, missing_fact_retryable=retryable)

        return LiveIo(
            scope,
            self._stores,
            self._writer,
            TransportRouter.around(self._transports).make,
            self._secrets,
            self._clock,
            self._failpoints,
            meta,
            self._park_after,
            rec.publish,
            self._children,
        )

    async def _base(self, snapshot_id: ArtifactId) -> Snapshot:
        if self._snapshot is None or self._snapshot.id != snapshot_id:
            _, data = await read_json(self._stores.artifacts, snapshot_id)
            try:
                self._snapshot = Snapshot.of_canonical(data)
            except CanonicalJsonError:
                raise CorruptionError.of(
                    "context_not_an_object",
                    "the context's snapshot is not a JSON object",
                    details={"artifact_id": snapshot_id},
                ) from None
        return self._snapshot
