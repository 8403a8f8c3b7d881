"""Which runs are made of operations that an app does not have."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from perdure.engine.recovery import read_manifest
from perdure.errors import Json, PerdureError
from perdure.ids import ArtifactId
from perdure.model.config import RunManifest
from perdure.model.events import RunStarted
from perdure.model.pipeline import Step, labels_of
from perdure.sdk.app import App
from perdure.sdk.finding import all_runs, first_event
from perdure.sdk.planner import pipeline_of
from perdure.sdk.reading import RunSummary, summary_of
from perdure.stores.bundle import Stores


class BlockedRun(msgspec.Struct, frozen=True):
    """An unfinished run that no process with this app can drive, and the steps it does not know."""

    summary: RunSummary
    missing: tuple[Step, ...]

    def to_json(self) -> Json:
        """The summary's fields, and ``missing``: ``[{"step_id", "op_id", "op_version"}]``."""
        missing = [
            {"step_id": each.step_id, "op_id": each.op_id, "op_version": each.op_version}
            for each in self.missing
        ]
        return {**self.summary.to_json(), "missing": missing}


async def blocked_by_version(
    stores: Stores, app: App, *, labels: Mapping[str, str], limit: int
) -> list[BlockedRun]:
    """The newest unfinished runs that bear all ``labels`` and that ``app`` cannot drive, children too.

    Of runs that are not blocked one event is read. A run whose history cannot be read is none of these.
    """
    found: list[BlockedRun] = []
    known: dict[ArtifactId, tuple[Mapping[str, str], tuple[Step, ...]]] = {}
    async for run_id in all_runs(stores, unfinished=True):
        if len(found) >= limit:
            break
        try:
            started = await first_event(stores, run_id)
            if not isinstance(started, RunStarted):
                continue
            manifest_id = started.manifest_id
            if manifest_id not in known:
                manifest = await read_manifest(stores, manifest_id)
                known[manifest_id] = (labels_of(manifest), missing_steps(app, manifest))
        except PerdureError:
            continue
        borne, missing = known[manifest_id]
        if missing and labels.items() <= borne.items():
            found.append(BlockedRun(await summary_of(stores, run_id), missing))
    return found


def missing_steps(app: App, manifest: RunManifest) -> tuple[Step, ...]:
    """The steps whose operation the app does not have in the version that they name."""
    steps = pipeline_of(manifest)[0].steps
    return tuple(each for each in steps if app.resolver.planner.op_of(each) is None)
