"""Looking at runs that are stored: what the reading commands show."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from perdure.cli.output import UsageError
from perdure.engine.engine import read_manifest, read_view
from perdure.engine.history import RunView
from perdure.errors import Json, NotFoundError, PerdureError
from perdure.ids import RunId
from perdure.model.events import ARTIFACT_WRITTEN, DomainEvent, EventEnvelope
from perdure.stores.bundle import Stores

_PREFIX_CHARACTERS_MIN = 4
_PAGE = 500


async def find_run(stores: Stores, text: str) -> RunId:
    """The run of an id, or of the beginning of one that no other run has."""
    if len(text) == 36:
        return RunId(text)
    if len(text) < _PREFIX_CHARACTERS_MIN:
        raise UsageError.of(
            "usage", f"a run is named by its id, or by its first {_PREFIX_CHARACTERS_MIN} characters or more"
        )
    prefix = text.lower()
    found = [run_id async for run_id in all_runs(stores) if run_id.startswith(prefix)]
    if not found:
        raise NotFoundError.of("run_not_found", "no run's id begins like that", details={"prefix": prefix})
    if len(found) > 1:
        raise UsageError.of(
            "run_ambiguous",
            f"several runs begin like that: {', '.join(found[:5])}",
            hint="type more of the id",
        )
    return found[0]


async def all_runs(stores: Stores) -> AsyncIterator[RunId]:
    """Every run's id, page by page."""
    last: RunId | None = None
    while page := await stores.events.list_runs(last, _PAGE):
        for run_id in page:
            yield run_id
        last = page[-1]


async def summary_of(stores: Stores, run_id: RunId) -> Json:
    """One line of ``run list``. A run that cannot be read is listed with its error's code."""
    try:
        view = await read_view(stores, run_id)
    except PerdureError as error:
        return {"run_id": run_id, "phase": None, "error": error.code}
    first = await stores.events.read_range(run_id, 1, 1)
    return {
        "run_id": run_id,
        "phase": view.phase.value,
        "op_id": None if view.started is None else view.started.op_id,
        "states_completed": len(view.completed),
        "events": view.head_seq,
        "started_millis": first[0].ts_millis if first else None,
    }


async def status_of(stores: Stores, run_id: RunId) -> Json:
    """Everything that ``run status`` shows."""
    events = await stores.events.read_range(run_id, 1)
    if not events:
        raise NotFoundError.of("run_not_found", "no such run is kept here", details={"run_id": run_id})
    view = await read_view(stores, run_id)
    manifest = await read_manifest(stores, view.started.manifest_id) if view.started else None
    return {
        "run_id": run_id,
        "phase": view.phase.value,
        "op_id": None if manifest is None else manifest.op_id,
        "op_version": None if manifest is None else manifest.op_version,
        "events": view.head_seq,
        "facts": len(view.facts),
        "final_snapshot_id": view.checkpoint if view.ended is None else view.ended.final_snapshot_id,
        "started_millis": events[0].ts_millis,
        "last_event_millis": events[-1].ts_millis,
        "states": [_state_json(view, state_id) for state_id in view.states],
        "outputs": _outputs(events),
    }


def _state_json(view: RunView, state_id: Any) -> Json:
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


def _outputs(events: list[EventEnvelope]) -> list[Json]:
    return [
        {"artifact_id": event.payload["artifact_id"], "name": (event.payload.get("meta") or {}).get("name")}
        for envelope in events
        if isinstance(event := envelope.event, DomainEvent) and event.name == ARTIFACT_WRITTEN
    ]


def when(millis: int | None) -> str:
    """A moment for a person, in UTC."""
    if millis is None:
        return "—"
    return datetime.fromtimestamp(millis / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
