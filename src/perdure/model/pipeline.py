"""Pipelines as values: which operations, in which order, and how a manifest names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.errors import Json, shaped
from perdure.ids import OpId
from perdure.model.config import BuildProvenance, RunConfig, RunManifest

MAIN_STEP = "main"


class Step(msgspec.Struct, frozen=True):
    """One operation of a pipeline, under a name of its own there."""

    step_id: str
    op_id: str
    op_version: str
    op_config: Any = None

    def to_json(self) -> Json:
        """``{"step_id", "op_id", "op_version", "op_config"}``."""
        return {
            "step_id": self.step_id,
            "op_id": self.op_id,
            "op_version": self.op_version,
            "op_config": self.op_config,
        }


class Pipeline(msgspec.Struct, frozen=True):
    """An ordered list of steps. Every step sees what the steps before it export."""

    machine_id: str
    pipeline_version: str
    steps: tuple[Step, ...]

    def to_json(self) -> Json:
        """``{"machine_id", "pipeline_version", "steps"}``."""
        return {
            "machine_id": self.machine_id,
            "pipeline_version": self.pipeline_version,
            "steps": [step.to_json() for step in self.steps],
        }

    @classmethod
    def from_json(cls, data: Json) -> Pipeline:
        """The pipeline of its wire form; ``InvalidShapeError`` for anything else."""
        return shaped(data, cls)

    @classmethod
    def of_op(cls, op_id: str, op_version: str, op_config: Json = None) -> Pipeline:
        """The pipeline that runs one operation: the machine is named like it, the step ``main``."""
        return cls(op_id, op_version, (Step(MAIN_STEP, op_id, op_version, op_config),))


def manifest_for(
    pipeline: Pipeline,
    input: Json = None,  # noqa: A002 — the term
    run_config: RunConfig | None = None,
    build: BuildProvenance | None = None,
    labels: Mapping[str, str] | None = None,
) -> RunManifest:
    """The manifest of a run of ``pipeline``. Raises ``InvalidIdError`` for a bad machine id.

    ``labels`` are a person's own words for finding the run again.
    """
    return RunManifest(
        OpId(pipeline.machine_id),
        pipeline.pipeline_version,
        {"pipeline": pipeline.to_json(), "input": input} | ({"labels": dict(labels)} if labels else {}),
        run_config or RunConfig(),
        build or BuildProvenance(),
    )


def labels_of(manifest: RunManifest) -> dict[str, str]:
    """The labels that a run was started with."""
    params = manifest.input_params
    labels = params.get("labels") if isinstance(params, dict) else None
    return labels if isinstance(labels, dict) else {}


def schedule_of(manifest: RunManifest) -> Json:
    """Which schedule started a run, for which due time: ``{"id", "due"}``; None if nobody's did."""
    params = manifest.input_params
    schedule = params.get("schedule") if isinstance(params, dict) else None
    return schedule if isinstance(schedule, dict) and {"id", "due"} <= schedule.keys() else None
