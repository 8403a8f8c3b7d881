"""Forking: a new run that begins where another one entered a state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import msgspec

from perdure.arguments import expect, expect_unless_none
from perdure.canonical import canonical_json_bytes
from perdure.engine.bases import BasesSideBySide
from perdure.engine.carrying import (
    Carried,
    carried_before,
    entered_states,
    executed_by,
    refuse_other_plan,
    run_forked,
)
from perdure.engine.decide import PlannedRun
from perdure.engine.history import fold
from perdure.engine.joins import JoinGraph
from perdure.engine.recovery import PlanResolver, read_manifest, resolved
from perdure.engine.starting import Beginning, manifest_bytes, run_id_of
from perdure.errors import ErrorCategory, InvalidPlanError, Json, NotFoundError
from perdure.ids import ArtifactId, RunId, StateId
from perdure.model.config import FanOutJoin, RunManifest
from perdure.model.context import Snapshot, StagedContext
from perdure.model.events import ArtifactKind, DomainEvent, EventEnvelope, RunCompleted, RunStarted
from perdure.model.forks import ForkedFrom
from perdure.stores.bundle import Stores
from perdure.stores.ports import Append, Blob, snapshot_blob
from perdure.stores.reading import read_snapshot
from perdure.stores.refusals import run_not_found, run_not_started

_NAMED_MAX = 12
"""How many states or keys a message names; its details name all."""


class ForkRun(msgspec.Struct, frozen=True):
    """A run to be begun where ``origin`` entered ``at``: a state's id, or the last word of one.

    ``values`` are set in the context that the state found, by the keys that the state knows them by, or by
    whole ones. ``manifest`` is what the fork goes on with where that is not the origin's manifest: it names
    another version of the operation. ``by`` and ``reason`` are recorded. An ``invocation_key`` makes forking
    twice the same as forking once.
    """

    origin: RunId
    at: str
    values: Mapping[str, Json] = {}
    manifest: RunManifest | None = None
    run_id: RunId | None = None
    invocation_key: str | None = None
    by: str = "program"
    reason: str = ""

    def __post_init__(self) -> None:
        expect(self.at, str, "ForkRun(at=…)", "a state's name")
        expect(self.values, Mapping, "ForkRun(values=…)", "values by context key")
        expect_unless_none(self.manifest, RunManifest, "ForkRun(manifest=…)", "a RunManifest")


@runtime_checkable
class KnowsPlaces(Protocol):
    """What a state offers whose context keys stand under other names in the run's context."""

    def place_of(self, key: str) -> str:
        """The whole name of what the state reads as ``key``."""

    def imports(self, key: str) -> bool:
        """Whether the state's operation says that it reads ``key`` from elsewhere."""


async def planned_fork(stores: Stores, fork: ForkRun, resolver: PlanResolver) -> Beginning:
    """How the fork begins. Nothing is written; raises as ``Engine.fork``."""
    canonical_json_bytes({"by": fork.by, "reason": fork.reason})
    origin = RunId(fork.origin)
    events = await stores.events.read_range(origin, 1)
    if not events:
        raise run_not_found(origin)
    started = events[0].event
    if not isinstance(started, RunStarted):
        raise run_not_started()
    manifest_id, blobs = started.manifest_id, list[Blob]()
    manifest = fork.manifest
    if manifest is None:
        manifest = await read_manifest(stores, manifest_id)
    else:
        blobs.append(Blob(ArtifactKind.MANIFEST, manifest_bytes(manifest)))
        manifest_id = blobs[0].id
    plan = resolved(manifest, resolver)
    planned = PlannedRun.of(plan, manifest.run_config)
    if fork.manifest is not None:
        _refuse_other_mode(await read_manifest(stores, started.manifest_id), manifest)
    state_id = _state_named(fork.at, events, planned)
    carried = carried_before(events, state_id)
    edges = [(edge.before, edge.after) for edge in plan.graph.edges]
    refuse_other_plan(carried.states, state_id, planned.nodes, edges)
    if fork.manifest is not None and planned.joins is not None:
        await _refuse_other_bases(stores, events, carried, planned.joins)
    base = await read_snapshot(stores.artifacts, carried.base_snapshot_id)
    changed, keys = _with_values(base, fork.values, planned, state_id)
    if changed is not base:
        blobs.append(snapshot_blob(changed))
    where = ForkedFrom(origin, state_id, carried.seq, changed.id, keys, fork.by, fork.reason)
    return Beginning(
        run_id_of(fork.run_id, fork.invocation_key),
        fork.run_id is not None or fork.invocation_key is not None,
        fork.invocation_key is not None,
        planned,
        manifest,
        RunStarted(plan.op_id, manifest_id, started.initial_snapshot_id, forked_from=where),
        (*carried.events, _run_forked(where, carried, events, started.manifest_id)),
        blobs,
        changed,
        # What it takes over is not put again, so an origin that can be deleted must be there when it begins.
        [Append(origin, events[-1].seq, ())] if isinstance(events[-1].event, RunCompleted) else (),
    )


