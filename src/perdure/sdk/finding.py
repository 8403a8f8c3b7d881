"""Finding stored runs, and what they begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator

from perdure.engine.history import RunView
from perdure.engine.recovery import read_manifest
from perdure.errors import ErrorCategory, NotFoundError, RunError
from perdure.ids import RunId
from perdure.model.config import RunManifest
from perdure.model.events import Event, EventEnvelope
from perdure.sdk.checks import expect
from perdure.stores.bundle import Stores
from perdure.stores.refusals import run_not_found

PREFIX_CHARACTERS_MIN = 4
_PAGE = 500


async def find_run(stores: Stores, text: str) -> RunId:
    """The run of an id, or of the beginning of one that no other run has.

    Raises ``NotFoundError`` (``run_not_found``) and ``RunError`` (``run_ambiguous``).
    """
    expect(text, str, "what names a run", "its id, or the beginning of it")
    if len(text) >= 32:
        return RunId(text)
    prefix = text.lower()
    if len(prefix) < PREFIX_CHARACTERS_MIN:
        raise _ambiguous(
            f"a run is named by its id, or by its first {PREFIX_CHARACTERS_MIN} characters or more"
        )
    found = [run_id async for run_id in all_runs(stores) if run_id.startswith(prefix)]
    if not found:
        raise NotFoundError.of("run_not_found", "no run's id begins like that", details={"prefix": prefix})
    if len(found) > 1:
        raise _ambiguous(f"several runs begin like that: {', '.join(found[:5])}")
    return found[0]


async def all_runs(stores: Stores, *, unfinished: bool = False) -> AsyncIterator[RunId]:
    """Every run's id, the newest first, page by page."""
    read: list[RunId] = []
    while True:
        page = await stores.events.list_runs(read[-1] if read else None, _PAGE, unfinished=unfinished)
        for run_id in page:
            yield run_id
        read += page
        if page:
            continue
        # None follow a run that was deleted meanwhile: then those after the last one left are asked for.
        count = len(read)
        while read and not await stores.events.head_seq(read[-1]):
            read.pop()
        if not read or len(read) == count:
            return


async def existing_events(stores: Stores, run_id: RunId, from_seq: int = 1) -> list[EventEnvelope]:
    """A run's events; ``NotFoundError`` (``run_not_found``) for a run that has none at all."""
    events = await stores.events.read_range(run_id, from_seq)
    if not events and not await stores.events.head_seq(run_id):
        raise run_not_found(run_id)
    return events


async def first_event(stores: Stores, run_id: RunId) -> Event | None:
    """What a run began with; None for one that is not there."""
    first = await stores.events.read_range(run_id, 1, 1)
    return first[0].event if first else None


async def manifest_of(stores: Stores, view: RunView) -> RunManifest | None:
    """The manifest that a history names; None for one that was never started."""
    return await read_manifest(stores, view.started.manifest_id) if view.started else None


def _ambiguous(message: str) -> RunError:
    return RunError.of(
        "run_ambiguous", message, category=ErrorCategory.PARSING_INPUT, hint="type more of the id"
    )
