"""A replay trusts no recorded base: it is to be what the plan says that the state found."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

import perdure
from perdure import (
    Context,
    Engine,
    ExecutionPlan,
    FanOutJoin,
    ForkRun,
    IoProvider,
    JsonContext,
    Recorder,
    RunCompleted,
    RunConfig,
    RunPhase,
    RunStarted,
    StateCompleted,
    StateEntered,
    StateMeta,
    Stores,
)
from perdure.cli import main
from perdure.engine.letters import StopLetter
from perdure.ids import ArtifactId, RunId
from perdure.proof.replay import ReplayReport, replay_run
from perdure.stores.memory import MemoryState, memory_stores
from tests.support import FixedResolver, Handler, Scripted, plan_of, start_run, state_id

SIDE_BY_SIDE = RunConfig(execution_mode=FanOutJoin(4))
DIAMOND = [("a", "left"), ("a", "right"), ("left", "join"), ("right", "join")]
RUN_ID = RunId("00000000-0000-0000-0000-00000000000f")


def writes(name: str) -> Handler:
    """A handler that reads nothing, so that it comes to the same from many bases."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write(name, 1)

    return handler


def diamond(edges: list[tuple[str, str]] | None = None) -> ExecutionPlan:
    return plan_of(
        *((name, Scripted(writes(name))) for name in ("a", "left", "right", "join")), edges=edges or DIAMOND
    )


async def replayed(state: MemoryState, run_id: RunId, plan: ExecutionPlan) -> ReplayReport:
    return await replay_run(memory_stores(state), run_id, FixedResolver(plan))


async def recorded(config: RunConfig) -> tuple[MemoryState, RunId]:
    state = MemoryState()
    run = await start_run(memory_stores(state), diamond(), config, {"x": 1})
    result = await Engine(FixedResolver(diamond())).start(memory_stores(state), run)
    return state, result.run_id


def snapshot_of(state: MemoryState, run_id: RunId, name: str) -> ArtifactId:
    events = [each.event for each in state.streams[run_id]]
    return next(
        each.context_snapshot_id
        for each in events
        if isinstance(each, StateCompleted) and each.state_id == state_id(name)
    )


def enter_with(state: MemoryState, run_id: RunId, name: str, base: ArtifactId, result: ArtifactId) -> None:
    """As if the state had begun with another context, and come to what it then comes to."""
    for index, each in enumerate(state.streams[run_id]):
        event = each.event
        if isinstance(event, StateEntered) and event.state_id == state_id(name):
            event = msgspec.structs.replace(event, base_snapshot_id=base)
        elif isinstance(event, StateCompleted) and event.state_id == state_id(name):
            event = msgspec.structs.replace(event, context_snapshot_id=result)
        state.streams[run_id][index] = msgspec.structs.replace(each, event=event)


@pytest.mark.parametrize("config", [SIDE_BY_SIDE, RunConfig()])
async def test_a_base_that_nothing_led_to_is_a_difference(config: RunConfig) -> None:
    """Though the handler comes from it to what is on record: a join that has lost a branch, for one."""
    state, run_id = await recorded(config)
    assert (await replayed(state, run_id, diamond())).first_difference is None
    # From what `right` finds side by side, as from what `left` left: it is not what `join` is to find.
    base = snapshot_of(state, run_id, "left")
    plan = plan_of(("join", Scripted(writes("join"))))
    run = await start_run(memory_stores(state), plan, None, None, RUN_ID)
    value = msgspec.json.decode(await memory_stores(state).artifacts.get(base))
    run = msgspec.structs.replace(run, initial_context=JsonContext(value))
    lost = (await Engine(FixedResolver(plan)).start(memory_stores(state), run)).final_snapshot_id
    assert lost is not None
    expected = next(
        each.event.base_snapshot_id
        for each in state.streams[run_id]
        if isinstance(each.event, StateEntered) and each.event.state_id == state_id("join")
    )
    enter_with(state, run_id, "join", base, lost)
    difference = (await replayed(state, run_id, diamond())).first_difference
    assert difference is not None
    assert (difference.state_id, difference.replayed) == (state_id("join"), None)
    assert difference.error is not None
    assert difference.error.code == "base_snapshot_mismatch"
    assert difference.error.details == {"recorded": base, "expected": expected}


