"""Who says that states run side by side, and what each of them writes."""

from __future__ import annotations

from typing import Any

import pytest

import perdure
from perdure import Context, FanOutJoin, InvalidPlanError, RunConfig, Sequential
from perdure.engine.recovery import read_view
from perdure.model.config import ExecutionMode
from perdure.model.meta import StateMeta
from perdure.sdk.execution import configured
from perdure.sdk.finding import manifest_of


def wide(execution: ExecutionMode | None = None) -> perdure.Op[Any, Any]:
    op = perdure.op("wide", execution=execution)

    @op.state
    def left() -> int:
        return 1

    @op.state
    def right() -> int:
        return 2

    return op


def test_a_run_is_executed_as_its_operation_says() -> None:
    """Unless whoever starts it asks for a number of its own."""
    assert configured(None, None) == RunConfig()
    assert configured(None, FanOutJoin(8)) == RunConfig(execution_mode=FanOutJoin(8))
    timeless = RunConfig(skip_tags=("x",))
    assert configured(timeless, FanOutJoin(8)) == RunConfig(skip_tags=("x",), execution_mode=FanOutJoin(8))
    asked = RunConfig(execution_mode=FanOutJoin(2))
    assert (
        configured(asked, FanOutJoin(8))
        == configured(asked, Sequential())
        == configured(asked, None)
        == asked
    )


async def test_operations_and_pipelines_say_it() -> None:
    """The manifest keeps it; a pipeline's word counts for its runs, and no step's."""
    op = wide(FanOutJoin(3))
    line = perdure.pipeline("line", steps=[op], execution=FanOutJoin(5))
    plain = perdure.pipeline("plain", steps=[op])
    async with perdure.open(perdure.Stores.in_memory(), app=[op, line, plain]) as client:
        modes = []
        for each in (op, line, plain, "wide"):
            run = await client.start(each, None)
            await run.result()
            manifest = await manifest_of(client.stores, await read_view(client.stores, run.id))
            assert manifest is not None
            modes.append(manifest.run_config.execution_mode)
        assert modes == [FanOutJoin(3), FanOutJoin(5), Sequential(), FanOutJoin(3)]


async def test_a_child_is_executed_as_its_operation_says() -> None:
    """Whatever its parent does."""
    child = wide(FanOutJoin(3))
    parent = perdure.op("parent")

    @parent.state
    async def spawns() -> str:
        spawned = await perdure.spawn(child)
        await spawned.result()
        return str(spawned.id)

    async with perdure.open(perdure.Stores.in_memory(), app=[parent, child]) as client:
        run = await client.start(parent)
        view = await read_view(client.stores, perdure.RunId(await run.result()))
        manifest = await manifest_of(client.stores, view)
        assert manifest is not None
        assert manifest.run_config.execution_mode == FanOutJoin(3)


@pytest.mark.parametrize("wrong", [8, "FanOutJoin", True, FanOutJoin])
def test_anything_else_is_refused_where_it_is_said(wrong: Any) -> None:
    """With what is wanted."""
    for make in (
        lambda: perdure.op("o", execution=wrong),
        lambda: perdure.pipeline("p", steps=[], execution=wrong),
    ):
        with pytest.raises(InvalidPlanError, match=r"execution=….*FanOutJoin"):
            make()


def declared() -> perdure.Op[Any, Any]:
    """``bob`` writes the key that is the name of ``ann``'s result."""
    op = perdure.op("votes", execution=FanOutJoin(2))

    @op.state
    async def ann() -> str:
        return "yes"

    @op.state(writes=("ann",))
    async def bob(ctx: Context) -> None:
        ctx.write("ann", "no")

    @op.state
    async def eve(ctx: Context) -> None:
        """Nobody says what she writes."""

    return op


async def test_results_count_among_what_is_declared() -> None:
    """A state that says what it writes cannot write another's result; keys are those of the step."""
    op = declared()
    async with perdure.open(perdure.Stores.in_memory(), app=op) as client:
        with pytest.raises(InvalidPlanError, match=r"both write votes\.main\.ann") as caught:
            await client.start(op)
        assert caught.value.code == "context_write_conflict"
        plan = client.app.resolver.planner.plan(op.pipeline_of())
    assert [node.state.meta().writes for node in plan.graph.states] == [
        ("votes.main.ann",),
        ("votes.main.ann",),
        None,
    ]


def test_what_a_state_writes_is_on_the_wire_only_if_it_is_said() -> None:
    """So that metas that say nothing are what they were."""
    assert "writes" not in StateMeta().to_json()
    meta = StateMeta(writes=("x",))
    assert meta.to_json()["writes"] == ["x"]
    assert StateMeta.from_json(meta.to_json()) == meta
    for wrong in ("x", (1,)):
        with pytest.raises(TypeError, match="writes=…"):
            StateMeta(writes=wrong)  # type: ignore[arg-type]  # what a caller may get wrong
