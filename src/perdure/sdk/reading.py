"""Looking at stored runs: what lists and statuses are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.engine.history import RunView
from perdure.engine.recovery import read_view
from perdure.engine.requests import Request
from perdure.engine.results import RunResult
from perdure.errors import Json, PerdureError
from perdure.ids import RunId, StateId
from perdure.io.maps import map_of
from perdure.model.events import (
    ARTIFACT_WRITTEN,
    VALUE_PUBLISHED,
    DomainEvent,
    EventEnvelope,
    RunPhase,
)
from perdure.model.pipeline import labels_of, schedule_of
from perdure.sdk.finding import all_runs, existing_events, manifest_of
from perdure.sdk.kin import parent_in, parent_of, phases_of
from perdure.sdk.legs import chain_json, chain_of, first_leg, leg_number, place_json
from perdure.sdk.pending import doubt_json, due_millis_of, waits_of
from perdure.sdk.planner import Planner, pipeline_of, run_exports
from perdure.stores.bundle import Stores
from perdure.stores.reading import read_json


class RunSummary(msgspec.Struct, frozen=True):
    """One line of a list of runs. ``error`` is the code for which a run's history cannot be read.

    ``started_millis`` is milliseconds since 1970-01-01 UTC, and so is ``due_millis``, when a run that waits
    goes on if nothing comes before. ``in_doubt`` are the keys of effects of which nobody knows what became of
    them; ``effects_in_doubt`` say more: ``{"key", "state_id", "namespace", "intended_millis", "doubt",
    "may_be_under_way"}``, the last of these while a handler runs that may be making the effect. ``schedule``
    is ``{"id", "due"}`` for a run that a schedule started.

    A run may be the ``leg``-th of a chain that began with ``first_run_id``, and have been ``continued_as``
    another run.
    """

    run_id: RunId
    phase: RunPhase | None
    op_id: str | None = None
    op_version: str | None = None
    labels: Mapping[str, str] = {}
    states_completed: int = 0
    events: int = 0
    started_millis: int | None = None
    error: str | None = None
    waiting_for: str | None = None
    in_doubt: tuple[str, ...] = ()
    due_millis: int | None = None
    effects_in_doubt: tuple[Json, ...] = ()
    schedule: Json = None
    leg: int = 1
    first_run_id: RunId | None = None
    continued_as: RunId | None = None

    def to_json(self) -> Json:
        """The fields by name, those of chains if it is in one; the phase by its wire name."""
        return place_json(self.first_run_id or self.run_id, self.leg, self.continued_as) | {
            "run_id": self.run_id,
            "phase": None if self.phase is None else self.phase.value,
            "op_id": self.op_id,
            "op_version": self.op_version,
            "labels": dict(self.labels),
            "states_completed": self.states_completed,
            "events": self.events,
            "started_millis": self.started_millis,
            "error": self.error,
            "waiting_for": self.waiting_for,
            "in_doubt": list(self.in_doubt),
            "due_millis": self.due_millis,
            "effects_in_doubt": list(self.effects_in_doubt),
            "schedule": self.schedule,
        }


async def list_summaries(
    stores: Stores,
    *,
    phase: RunPhase | None = None,
    labels: Mapping[str, str],
    limit: int,
    in_doubt: bool = False,
    roots: bool = False,
    legs: bool = False,
) -> list[RunSummary]:
    """The newest runs that are in ``phase`` and bear all ``labels``, at most ``limit``.

    With ``in_doubt`` only those that have effects in doubt, with ``roots`` only those without a parent. Of
    runs that went on as others the newest alone, unless all ``legs`` are wanted.
    """
    found: list[RunSummary] = []
    chains: set[RunId] = set()
    async for run_id in all_runs(stores, unfinished=phase is RunPhase.RUNNING):
        if len(found) >= limit:
            break
        # There may be thousands of children to a parent: of them one event is read.
        if roots and await parent_of(stores, run_id) is not None:
            continue
        # A chain may have thousands of legs, the newest of which was met first.
        if chains and await chain_of(stores, run_id) in chains:
            continue
        summary = await summary_of(stores, run_id)
        if summary.leg > 1 and summary.first_run_id is not None and not legs:
            chains.add(summary.first_run_id)
        if (
            phase in (None, summary.phase)
            and labels.items() <= summary.labels.items()
            and (summary.in_doubt or not in_doubt)
        ):
            found.append(summary)
    return found


async def summary_of(stores: Stores, run_id: RunId) -> RunSummary:
    """A run in a line. A run that cannot be read has its error's code there."""
    try:
        view = await read_view(stores, run_id)
        manifest = await manifest_of(stores, view)
    except PerdureError as error:
        return RunSummary(run_id, None, error=error.code)
    first = await stores.events.read_range(run_id, 1, 1)
    return RunSummary(
        run_id,
        view.phase,
        None if manifest is None else manifest.op_id,
        None if manifest is None else manifest.op_version,
        {} if manifest is None else labels_of(manifest),
        len(view.completed),
        view.head_seq,
        first[0].ts_millis if first else None,
        None,
        view.waiting_for,
        tuple(effect.key for effect in view.in_doubt),
        due_millis_of(view),
        tuple(doubt_json(view, effect) for effect in view.in_doubt),
        None if manifest is None else schedule_of(manifest),
        leg_number(view),
        first_leg(view, run_id),
        view.continued_as,
    )


