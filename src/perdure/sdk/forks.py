"""Forking runs of an app's operations, perhaps into another version of these."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

import msgspec

from perdure.engine.forking import ForkRun
from perdure.engine.recovery import read_manifest
from perdure.errors import Json
from perdure.ids import RunId
from perdure.model.config import BuildProvenance, RunManifest
from perdure.model.events import RunStarted
from perdure.model.pipeline import MAIN_STEP
from perdure.sdk.app import App
from perdure.sdk.checks import expect, expect_key, expect_mapping
from perdure.sdk.finding import first_event
from perdure.sdk.planner import pipeline_of
from perdure.stores.bundle import Stores
from perdure.stores.refusals import run_not_found, run_not_started


async def fork_of(
    stores: Stores,
    app: App,
    origin: RunId,
    at: str,
    *,
    values: Mapping[str, Json] | None,
    op_version: str | None,
    run_id: RunId | None,
    key: str | None,
    by: str,
    reason: str,
) -> ForkRun:
    """What ``Engine.fork`` takes; with ``op_version`` the run goes on in that version.

    Raises ``InvalidPlanError`` (``op_not_found``, ``input_invalid``, ``config_invalid``) for a version that
    cannot take over, and ``NotFoundError`` (``run_not_found``).
    """
    expect(at, str, "fork(at=…)", "a state's name")
    expect_mapping(values or {}, object, "fork(set=…)", "JSON values")
    expect(op_version, (str, NoneType), "fork(op_version=…)", "a string")
    expect_key(key, "fork(key=…)")
    expect(by, str, "fork(by=…)", "a string")
    expect(reason, str, "fork(reason=…)", "a string")
    manifest = None
    if op_version is not None:
        manifest = in_version(app, await _manifest(stores, origin), op_version)
    return ForkRun(origin, at, values or {}, manifest, run_id, key, by, reason)


def in_version(app: App, manifest: RunManifest, op_version: str) -> RunManifest:
    """What a run of the operation's or pipeline's other version is started from, with the same input."""
    pipeline, given = pipeline_of(manifest)
    startable = app.startable(manifest.op_id, op_version)
    # A pipeline's definition says how its steps are configured; an operation alone was told.
    is_alone = len(pipeline.steps) == 1 and pipeline.steps[0].step_id == MAIN_STEP
    other = startable.pipeline_of(pipeline.steps[0].op_config if is_alone else None)
    params: dict[str, Any] = {**manifest.input_params}
    params |= {"pipeline": other.to_json(), "input": startable.input_json(given)}
    return msgspec.structs.replace(
        manifest, op_version=other.pipeline_version, input_params=params, build=BuildProvenance()
    )


async def _manifest(stores: Stores, run_id: RunId) -> RunManifest:
    started = await first_event(stores, run_id)
    if started is None:
        raise run_not_found(run_id)
    if not isinstance(started, RunStarted):
        raise run_not_started()
    return await read_manifest(stores, started.manifest_id)
