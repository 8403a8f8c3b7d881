"""Deleting runs, and the artifacts that nothing leads to any more."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import NoneType

import msgspec

from perdure.clock import Clock
from perdure.errors import CorruptionError, Json, NotFoundError, PerdureError
from perdure.ids import ArtifactId, InvalidIdError, RunId
from perdure.model.events import CHILD_RUN_SPAWNED, DomainEvent
from perdure.sdk.checks import expect
from perdure.sdk.retention import Retention, SurveyedRun, deletion_of, planned, with_legs
from perdure.stores.bundle import Stores
from perdure.stores.keeping import Deleted, RunTrace, Tell
from perdure.stores.reading import engine_event_pages

HOUR_MILLIS = 3_600_000
_TOGETHER = 200


class PruneReport(msgspec.Struct, frozen=True):
    """What has gone, or what would go where ``applied`` is False.

    ``event_bytes`` are those of events, ``artifact_bytes`` those that artifacts took. ``ops`` says how many
    of the runs each operation had, ``kept`` how many are kept, by why.
    """

    applied: bool
    runs: int
    events: int
    event_bytes: int
    artifacts: int
    artifact_bytes: int
    ops: Mapping[str, int]
    kept: Mapping[str, int]

    def to_json(self) -> Json:
        """The fields by name."""
        return msgspec.to_builtins(self)


class Keeper:
    """What a client offers to delete."""

    stores: Stores
    _clock: Clock

    async def delete(self, *run_ids: str, with_children: bool = False) -> list[RunId]:
        """Delete runs that have ended, each named by its id; those that went, children before their parents.

        Raises before anything is deleted: ``NotFoundError`` (``run_not_found``), ``RunError``
        (``run_not_ended``, ``run_parent_unfinished``, ``run_has_children`` unless ``with_children``,
        ``run_referred_to``), ``ConcurrencyError`` (``run_already_active``).
        """
        wanted = [RunId(each) for each in run_ids]
        return (await delete_runs(self.stores, wanted, with_children=with_children)).run_ids

    async def prune(
        self, retention: Retention | None = None, *, apply: bool = False, tell: Tell = lambda *_: None
    ) -> PruneReport:
        """Delete the ended runs that ``retention`` does not keep, and artifacts that nothing leads to.

        Without ``apply`` nothing is deleted, and the report says what would be. ``tell`` is called now and
        then with a stage and how much of it is done. Others may write meanwhile; whoever is interrupted, or
        killed, leaves nothing broken, and can do it again.
        """
        expect(retention, (Retention, NoneType), "prune(retention)", "a Retention")
        now_millis = self._clock.now_millis()
        return await prune_stores(self.stores, retention or Retention(), now_millis, apply=apply, tell=tell)


async def prune_stores(
    stores: Stores,
    retention: Retention,
    now_millis: int,
    *,
    apply: bool = False,
    tell: Tell = lambda *_: None,
) -> PruneReport:
    """Delete what ``retention`` does not keep, and sweep; without ``apply`` only find out what would go.

    It may be interrupted, or killed, at any moment, and be called again. Others may write meanwhile.
    """
    runs = await surveyed(stores, tell)
    plan = planned(runs, retention, now_millis)
    ops = {each.trace.run_id: each.trace.op_id or "" for each in runs}
    # Thousands of rows are of no use while artifacts are swept.
    runs.clear()
    deleted = await stores.keeping.delete(plan.run_ids, is_dry=not apply, tell=tell)
    swept = await stores.keeping.sweep(() if apply else deleted.run_ids, is_dry=not apply, tell=tell)
    counts = Counter(ops[run_id] for run_id in deleted.run_ids)
    return PruneReport(
        apply,
        len(deleted.run_ids),
        deleted.events,
        deleted.event_bytes,
        *swept,
        dict(sorted(counts.items())),
        plan.kept,
    )


async def prune_every_hour(
    stores: Stores, retention: Retention, clock: Clock, done: Callable[[PruneReport], object]
) -> None:
    """Prune now, and then every hour until cancelled; ``done`` is told each time, unless it failed."""
    while True:
        try:
            done(await prune_stores(stores, retention, clock.now_millis(), apply=True))
        except PerdureError as error:
            logging.getLogger("perdure").warning("the store could not be pruned: %s", error)
        await clock.sleep_until(clock.now_millis() + HOUR_MILLIS)


async def delete_runs(stores: Stores, run_ids: Sequence[RunId], *, with_children: bool = False) -> Deleted:
    """Delete runs that have ended; their artifacts go with the next :func:`prune_stores`.

    Raises as ``deletion_of``, and then nothing is deleted.
    """
    going = deletion_of(await surveyed(stores), run_ids, with_children=with_children)
    return await stores.keeping.delete(going)


async def surveyed(stores: Stores, tell: Tell = lambda *_: None) -> list[SurveyedRun]:
    """All runs with what they refer to, the one begun last first.

    The manifest of each is looked at, and the links of those that have not ended.
    """
    found: list[SurveyedRun] = []
    async for page in stores.keeping.traces():
        for begin in range(0, len(page), _TOGETHER):
            some = page[begin : begin + _TOGETHER]
            # Of most runs nothing has to be read: they have ended, and replay nobody.
            asked = [trace for trace in some if trace.may_replay or trace.status is None]
            answers = await asyncio.gather(*[_references_of(stores, trace) for trace in asked])
            references = dict(zip([trace.run_id for trace in asked], answers, strict=True))
            found += [SurveyedRun(trace, references.get(trace.run_id, ())) for trace in some]
        tell("survey", len(found))
    return with_legs(found)


async def _references_of(stores: Stores, trace: RunTrace) -> tuple[RunId, ...]:
    replayed = await _replayed(stores, trace.manifest_id) if trace.may_replay else ()
    if trace.status is not None:
        return replayed
    return (*replayed, *await _linked(stores, trace.run_id))


class _Config(msgspec.Struct):
    replay_of: RunId | None = None


class _Manifest(msgspec.Struct):
    run_config: _Config


_MANIFEST = msgspec.json.Decoder(_Manifest, dec_hook=lambda kind, value: kind(value))


async def _replayed(stores: Stores, manifest_id: ArtifactId | None) -> tuple[RunId, ...]:
    """The run whose facts a run is answered with, by its manifest."""
    if manifest_id is None:
        return ()
    try:
        data = await stores.artifacts.get(manifest_id)
        recorded = _MANIFEST.decode(data).run_config.replay_of
    except (NotFoundError, CorruptionError, msgspec.MsgspecError, UnicodeDecodeError, InvalidIdError):
        return ()
    return () if recorded is None else (recorded,)


async def _linked(stores: Stores, run_id: RunId) -> tuple[RunId, ...]:
    """The children of a run that has not ended, also those that others have begun."""
    found: list[RunId] = []
    async for page in engine_event_pages(stores.events, run_id):
        for envelope in page:
            event = envelope.event
            if isinstance(event, DomainEvent) and event.name == CHILD_RUN_SPAWNED:
                child = event.payload.get("child_run_id") if isinstance(event.payload, dict) else None
                if isinstance(child, str):
                    found.append(RunId.trusted(child))
    return tuple(found)