def _refuse_other_mode(of_origin: RunManifest, of_fork: RunManifest) -> None:
    """What states find depends on whether they run side by side, so what is carried over would not fit."""
    modes = [each.run_config.execution_mode for each in (of_origin, of_fork)]
    if isinstance(modes[0], FanOutJoin) != isinstance(modes[1], FanOutJoin):
        raise InvalidPlanError.of(
            "fork_mode_changed",
            "a fork's states run side by side if those of the run do that it comes from, and else not",
            category=ErrorCategory.PARSING_INPUT,
        )


async def _refuse_other_bases(
    stores: Stores, events: Sequence[EventEnvelope], carried: Carried, graph: JoinGraph
) -> None:
    """Refuse a plan in which a carried state would have found something else, because of other edges."""
    view = fold(events[: carried.seq - 1])
    bases, before = (
        BasesSideBySide(graph, view, partial(read_snapshot, stores.artifacts)),
        dict[StateId, ArtifactId](),
    )
    for state_id in carried.states:
        if await bases.of(state_id, before) != view.states[state_id].base_snapshot_id:
            raise InvalidPlanError.of(
                "fork_order_changed",
                f"in this plan {state_id} finds another context than it did: its ancestors differ",
                details={"states": [state_id]},
            )
        before[state_id] = view.completed[state_id]


def _run_forked(
    where: ForkedFrom, carried: Carried, events: Sequence[EventEnvelope], manifest_id: ArtifactId
) -> DomainEvent:
    origin = fold(events)
    executed = executed_by(carried.states, where.run_id, origin.executed_by)
    return run_forked(where, executed, {**origin.manifests, where.run_id: manifest_id})


def _state_named(at: str, events: Sequence[EventEnvelope], plan: PlannedRun) -> StateId:
    entered = [each for each in entered_states(events) if each not in plan.cleanup_ids]
    found = [each for each in entered if at == each] or [
        each for each in entered if at == each.rpartition(".")[2]
    ]
    if len(found) == 1:
        return found[0]
    if found:
        problem = f"{at} may be any of {_some(found)}"
    else:
        can_be = f"; it can be forked at {_some(entered)}" if entered else ""
        problem = f"the run has not entered {at}{can_be}"
    raise NotFoundError.of("fork_state_not_reached", problem, details={"states": [*entered]})


def _with_values(
    base: Snapshot, values: Mapping[str, Json], plan: PlannedRun, state_id: StateId
) -> tuple[Snapshot, tuple[str, ...]]:
    """The context with ``values`` set, and their whole keys; raises as ``StagedContext.write`` too."""
    if not values:
        return base, ()
    state = plan.nodes[state_id].state
    staged = StagedContext(base)
    places: dict[str, None] = {}
    for key, value in values.items():
        place = state.place_of(key) if isinstance(state, KnowsPlaces) else key
        is_known = place in base.parts or place in plan.nodes
        if not is_known and isinstance(state, KnowsPlaces) and state.imports(key):
            is_known = True
        if not is_known and key in base.parts:
            place, is_known = key, True
        if not is_known:
            raise InvalidPlanError.of(
                "fork_key_unknown",
                f"the context that {state_id} finds has no {key}; it has {_some(sorted(base.parts))}",
                category=ErrorCategory.PARSING_INPUT,
                details={"key": key, "known": sorted(base.parts)},
            )
        if place in places:
            raise InvalidPlanError.of(
                "fork_key_twice",
                f"{key} is another name of {place}, which is set already",
                category=ErrorCategory.PARSING_INPUT,
                details={"key": key, "place": str(place)},
            )
        staged.write(place, value)
        places[place] = None
    return staged.snapshot(), tuple(places)


def _some(names: Sequence[str]) -> str:
    """So many names as a line has room for."""
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return (", ".join(names[:_NAMED_MAX]) or "none") + more
