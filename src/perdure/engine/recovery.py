"""What driving a run on begins with: its history, its manifest, and its plan, checked against each other."""

from __future__ import annotations

from typing import Protocol

from perdure.arguments import expect
from perdure.engine.decide import PlannedRun
from perdure.engine.history import RunView
from perdure.engine.prepared import Prepared
from perdure.errors import CorruptionError, InvalidPlanError, InvalidShapeError
from perdure.ids import ArtifactId, InvalidIdError, RunId
from perdure.model.config import RunManifest
from perdure.model.plan import ExecutionPlan
from perdure.stores.bundle import Stores
from perdure.stores.reading import PAGE_EVENTS, read_json
from perdure.stores.refusals import run_not_started

BLOCKED = "run_blocked_by_version"
"""The code of the error that says that a process does not know what a run is made of."""


class PlanResolver(Protocol):
    """Rebuilds a run's plan from its manifest: the same plan for the same manifest, every time."""

    def resolve(self, manifest: RunManifest) -> ExecutionPlan:
        """The plan; raises ``InvalidPlanError`` when there is none."""


async def checked_plan(
    stores: Stores, view: RunView, resolver: PlanResolver, prepared: Prepared | None = None
) -> tuple[RunManifest, PlannedRun]:
    """The manifest of a run that is to be driven on, and its plan, which must fit its history.

    What is ``prepared`` for the run's manifest is neither read nor planned again.
    """
    if view.started is None:
        raise run_not_started()
    if prepared is not None and prepared.manifest_id != view.started.manifest_id:
        prepared = None
    manifest = prepared.manifest if prepared else await read_manifest(stores, view.started.manifest_id)
    if view.started.op_id != manifest.op_id:
        raise InvalidPlanError.of(
            "run_started_op_id_mismatch", "the run was started for another operation than its manifest's"
        )
    planned = prepared.plan if prepared else PlannedRun.of(resolved(manifest, resolver), manifest.run_config)
    gone = sorted(view.states.keys() - planned.nodes.keys())
    if gone:
        raise InvalidPlanError.of(
            "recovery_state_not_in_plan",
            "the history names states that the plan no longer has",
            details={"states": gone},
        )
    return manifest, planned


def resolved(manifest: RunManifest, resolver: PlanResolver) -> ExecutionPlan:
    """The plan of a run that exists; ``InvalidPlanError`` (``run_blocked_by_version``) if nobody knows it."""
    try:
        plan = resolver.resolve(manifest)
    except InvalidPlanError as error:
        if error.code != "op_not_found":
            raise
        raise InvalidPlanError.of(
            "run_blocked_by_version",
            error.info.message,
            category=error.info.category,
            details=error.info.details,
        ) from error
    return _of_its_operation(plan, manifest)


def resolved_anew(manifest: RunManifest, resolver: PlanResolver) -> ExecutionPlan:
    """The plan of a run that is to begin; raises what the resolver raises."""
    return _of_its_operation(resolver.resolve(manifest), manifest)


def _of_its_operation(plan: ExecutionPlan, manifest: RunManifest) -> ExecutionPlan:
    expect(plan, ExecutionPlan, "what resolve(manifest) gives", "an ExecutionPlan")
    if plan.op_id != manifest.op_id:
        raise InvalidPlanError.of("plan_op_id_mismatch", "the plan is for another operation")
    return plan


async def read_view(stores: Stores, run_id: RunId) -> RunView:
    """The view of a run, from its kernel and engine events alone, read page by page.

    Whoever goes on from it with a run that has moved on meanwhile is refused by the store.
    """
    view = RunView()
    # Asked for first: what somebody appends while the events are read must not seem to have been read.
    head = await stores.events.head_seq(run_id)
    while True:
        page = await stores.events.read_engine_events(run_id, view.head_seq + 1, PAGE_EVENTS)
        for envelope in page:
            if envelope.run_id != run_id:
                raise CorruptionError.of(
                    "run_id_mismatch",
                    "the stream holds an event of another run",
                    details={"seq": envelope.seq},
                )
            if view.started is None:
                view.started_millis = envelope.ts_millis
            view.advance(envelope.event, envelope.seq)
        if len(page) < PAGE_EVENTS:
            break
    # Domain events after the last engine event are no part of the view, but they are numbered.
    view.head_seq = max(view.head_seq, head)
    return view


async def read_manifest(stores: Stores, manifest_id: ArtifactId) -> RunManifest:
    """A stored manifest; ``CorruptionError`` for one that is damaged or of another shape."""
    value, _ = await read_json(stores.artifacts, manifest_id)
    try:
        return RunManifest.from_json(value)
    except (InvalidShapeError, InvalidIdError) as error:
        raise CorruptionError.of(
            "manifest_deserialize_failed",
            f"the stored manifest is not a manifest: {error.info.message}",
            details={"manifest_id": str(manifest_id)},
        ) from None