async def status_of(stores: Stores, run_id: RunId) -> Json:
    """Everything that ``run status`` shows; ``NotFoundError`` (``run_not_found``)."""
    events = await existing_events(stores, run_id)
    view = await read_view(stores, run_id)
    summary = await summary_of(stores, run_id)
    chain = await chain_json(stores, view, run_id)
    return (
        summary.to_json()
        | chain
        | {
            "facts": len(view.facts),
            "items": _items(view),
            "final_snapshot_id": view.checkpoint if view.ended is None else view.ended.final_snapshot_id,
            "last_event_millis": events[-1].ts_millis,
            "states": [_state_json(view, state_id) for state_id in view.states],
            "outputs": _outputs(events),
            "waits": waits_of(view),
            "parent_run_id": None if view.started is None else parent_in(view.started),
            "forked_from": _fork_json(view),
            "children": await phases_of(stores, view.children, events),
            "stop": _request_json(view.cancel),
            "pause": _request_json(view.pause),
            "values": _published(events),
            "letters_unread": len(await stores.mailbox.unread(run_id)),
        }
    )


def _items(view: RunView) -> Json:
    """How many items of each map are on record."""
    counts = Counter(filter(None, map(map_of, view.facts)))
    return [{"state_id": state, "name": name or None, "recorded": n} for (state, name), n in counts.items()]


def _fork_json(view: RunView) -> Json:
    origin = None if view.started is None else view.started.forked_from
    return None if origin is None else origin.to_json()


def _state_json(view: RunView, state_id: StateId) -> Json:
    progress = view.states[state_id]
    if state_id in view.completed:
        status = "completed"
    else:
        status = "open" if state_id in view.open_attempts else "failed"
    error = progress.last_error
    return {
        "state_id": state_id,
        "status": status,
        "attempts": progress.last_attempt + 1,
        "error": None if error is None else {"code": error.code, "message": error.message},
    }


def _request_json(request: Request | None) -> Json:
    return None if request is None else {"by": request.by, "reason": request.reason}


async def published_values(stores: Stores, run_id: RunId) -> dict[str, Json]:
    """What a run's handlers published last under each name."""
    return _published(await existing_events(stores, run_id))


def _published(events: list[EventEnvelope]) -> dict[str, Json]:
    return {
        event.payload["name"]: event.payload["value"]
        for envelope in events
        if isinstance(event := envelope.event, DomainEvent) and event.name == VALUE_PUBLISHED
    }


def _outputs(events: list[EventEnvelope]) -> list[Any]:
    return [
        {"artifact_id": event.payload["artifact_id"], "name": (event.payload.get("meta") or {}).get("name")}
        for envelope in events
        if isinstance(event := envelope.event, DomainEvent) and event.name == ARTIFACT_WRITTEN
    ]


async def exports_of(stores: Stores, planner: Planner, ended: RunResult) -> dict[str, Json]:
    """What a run that completed exports; empty for any other."""
    if ended.phase is not RunPhase.COMPLETED or ended.final_snapshot_id is None:
        return {}
    manifest = await manifest_of(stores, await read_view(stores, ended.run_id))
    if manifest is None:
        return {}
    context, _ = await read_json(stores.artifacts, ended.final_snapshot_id)
    return run_exports(planner, pipeline_of(manifest)[0], context)
