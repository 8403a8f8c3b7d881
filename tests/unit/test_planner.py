"""From pipelines to plans: steps in order, contexts apart, and every mistake by its code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from perdure import (
    Context,
    Engine,
    InvalidPlanError,
    IoProvider,
    JsonContext,
    Recorder,
    RunManifest,
    SideEffectKind,
    StartRun,
    StateMeta,
    Stores,
)
from perdure.errors import Json
from perdure.ids import OpId, OpPath, StateId
from perdure.model.config import RunConfig
from perdure.model.meta import DependencyStrategy
from perdure.model.plan import DependencyEdge, StateGraph, StateNode
from perdure.sdk import Pipeline, PipelineResolver, Planner, Step, manifest_for, run_exports
from perdure.stores.reading import read_json
from tests.support import Scripted


class Op:
    """An operation of given states."""

    op_version = "1"

    def __init__(
        self,
        name: str,
        states: Sequence[tuple[str, Scripted]] = (),
        edges: Sequence[tuple[str, str]] = (),
        imports: tuple[str, ...] = (),
        exports: tuple[str, ...] = (),
        raises: bool = False,
        wild: bool = False,
    ) -> None:
        self.op_id = OpId(name)
        self.imports, self.exports = imports, exports
        self._states, self._edges = states, edges
        self._raises, self._wild, self._times = raises, wild, 0

    def expand(self, op_path: OpPath, config: Json, input: Json) -> StateGraph:  # noqa: A002 — the term
        if self._raises:
            raise RuntimeError("password=hunter2")
        self._times += 1
        suffix = str(self._times) if self._wild else ""
        return StateGraph(
            [StateNode(StateId.trusted(f"{op_path}.{name}{suffix}"), state) for name, state in self._states],
            [
                DependencyEdge(StateId(f"{op_path}.{before}"), StateId(f"{op_path}.{after}"))
                for before, after in self._edges
            ],
        )


async def nothing(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """A handler that leaves everything as it is."""


def quiet(**meta: Any) -> Scripted:
    """A state that does nothing."""
    return Scripted(nothing, StateMeta(**meta))


def refusal(pipeline: Pipeline, *ops: Op) -> InvalidPlanError:
    """The error of a pipeline that has no plan."""
    with pytest.raises(InvalidPlanError) as caught:
        Planner(ops).plan(pipeline)
    return caught.value


def pipeline(*steps: tuple[str, str]) -> Pipeline:
    """A pipeline of steps: an id, and an operation."""
    return Pipeline("machine", "7", tuple(Step(step, op, "1") for step, op in steps))


def test_every_sink_precedes_every_source_of_the_next_step() -> None:
    """Two sinks, two sources: four edges."""
    op = Op("op", [("a", quiet()), ("b", quiet()), ("c", quiet())], [("a", "b"), ("a", "c")])
    plan = Planner([op]).plan(pipeline(("one", "op"), ("two", "op")))
    edges = {(edge.before, edge.after) for edge in plan.graph.edges}
    assert ("machine.one.b", "machine.two.a") in edges
    assert ("machine.one.c", "machine.two.a") in edges
    assert ("machine.one.a", "machine.two.a") not in edges
    assert len(edges) == 6
    assert plan.op_id == "machine"


def test_tags_become_edges() -> None:
    """On the latest, or the earliest, other state that carries the tag."""
    states = [
        ("a", quiet(tags=("x",))),
        ("b", quiet(tags=("x",))),
        ("c", quiet(depends_on=("x",))),
        ("d", quiet(depends_on=("x",), depends_on_strategy=DependencyStrategy.EARLIEST)),
    ]
    plan = Planner([Op("op", states)]).plan(pipeline(("one", "op")))
    assert [(edge.before[-1], edge.after[-1]) for edge in plan.graph.edges] == [("b", "c"), ("a", "d")]
    alone = Op("op", [("a", quiet(tags=("x",), depends_on=("x",)))])
    assert refusal(pipeline(("one", "op")), alone).code == "dangling_dependency_tag"


@pytest.mark.parametrize(
    ("given", "ops", "code"),
    [
        (Pipeline("Machine", "1", ()), [], "invalid_machine_id"),
        (Pipeline("machine", "1", ()), [], "empty_pipeline"),
        (pipeline(("One", "op")), [], "invalid_step_id"),
        (pipeline(("one", "op"), ("one", "op")), [Op("op", [("a", quiet())])], "duplicate_step_id"),
        (Pipeline("m", "1", (Step("s", "op", "1", 1.5),)), [], "op_config_not_canonical"),
        (Pipeline("m", "1", (Step("s", "op", "1", {"password": "x"}),)), [], "secrets_detected"),
        (pipeline(("one", "op")), [], "op_not_found"),
        (pipeline(("one", "op")), [Op("op")], "empty_state_graph"),
        (pipeline(("one", "op")), [Op("op", [("A", quiet())])], "invalid_state_id"),
        (pipeline(("one", "op")), [Op("op", [("a", quiet()), ("a", quiet())])], "duplicate_state_id"),
        (pipeline(("one", "op")), [Op("op", [("a", quiet())], [("a", "z")])], "missing_state_for_edge"),
        (
            pipeline(("one", "op")),
            [Op("op", [("a", quiet(side_effects=SideEffectKind.APPLY_SIDE_EFFECT, idempotency=""))])],
            "missing_idempotency_key",
        ),
        (pipeline(("one", "op")), [Op("op", raises=True)], "op_expand_failed"),
        (pipeline(("one", "op")), [Op("op", [("a", quiet())], wild=True)], "op_not_deterministic"),
    ],
)
def test_mistakes_have_codes(given: Pipeline, ops: list[Op], code: str) -> None:
    """And never repeat what an operation said while it failed."""
    error = refusal(given, *ops)
    assert error.code == code
    assert "hunter2" not in str(error)


def test_a_manifest_of_another_kind_is_malformed() -> None:
    """``pipeline_malformed``."""
    malformed: list[Json] = [{}, [], {"pipeline": {"machine_id": 7}}]
    for params in malformed:
        with pytest.raises(InvalidPlanError, match="pipeline_malformed"):
            PipelineResolver([]).resolve(RunManifest(OpId("m"), "1", params, RunConfig()))


async def test_steps_share_what_they_export_and_nothing_else() -> None:
    """Keys stand under the step's path; imports read the exporter's, or the initial context's."""

    async def produce(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("total", 40)
        ctx.write("scratch", 1)
        ctx.delete("scratch")

    async def consume(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        assert ctx.read("scratch") is None
        ctx.write("result", ctx.read("total") + ctx.read("start"))
        assert ctx.dump() == {"result": 42}

    ops = [
        Op("produce", [("a", Scripted(produce))], exports=("total",)),
        Op("consume", [("a", Scripted(consume))], imports=("total", "start"), exports=("result",)),
    ]
    given = pipeline(("one", "produce"), ("two", "consume"))
    resolver = PipelineResolver(ops)
    manifest = manifest_for(given)
    for values, phase in [({"start": 2}, "Completed"), ({}, "Failed")]:
        stores = Stores.in_memory()
        manifest_id = await stores.put_manifest(manifest)
        run = StartRun(
            manifest, manifest_id, resolver.resolve(manifest), manifest.run_config, JsonContext(values)
        )
        result = await Engine(resolver).start(stores, run)
        assert result.phase.value == phase
        if phase == "Completed":
            assert result.final_snapshot_id is not None
            context, _ = await read_json(stores.artifacts, result.final_snapshot_id)
            assert context == {"start": 2, "machine.one.total": 40, "machine.two.result": 42}
            assert run_exports(resolver.planner, given, context) == {"total": 40, "result": 42}
            assert await Engine(resolver).resume(stores, result.run_id) == result
