"""What a run is started from, checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from perdure.arguments import expect, expect_methods
from perdure.canonical import CanonicalJsonError, artifact_id_for_bytes
from perdure.engine.decide import PlannedRun
from perdure.errors import ConcurrencyError, CorruptionError, InvalidPlanError, NotFoundError
from perdure.ids import ArtifactId, RunId
from perdure.model.config import RunConfig, RunManifest
from perdure.model.context import JsonContext, Snapshot
from perdure.model.events import ArtifactKind, Event, RunStarted
from perdure.model.handler import Context
from perdure.model.manifests import encode_manifest
from perdure.model.plan import ExecutionPlan
from perdure.stores.bundle import Stores
from perdure.stores.ports import Append, Blob, snapshot_blob


class StartRun(msgspec.Struct, frozen=True):
    """A run to be started. An ``invocation_key`` makes starting it twice the same as starting it once."""

    manifest: RunManifest
    manifest_id: ArtifactId
    plan: ExecutionPlan
    run_config: RunConfig
    initial_context: Context
    run_id: RunId | None = None
    invocation_key: str | None = None

    def __post_init__(self) -> None:
        expect(self.manifest, RunManifest, "StartRun(manifest=…)", "a RunManifest")
        expect(self.manifest_id, str, "StartRun(manifest_id=…)", "an ArtifactId")
        expect(self.plan, ExecutionPlan, "StartRun(plan=…)", "an ExecutionPlan")
        expect(self.run_config, RunConfig, "StartRun(run_config=…)", "a RunConfig")
        expect_methods(
            self.initial_context,
            ("dump",),
            "StartRun(initial_context=…)",
            "a context such as JsonContext({…})",
        )


class Beginning(NamedTuple):
    """How a run begins, checked: its first events, what they name, and the context after them."""

    run_id: RunId
    is_named: bool
    """Whether somebody has chosen the id, so that a run of it may be there."""
    has_key: bool
    """Whether it is that of an invocation key: beginning the run twice is the same as once."""
    plan: PlannedRun
    manifest: RunManifest
    started: RunStarted
    events: Sequence[Event]
    """Those after the first."""
    blobs: Sequence[Blob]
    snapshot: Snapshot
    requires: Sequence[Append] = ()
    """Streams that must still end where they ended when it was planned: appends of no events."""

    def is_begun_by(self, event: Event) -> bool:
        """Whether ``event``, the first of a run, began it in the same way."""
        if not isinstance(event, RunStarted):
            return False
        ours, theirs = self.started, event
        return (ours.manifest_id, ours.initial_snapshot_id, _fork_of(ours)) == (
            theirs.manifest_id,
            theirs.initial_snapshot_id,
            _fork_of(theirs),
        )


def _fork_of(started: RunStarted) -> object:
    """Where a fork comes from, whoever made it and why; None for what is no fork."""
    origin = started.forked_from
    return None if origin is None else (origin.run_id, origin.seq, origin.base_snapshot_id)


async def planned_start(stores: Stores, run: StartRun) -> Beginning:
    """How the run begins. Nothing is written; raises as ``Engine.start``."""
    manifest_bytes = _checked_manifest(run)
    try:
        stored_bytes = await stores.artifacts.get(run.manifest_id)
    except NotFoundError:
        raise NotFoundError.of(
            "manifest_not_found",
            "the manifest is not in the artifact store",
            details={"manifest_id": str(run.manifest_id)},
        ) from None
    if stored_bytes != manifest_bytes:
        raise CorruptionError.of(
            "manifest_artifact_mismatch",
            "the stored manifest is another one",
            details={"manifest_id": str(run.manifest_id)},
        )
    plan = PlannedRun.of(run.plan, run.run_config)
    context = run.initial_context
    # Others may have a dump of their own; the plain one need not be copied.
    initial = context.snapshot() if type(context) is JsonContext else Snapshot.of_values(context.dump())
    return Beginning(
        run_id_of(run.run_id, run.invocation_key),
        run.run_id is not None or run.invocation_key is not None,
        run.invocation_key is not None,
        plan,
        run.manifest,
        RunStarted(run.plan.op_id, run.manifest_id, initial.id),
        (),
        (Blob(ArtifactKind.MANIFEST, manifest_bytes, run.manifest_id), snapshot_blob(initial)),
        initial,
    )


def _checked_manifest(run: StartRun) -> bytes:
    """The canonical bytes of the run's manifest, which was compared with everything else that is given."""
    data = manifest_bytes(run.manifest)
    if artifact_id_for_bytes(data) != run.manifest_id:
        raise InvalidPlanError.of("manifest_id_mismatch", "manifest_id is not the id of the manifest")
    if run.manifest.op_id != run.plan.op_id:
        raise InvalidPlanError.of("manifest_op_id_mismatch", "the plan is for another operation")
    if run.manifest.run_config != run.run_config:
        raise InvalidPlanError.of("run_config_mismatch", "run_config is not the manifest's")
    return data


def manifest_bytes(manifest: RunManifest) -> bytes:
    """A manifest as it is kept. ``InvalidPlanError``: ``manifest_not_canonical``, ``secrets_detected``."""
    try:
        return encode_manifest(manifest)
    except CanonicalJsonError as error:
        if error.code == "secrets_detected":
            raise InvalidPlanError(error.info) from None
        raise InvalidPlanError.of(
            "manifest_not_canonical",
            f"the manifest cannot be written: {error.info.message}",
            details={"reason": error.code, "pointer": error.pointer},
        ) from None


def run_id_of(run_id: str | None, invocation_key: str | None) -> RunId:
    """The id that a run gets: the one asked for, that of its key, or a random one."""
    wanted = None if run_id is None else RunId(run_id)
    if invocation_key is None:
        return wanted or RunId.random()
    of_key = RunId.for_invocation(invocation_key)
    if wanted not in (None, of_key):
        raise ConcurrencyError.of(
            "invocation_conflict", "the invocation key gives another run id than the one asked for"
        )
    return of_key
