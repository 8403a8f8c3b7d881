"""The one loop behind start and resume: decide, stage, flush, act."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import msgspec

from perdure.canonical import CanonicalJsonError
from perdure.clock import Clock
from perdure.engine.attempt import Completed, execute
from perdure.engine.decide import PlannedRun, Run, Sleep, Stop, decide, fail
from perdure.engine.history import ATTEMPT_INTERRUPTED, OpenAttempt, RunView
from perdure.engine.recorder import AttemptRecorder
from perdure.engine.writer import RunWriter
from perdure.errors import CorruptionError, ErrorCategory, ErrorInfo, StorageError
from perdure.failpoints import Failpoints
from perdure.ids import ArtifactId, RunId
from perdure.io.facts import FactBinding, recorded_attempts
from perdure.io.live import AttemptScope, LiveIo
from perdure.io.port import TransportFactory
from perdure.io.replay import ReplayIo
from perdure.io.router import TransportRouter
from perdure.model.config import RunConfig
from perdure.model.context import Snapshot, StagedContext
from perdure.model.events import ArtifactKind, RunStarted, StateCompleted
from perdure.secrets import SecretResolver
from perdure.stores.bundle import Stores
from perdure.stores.ports import Blob, Release, RopeBlob
from perdure.stores.reading import read_json


class ReplaySource(msgspec.Struct, frozen=True):
    """Where a replayed run's answers come from: a recorded run's facts and attempt numbers."""

    facts: Mapping[str, FactBinding]
    run_id: RunId
    attempts: Mapping[str, int]

    @classmethod
    def of_view(cls, view: RunView, run_id: RunId) -> ReplaySource:
        """The source that ``run_id``'s history is.

        A state's readings are those of the attempt that completed, of its last one where none did.
        """
        recorded = recorded_attempts(view.facts, run_id)
        attempts = dict(recorded.last_attempts)
        for state_id, progress in view.states.items():
            completed = progress.completed_attempt
            attempts[state_id] = progress.last_attempt if completed is None else completed
        return cls(dict(view.facts), recorded.run_id, attempts)


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
    ) -> None:
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
        self._snapshot: Snapshot | None = None
        self._recorder: AttemptRecorder | None = None

    def begin(self, started: RunStarted, initial: Snapshot) -> None:
        """Stage the first event of a new run, and its context."""
        self._writer.stage((started,), (_blob_of(initial),))
        self._snapshot = initial

    async def leave(self) -> None:
        """Write what is staged and give the run up to whoever resumes it."""
        await self._writer.flush(release=Release())

    async def drive(self) -> None:
        """Take steps until the run ends."""
        try:
            await self._take_steps()
        except (asyncio.CancelledError, KeyboardInterrupt):
            try:
                await self._interrupt()
            except StorageError as error:
                # The attempt stays open, and is recovered as an orphan.
                logging.getLogger("perdure").warning("run %s: %s", self._run_id, error)
            raise

    async def _take_steps(self) -> None:
        place = 0
        while True:
            step = decide(self._view, self._plan, self._config, self._clock.now_millis(), place)
            place = step.place
            self._writer.stage(step.events)
            if isinstance(step.then, Stop):
                await self._writer.flush(release=Release())
                return
            if isinstance(step.then, Sleep):
                await self._writer.flush()
                await self._clock.sleep_until(step.then.until_millis)
            elif isinstance(step.then, Run):
                await self._writer.flush()
                await self._attempt(step.then.attempt)

    async def _attempt(self, attempt: OpenAttempt) -> None:
        base = await self._base(attempt.base_snapshot_id)
        scope = AttemptScope(self._run_id, attempt.state_id, attempt.attempt)
        io = self._io(scope)
        self._recorder = rec = AttemptRecorder(scope.check, self._config.event_profile)
        ctx = StagedContext(base, scope.check)
        state = self._plan.nodes[attempt.state_id].state
        outcome = await execute(state, ctx, io, rec, scope, self._clock, self._failpoints)

        self._stage_emitted()
        snapshot = outcome.snapshot
        blobs = []
        if snapshot is not None and snapshot is not base:
            blobs.append(_blob_of(snapshot))
        if isinstance(outcome, Completed):
            self._writer.stage((StateCompleted(attempt.state_id, outcome.snapshot.id),), blobs)
            self._snapshot = outcome.snapshot
        else:
            failure_id = None if snapshot is None else snapshot.id
            now = self._clock.now_millis()
            policy = self._plan.retry_policies[attempt.state_id]
            events = fail(self._view, attempt, outcome.info, failure_id, policy, now, outcome.retry_after)
            self._writer.stage(events, blobs)

    async def _interrupt(self) -> None:
        """Close what is open, so that the run can be resumed at once."""
        for attempt in list(self._view.open_attempts.values()):
            self._stage_emitted()
            info = ErrorInfo(
                ATTEMPT_INTERRUPTED, ErrorCategory.UNKNOWN, True, "the run's owner was asked to stop"
            )
            now = self._clock.now_millis()
            policy = self._plan.retry_policies[attempt.state_id]
            self._writer.stage(fail(self._view, attempt, info, None, policy, now)[:1])
        await self.leave()

    def _stage_emitted(self) -> None:
        """Stage what the attempt has to say besides how it ended: its readings, events and artifacts."""
        self._writer.stage_riding()
        if self._recorder is not None:
            self._writer.stage(self._recorder.events, self._recorder.blobs)
            self._recorder = None

    def _io(self, scope: AttemptScope) -> LiveIo | ReplayIo:
        if self._replay is not None:
            attempt = self._replay.attempts.get(scope.state_id, scope.attempt)
            return ReplayIo(
                scope,
                self._stores,
                self._replay.facts,
                self._replay.run_id,
                attempt,
                self._config.replay_missing_fact_retryable,
            )

        return LiveIo(
            scope,
            self._stores,
            self._writer,
            TransportRouter.around(self._transports).make,
            self._secrets,
            self._clock,
            self._failpoints,
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


def _blob_of(snapshot: Snapshot) -> Blob:
    kind = ArtifactKind.CONTEXT_SNAPSHOT
    if snapshot.rope is None:
        return Blob(kind, snapshot.data, snapshot.id)
    return RopeBlob(kind, snapshot.rope)