async def test_a_plan_with_other_edges_is_a_difference() -> None:
    """What a state finds has changed, even if its handler does not look at it."""
    state, run_id = await recorded(SIDE_BY_SIDE)
    changed = diamond([("a", "left"), ("left", "right"), ("right", "join")])
    difference = (await replayed(state, run_id, changed)).first_difference
    assert difference is not None
    assert difference.error is not None
    assert (difference.state_id, difference.error.code) == (state_id("right"), "base_snapshot_mismatch")


@pytest.mark.parametrize("config", [SIDE_BY_SIDE, RunConfig()])
async def test_forks_of_forks_and_what_cleans_up_are_as_planned(config: RunConfig) -> None:
    """What was set, and whoever executed a state, is taken into account."""
    state, run_id = await recorded(config)
    engine = Engine(FixedResolver(diamond()))
    for at, key in (("right", "x"), ("right", "a"), ("join", "left")):
        fork = await engine.fork(memory_stores(state), ForkRun(run_id, at, {key: 7}))
        run_id = fork.run_id
        assert (await replayed(state, run_id, diamond())).first_difference is None

    async def waits(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.wait_signal("never")

    cleans = StateMeta(on_cancel=True)
    plan = plan_of(
        ("a", Scripted(writes("a"))),
        ("left", Scripted(writes("left"))),
        ("wait", Scripted(waits)),
        ("first", Scripted(writes("first"), cleans)),
        ("second", Scripted(writes("second"), cleans)),
        edges=[],
    )
    stores, engine = memory_stores(state), Engine(FixedResolver(plan))
    parked = await engine.start(stores, await start_run(stores, plan, config))
    await engine.send(stores, parked.run_id, StopLetter("cancel", "ann", "enough"), "letter")
    assert (await engine.resume(stores, parked.run_id)).phase is RunPhase.CANCELLED
    report = await replayed(state, parked.run_id, plan)
    assert (len(report.states), report.first_difference) == (4, None)


@pytest.mark.parametrize("config", [SIDE_BY_SIDE, RunConfig()])
async def test_an_end_that_the_states_have_not_left_is_told_of(
    config: RunConfig,
) -> None:
    """Though every state comes out as recorded."""
    state, run_id = await recorded(config)
    last = state.streams[run_id][-1]
    assert isinstance(last.event, RunCompleted)
    lost = snapshot_of(state, run_id, "left")
    event = msgspec.structs.replace(last.event, final_snapshot_id=lost)
    state.streams[run_id][-1] = msgspec.structs.replace(last, event=event)
    report = await replayed(state, run_id, diamond())
    assert (report.first_difference, report.is_same) == (None, False)
    assert report.final_mismatch is not None
    assert report.final_mismatch.code == "final_snapshot_mismatch"
    assert report.final_mismatch.details == {
        "recorded": lost,
        "expected": snapshot_of(state, run_id, "join"),
    }
    told: Any = report.to_json()
    assert (told["same"], told["final_mismatch"]["code"]) == (False, "final_snapshot_mismatch")


greet = perdure.op("greet", input=str, output=str)


@greet.state
def hello(name: str) -> str:
    """What somebody is told."""
    return f"hello {name}"


app = perdure.App([greet])


async def with_another_end(path: Path, run_id: RunId) -> None:
    """A copy of the run, that ends as it began."""
    async with Stores.sqlite(path) as stores:
        events = [each.event for each in await stores.events.read_range(run_id, 1)]
        first, last = events[0], events[-1]
        assert isinstance(first, RunStarted)
        assert isinstance(last, RunCompleted)
        events[-1] = msgspec.structs.replace(last, final_snapshot_id=first.initial_snapshot_id)
        await stores.events.append(RUN_ID, 0, events)


def test_the_command_tells_of_such_an_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And its exit code does."""
    where = ["--store", str(tmp_path / "runs.db"), "--app", f"{__name__}:app"]
    assert main(["run", "start", "greet", "--input", '"ann"', "--key", "a", *where]) == 0
    asyncio.run(with_another_end(tmp_path / "runs.db", RunId.for_invocation("a")))
    capsys.readouterr()
    for more in ([], ["--json"]):
        assert main(["run", "replay", RunId.for_invocation("a"), *more, *where]) == 0
        assert "final_snapshot_mismatch" not in capsys.readouterr().out
        assert main(["run", "replay", RUN_ID, *more, *where]) == 1
        assert "final_snapshot_mismatch" in capsys.readouterr().out
