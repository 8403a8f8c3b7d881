"""Spawning child runs and awaiting them, in a live attempt."""

from __future__ import annotations

from typing import Protocol

import msgspec

from perdure.canonical import encode
from perdure.errors import (
    ConcurrencyError,
    CorruptionError,
    IoError,
    Json,
    NotFoundError,
    PerdureError,
    StorageError,
)
from perdure.ids import ArtifactId, FactKey, RunId
from perdure.io.asking import answer_bytes
from perdure.io.children import (
    SPAWN,
    PlannedChild,
    await_answer,
    await_request,
    child_run_completed,
    child_run_spawned,
    planned_child,
    spawn_answer,
)
from perdure.io.facts import fact_event
from perdure.io.journal import Entry, Journal
from perdure.io.live_waits import LiveWaits
from perdure.io.scope import AttemptScope, Pulse
from perdure.model.events import ArtifactKind, RunCompleted, RunStarted, RunStatus
from perdure.model.handler import IoCall, IoResult
from perdure.stores.bundle import Stores
from perdure.stores.legs import end_of
from perdure.stores.ports import Append, Blob, snapshot_blob
from perdure.stores.reading import read_json


class ChildRuns(Protocol):
    """What an attempt needs of the engine for the children of its run."""

    def checked_start(self, child: PlannedChild) -> RunStarted:
        """The first event of ``child``; ``IoError`` if it cannot be planned, or lies too deep."""

    def is_linked(self, run_id: RunId) -> bool:
        """Whether the run's history says that it has spawned the child."""

    def submit(self, run_id: RunId) -> None:
        """Have a child driven, sometime soon."""

    def is_driven(self, run_id: RunId, manifest_id: ArtifactId) -> bool:
        """Whether a child with this manifest is being driven here, or was to its end."""

    async def follow(self, run_id: RunId) -> RunCompleted | None:
        """Have a child driven, and wait while this process does; how it ended, if it has.

        A child of a version that nobody here knows is left to others. ``IoError`` (``child_run_task_failed``)
        if it cannot be driven here for another reason.
        """

    async def failure_of(self, run_id: RunId) -> tuple[str, str | None]:
        """The code of the error that ended a child, and the state it is about."""


