"""Going on as a new run: the next leg is planned, and begun in the commit that ends this one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import NamedTuple

import msgspec

from perdure.engine.attempt import Completed, Failed, info_of
from perdure.engine.attempts import CONTINUED_IN_DOUBT, OpenAttempt
from perdure.engine.decide import PlannedRun
from perdure.engine.history import RunView
from perdure.engine.ownership import HeldClaim
from perdure.engine.prepared import Prepared
from perdure.engine.recovery import PlanResolver, resolved_anew
from perdure.engine.starting import manifest_bytes
from perdure.engine.writer import RunWriter
from perdure.errors import ConcurrencyError, ErrorCategory, ErrorInfo, InvalidPlanError, StateError
from perdure.ids import RunId, StateId
from perdure.io.children import child_run_linked
from perdure.io.facts import fact_event
from perdure.io.waits import signal_key
from perdure.model.config import RunManifest
from perdure.model.context import Snapshot
from perdure.model.events import (
    RUN_PAUSED,
    ArtifactKind,
    ContinuedRun,
    DomainEvent,
    Event,
    RunCompleted,
    RunStarted,
    RunStatus,
    StateCompleted,
)
from perdure.model.handler import ContinueAsNew
from perdure.model.legs import run_continued
from perdure.stores.ports import Append, Blob, EventStore, Release, snapshot_blob


def continued_beside(state_id: StateId, others: Sequence[StateId]) -> ErrorInfo:
    """That a state cannot have its run go on as a new one, since others may be under way meanwhile."""
    return ErrorInfo(
        "continued_side_by_side",
        ErrorCategory.PARSING_INPUT,
        False,
        f"{state_id} cannot go on as a new run: {', '.join(others[:3])} may run at its side",
    )


class NextLeg(NamedTuple):
    """The run as which one goes on: who it is, how it begins, and what is to be kept for it."""

    run_id: RunId
    prepared: Prepared
    events: Sequence[Event]
    blobs: Sequence[Blob]
    link: DomainEvent
    """What the run that goes on says of it."""


class Legs:
    """How one run goes on as another. ``reserve`` claims that for whoever owns the run.

    A run that ``is_replayed`` ends where its record does: what the next leg learned is not in it.
    """

    def __init__(
        self,
        run_id: RunId,
        events: EventStore,
        writer: RunWriter,
        manifest: RunManifest,
        resolver: PlanResolver,
        reserve: Callable[[RunId], Awaitable[HeldClaim]],
        *,
        is_replayed: bool,
    ) -> None:
        self._run_id = run_id
        self._events = events
        self._writer = writer
        self._manifest = manifest
        self._resolver = resolver
        self._reserve = reserve
        self._is_replayed = is_replayed
        self.next: NextLeg | None = None
        """The run as which this one has gone on, durably."""

    async def go_on(
        self, attempt: OpenAttempt, completed: Completed, wanted: ContinueAsNew
    ) -> Completed | Failed | None:
        """Close the attempt, end the run, and begin the next leg; all of that is one commit.

        Otherwise how the attempt is to end: as it is if the run was told to stop meanwhile, or failed if it
        cannot go on as it is ``wanted``.
        """
        view, snapshot = self._writer.view, completed.snapshot
        if view.cancel is not None:
            return completed
        blobs = [] if snapshot.id == attempt.base_snapshot_id else [snapshot_blob(snapshot)]
        completes = StateCompleted(attempt.state_id, snapshot.id)
        ends = RunCompleted(RunStatus.COMPLETED, snapshot.id)
        if self._is_replayed:
            self._writer.stage([completes, ends], blobs)
            return None
        try:
            leg = planned_leg(self._run_id, view, self._manifest, wanted, self._resolver)
        except Exception as error:  # noqa: BLE001 — a resolver is anybody's code, and so is what was wanted
            return Failed(info_of(error), snapshot if blobs else None, timedelta())
        heir = await self._reserve(leg.run_id)
        begun = [] if await self._is_there(leg) else [Append(leg.run_id, 0, leg.events)]
        self._writer.stage([completes, leg.link, ends], [*blobs, *leg.blobs])
        await self._writer.flush(release=Release(None, heir=heir.claim), begun=begun)
        heir.durable = True
        self.next = leg
        return None

    async def _is_there(self, leg: NextLeg) -> bool:
        """Whether the leg was begun before: where a commit is no transaction, a crash may come after that."""
        first = await self._events.read_range(leg.run_id, 1, 1)
        if first and first[0].event != leg.events[0]:
            raise ConcurrencyError.of(
                "run_already_exists",
                "a run of the next leg's id exists that was started otherwise",
                details={"run_id": leg.run_id},
            )
        return bool(first)


def planned_leg(
    run_id: RunId, view: RunView, manifest: RunManifest, wanted: ContinueAsNew, resolver: PlanResolver
) -> NextLeg:
    """The next leg of the run, as it would be started now. Writes nothing.

    Raises ``StateError`` (``continued_in_doubt``) if nobody knows what became of an effect, and what
    starting such a run raises: ``InvalidPlanError``, ``ContextError``.
    """
    if view.in_doubt:
        raise StateError.of(
            CONTINUED_IN_DOUBT,
            "the run cannot go on as a new one before it is known what became of its effects",
            details={"in_doubt": [effect.key for effect in view.in_doubt]},
        )
    started = view.started
    assert started is not None, "what does not run does not go on"
    manifest = _manifest_for(manifest, wanted)
    blob = Blob(ArtifactKind.MANIFEST, manifest_bytes(manifest))
    # Whoever wanted it may change what it gave.
    params = msgspec.json.decode(blob.data)["input_params"]
    manifest = msgspec.structs.replace(manifest, input_params=params)
    initial = Snapshot.of_values(dict(wanted.context))
    plan = resolved_anew(manifest, resolver)
    prepared = Prepared(blob.id, manifest, PlannedRun.of(plan, manifest.run_config), initial)
    before = started.continues
    continues = ContinuedRun(
        run_id, run_id if before is None else before.first_run_id, 2 if before is None else before.leg + 1
    )
    heir = run_id.next_leg()
    begins = RunStarted(plan.op_id, blob.id, initial.id, started.parent, continues=continues)
    return NextLeg(
        heir,
        prepared,
        [begins, *moved(heir, view)],
        [blob, snapshot_blob(initial)],
        run_continued(heir, continues),
    )


def moved(heir: RunId, view: RunView) -> list[Event]:
    """What the next leg takes over: open children, a pause, and the signals that nobody has taken.

    In this order: of the children, a pause concerns those that were spawned before it.
    """
    children = [child for child in view.children.values() if not child.has_ended]
    pause = view.pause
    reached = len(children)
    if pause is not None:
        reached = sum(child.spawned_seq < pause.reach_seq for child in children)
    links: list[Event] = [child_run_linked(heir, child) for child in children]
    events = links[:reached]
    if pause is not None:
        told = {"id": pause.letter_id, "by": pause.by, "reason": pause.reason}
        events.append(DomainEvent(RUN_PAUSED, told))
    events += links[reached:]
    signals = [
        (arrival, signal_key(name, number))
        for name, arrived in view.inbox.arrived.items()
        for number, arrival in enumerate(arrived[view.inbox.taken.get(name, 0) :])
    ]
    for arrival, key in sorted(signals, key=lambda each: each[0].seq):
        meta = None if arrival.letter_id is None else {"letter": arrival.letter_id}
        events.append(fact_event(key, arrival.payload_id, meta=meta))
    return events


def _manifest_for(manifest: RunManifest, wanted: ContinueAsNew) -> RunManifest:
    if wanted.input is msgspec.UNSET:
        return manifest
    params = manifest.input_params
    if not isinstance(params, dict):
        raise InvalidPlanError.of(
            "continue_input_unsupported",
            "the manifest's input_params are no object, so there is no place for another input",
            category=ErrorCategory.PARSING_INPUT,
        )
    return msgspec.structs.replace(manifest, input_params={**params, "input": wanted.input})
