"""Replay: a recorded run's states executed again from its facts, without any transport, and compared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from perdure.clock import SystemClock
from perdure.engine.attempt import Failed, Halted, execute
from perdure.engine.decide import PlannedRun
from perdure.engine.history import RunView
from perdure.engine.recorder import AttemptRecorder
from perdure.engine.recovery import PlanResolver, read_manifest, read_view
from perdure.engine.replaying import ReplaySource, replay_source
from perdure.errors import ErrorInfo, InvalidPlanError, Json
from perdure.failpoints import NO_FAILPOINTS
from perdure.ids import ArtifactId, RunId, StateId
from perdure.io.journal import Entry
from perdure.io.scope import AttemptScope
from perdure.model.config import RunConfig
from perdure.model.context import StagedContext
from perdure.model.events import RunPhase
from perdure.proof.bases import Bases
from perdure.stores.bundle import Stores
from perdure.stores.reading import read_engine_events, read_snapshot
from perdure.stores.refusals import run_not_found, run_not_started


class KeyDifference(msgspec.Struct, frozen=True):
    """A context key that was recorded with one value and replayed with another; None where it is absent."""

    key: str
    recorded: Any
    replayed: Any

    def to_json(self) -> Json:
        """``{"key", "recorded", "replayed"}``."""
        return {"key": self.key, "recorded": self.recorded, "replayed": self.replayed}


class StateReplay(msgspec.Struct, frozen=True):
    """A state that completed in the record, and what it came to when executed again.

    ``replayed`` is None where the state failed this time, with ``error``. ``keys`` tell what differs.
    """

    state_id: StateId
    attempt: int
    recorded: ArtifactId
    replayed: ArtifactId | None
    keys: tuple[KeyDifference, ...] = ()
    error: ErrorInfo | None = None

    @property
    def is_same(self) -> bool:
        """Whether the snapshot came out with the recorded id."""
        return self.recorded == self.replayed

    def to_json(self) -> Json:
        """``{"state_id", "attempt", "recorded", "replayed", "same", "keys", "error"}``."""
        return {
            "state_id": self.state_id,
            "attempt": self.attempt,
            "recorded": self.recorded,
            "replayed": self.replayed,
            "same": self.is_same,
            "keys": [each.to_json() for each in self.keys],
            "error": None if self.error is None else self.error.to_json(),
        }


class ReplayReport(msgspec.Struct, frozen=True):
    """What a replay found. States are in the order in which they completed; none follows a difference."""

    run_id: RunId
    phase: RunPhase
    states: tuple[StateReplay, ...]
    states_recorded: int
    final_mismatch: ErrorInfo | None = None
    """That the run completed with another context than its states have left, though these are the same."""

    @property
    def first_difference(self) -> StateReplay | None:
        """The first state that did not come out as recorded."""
        return next((each for each in self.states if not each.is_same), None)

    @property
    def is_same(self) -> bool:
        """Whether all came out as recorded."""
        return self.first_difference is None and self.final_mismatch is None

    def to_json(self) -> Json:
        """The fields by name, ``same`` and ``first_difference``."""
        difference = self.first_difference
        return {
            "run_id": self.run_id,
            "phase": self.phase.value,
            "same": self.is_same,
            "states_recorded": self.states_recorded,
            "states": [each.to_json() for each in self.states],
            "first_difference": None if difference is None else difference.to_json(),
            "final_mismatch": None if self.final_mismatch is None else self.final_mismatch.to_json(),
        }


async def replay_run(stores: Stores, run_id: RunId, resolver: PlanResolver) -> ReplayReport:
    """Execute every state that completed in a run again, from its recorded base and the recorded facts.

    A base that is not what the plan says it must be is a difference too (``base_snapshot_mismatch``), and so
    is the last context of a run that completed (``final_snapshot_mismatch``). Nothing is written and nothing
    outside is asked. It stops at the first state that comes out otherwise.
    Raises ``NotFoundError`` (``run_not_found``), ``InvalidPlanError`` and ``CorruptionError``.
    """
    view = await read_view(stores, run_id)
    if view.started is None:
        if not view.head_seq:
            raise run_not_found(run_id)
        raise run_not_started()
    manifest = await read_manifest(stores, view.started.manifest_id)
    plan = PlannedRun.of(resolver.resolve(manifest), manifest.run_config)
    # A run that replays another one has no facts of its own.
    replayed = await replay_source(stores, run_id, view, manifest.run_config)
    source = replayed or ReplaySource.of_view(view, run_id)
    plans = await _plans_of_others(stores, view, resolver)
    events = await read_engine_events(stores.events, run_id, 1)
    bases = Bases(view, events, partial(read_snapshot, stores.artifacts))
    replays: list[StateReplay] = []
    final_mismatch: ErrorInfo | None = None
    for state_id, recorded in view.completed.items():
        of_state = plans.get(source.run_of(state_id), plan)
        mismatch = None if of_state is None else await bases.mismatch(state_id, of_state.joins)
        if mismatch is not None:
            attempt = view.states[state_id].last_attempt
            replays.append(StateReplay(state_id, attempt, recorded, None, error=mismatch))
            break
        replays.append(
            await _replay_state(
                stores, view, of_state or plan, source, manifest.run_config, state_id, recorded
            )
        )
        if not replays[-1].is_same:
            break
    else:
        final_mismatch = await bases.final_mismatch(plan.joins)
    return ReplayReport(run_id, view.phase, tuple(replays), len(view.completed), final_mismatch)


async def _plans_of_others(
    stores: Stores, view: RunView, resolver: PlanResolver
) -> dict[RunId, PlannedRun | None]:
    """Of a fork: other plans, of the runs that executed what it has copied; None for one not known here."""
    plans: dict[RunId, PlannedRun | None] = {}
    for run_id, manifest_id in view.manifests.items():
        if view.started is None or manifest_id == view.started.manifest_id:
            continue
        manifest = await read_manifest(stores, manifest_id)
        try:
            plans[run_id] = PlannedRun.of(resolver.resolve(manifest), manifest.run_config)
        except InvalidPlanError:
            plans[run_id] = None  # an old version may be gone; then the new one is to come to the same
    return plans


async def _replay_state(
    stores: Stores,
    view: RunView,
    plan: PlannedRun,
    source: ReplaySource,
    config: RunConfig,
    state_id: StateId,
    recorded: ArtifactId,
) -> StateReplay:
    progress = view.states[state_id]
    attempt = source.attempts.get(state_id, progress.last_attempt)
    base_id = progress.base_snapshot_id
    if state_id in plan.skipped:
        return StateReplay(state_id, attempt, recorded, base_id)
    if state_id not in plan.nodes:
        raise InvalidPlanError.of(
            "recovery_state_not_in_plan",
            "the history names states that the plan no longer has",
            details={"states": [state_id]},
        )
    base = await read_snapshot(stores.artifacts, base_id)
    scope = AttemptScope(source.run_of(state_id), state_id, attempt, asyncio.current_task())
    state = plan.nodes[state_id].state
    meta = state.meta()
    io = source.io(scope, stores, attempt, meta, missing_fact_retryable=False)
    rec = AttemptRecorder(scope.check, config.event_profile, _write_nothing)
    outcome = await execute(
        state,
        meta,
        StagedContext(base, scope.check),
        io,
        rec,
        scope,
        SystemClock(),
        NO_FAILPOINTS,
    )
    assert not isinstance(outcome, Halted), "nobody stops a handler that is replayed"
    if isinstance(outcome, Failed):
        return StateReplay(state_id, attempt, recorded, None, error=outcome.info)
    if outcome.snapshot.id == recorded:
        return StateReplay(state_id, attempt, recorded, recorded)
    differences = _compare((await read_snapshot(stores.artifacts, recorded)).parts, outcome.snapshot.parts)
    return StateReplay(state_id, attempt, recorded, outcome.snapshot.id, differences)


async def _write_nothing(make: Callable[[], Entry]) -> None:
    """A replay leaves no trace."""


def _compare(recorded: Mapping[str, bytes], replayed: Mapping[str, bytes]) -> tuple[KeyDifference, ...]:
    keys = sorted({*recorded, *replayed})
    return tuple(
        KeyDifference(key, _value(recorded.get(key)), _value(replayed.get(key)))
        for key in keys
        if recorded.get(key) != replayed.get(key)
    )


def _value(part: bytes | None) -> Json:
    return None if part is None else msgspec.json.decode(part)