class LiveChildren:
    """The child runs of one attempt."""

    def __init__(
        self,
        scope: AttemptScope,
        stores: Stores,
        journal: Journal,
        waits: LiveWaits,
        runs: ChildRuns,
        pulse: Pulse,
    ) -> None:
        self._scope = scope
        self._stores = stores
        self._journal = journal
        self._waits = waits
        self._runs = runs
        self._pulse = pulse

    async def call(self, call: IoCall, key: FactKey, request_id: str) -> IoResult:
        """Answer ``call``, which is one about child runs, and record the answer under ``key``."""
        if call.namespace == SPAWN:
            return await self._spawn(call, key, request_id)
        return await self._await(call, key, request_id)

    async def spawned_before(self, call: IoCall, key: FactKey, answer: Json) -> None:
        """See that a child whose spawn is on record is linked: a history may break off between the two."""
        parent, child_run_id = self._scope.run_id, RunId(answer["child_run_id"])
        # What a fork has copied is another run's child, and stays so.
        if child_run_id == parent.child(key) and not self._runs.is_linked(child_run_id):
            link = child_run_spawned(parent, planned_child(parent, key, call.request))
            with self._scope:
                await self._record(key, Entry([link]))

    async def _spawn(self, call: IoCall, key: FactKey, request_id: str) -> IoResult:
        parent = self._scope.run_id
        child = planned_child(parent, key, call.request)
        started = self._runs.checked_start(child)
        answer = spawn_answer(parent, child)
        payload = Blob(ArtifactKind.FACT_PAYLOAD, encode(answer))  # ids alone, which hold no secret
        events = [fact_event(key, payload.id, request_id), child_run_spawned(parent, child)]
        new = Entry(
            events,
            [payload, child.manifest_blob, snapshot_blob(child.initial)],
            begun=[Append(child.run_id, 0, [started])],
        )
        with self._scope:
            try:
                await self._journal.add(key, new)
            except ConcurrencyError as error:
                # Somebody may have written the child before, which is rare: nobody looks first.
                if not await self._is_there(child):
                    self._scope.fatal = error
                    raise
                await self._record(key, Entry(events, [payload]))
        self._runs.submit(child.run_id)
        return IoResult(msgspec.json.decode(payload.data), payload.id)

    async def _await(self, call: IoCall, key: FactKey, request_id: str) -> IoResult:
        request = await_request(call.request)
        run_id, manifest_id = request.child_run_id, request.child_manifest_id
        end = None
        if not self._runs.is_driven(run_id, manifest_id):
            end = await self._end_of(run_id, manifest_id)
        while end is None:
            self._scope.check()
            with self._scope, self._pulse:
                end = await self._runs.follow(run_id)
            if end is None:
                await self._waits.child(run_id)
                end = await self._end_of(run_id, manifest_id)
        answer = await self._answer(run_id, end)
        payload = Blob(ArtifactKind.FACT_PAYLOAD, answer_bytes(answer))
        with self._scope:
            bound = fact_event(key, payload.id, request_id)
            await self._record(key, Entry([child_run_completed(run_id, end), bound], [payload]))
        return IoResult(msgspec.json.decode(payload.data), payload.id)

    async def _is_there(self, child: PlannedChild) -> bool:
        """Whether the child was begun before, as it is planned (``child_run_conflict`` if otherwise)."""
        first = await self._stores.events.read_range(child.run_id, 1, 1)
        if not first:
            return False
        started = first[0].event
        if (
            not isinstance(started, RunStarted)
            or started.manifest_id != child.manifest_blob.id
            or started.initial_snapshot_id != child.initial.id
        ):
            raise IoError.of(
                "child_run_conflict",
                "a run of the child's id exists that was started otherwise",
                details={"child_run_id": child.run_id},
            )
        return True

    async def _end_of(self, run_id: RunId, manifest_id: ArtifactId) -> RunCompleted | None:
        self._scope.check()
        try:
            first = await self._stores.events.read_range(run_id, 1, 1)
            end = await end_of(self._stores.events, run_id)
        except StorageError as error:
            raise _unreadable(run_id, error) from error
        if not first:
            raise IoError.of(
                "child_run_missing_after_spawn",
                "the child run that is awaited does not exist",
                details={"child_run_id": run_id},
            )
        started = first[0].event
        if not isinstance(started, RunStarted) or started.manifest_id != manifest_id:
            raise IoError.of(
                "child_run_manifest_id_mismatch",
                "the child run that is awaited has another manifest",
                details={"child_run_id": run_id},
            )
        return end

    async def _answer(self, run_id: RunId, end: RunCompleted) -> Json:
        try:
            snapshot: Json = None
            if end.final_snapshot_id is not None:
                snapshot, _ = await read_json(self._stores.artifacts, end.final_snapshot_id)
            error: Json = None
            if end.status is not RunStatus.COMPLETED:
                code, state_id = await self._runs.failure_of(run_id)
                error = {"code": code, "state_id": state_id}
        except PerdureError as failure:
            raise _unreadable(run_id, failure) from failure
        return await_answer(run_id, end, snapshot, error)

    async def _record(self, key: FactKey, entry: Entry) -> None:
        try:
            await self._journal.add(key, entry)
        except ConcurrencyError as error:
            self._scope.fatal = error
            raise


def _unreadable(run_id: RunId, error: PerdureError) -> IoError:
    # What is damaged or gone stays so; a store that does not answer may answer next time.
    may_be_read = isinstance(error, StorageError) and not isinstance(error, CorruptionError | NotFoundError)
    return IoError.of(
        "child_run_engine_failed",
        f"the child run cannot be read: {error.code}",
        retryable=may_be_read,
        details={"child_run_id": run_id, "code": error.code},
    )
