"""Operations change while runs are under way: versions live side by side, and runs are forked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import (
    App,
    BlockingIo,
    InvalidPlanError,
    Op,
    RunPhase,
    Stores,
    op,
    pipeline,
)
from perdure.engine.recovery import read_view
from perdure.ids import RunId
from perdure.proof.replay import replay_run
from perdure.sdk.versions import blocked_by_version
from tests.support import (
    stream,
)


def greeting(version: str) -> Op[str, Any]:
    """An operation that has changed thrice: it was given a middle, then a beginning, then all new states."""
    made = op("greeting", version, input=str)

    def hello(io: BlockingIo) -> str:
        io.wait_signal("hello")
        return f"hello by {version}"

    def weather(hello: str) -> str:
        return f"{hello}, fine by {version}"

    def bye(hello: str, io: BlockingIo) -> str:
        io.wait_signal("bye")
        return f"{hello}, bye by {version}"

    def bye_after_weather(weather: str, io: BlockingIo) -> str:
        io.wait_signal("bye")
        return f"{weather}, bye by {version}"

    def knock() -> str:
        return "knock"

    bye_after_weather.__name__ = "bye"
    match version:
        case "1":
            made.state(hello)
            made.state(bye)
        case "2":
            made.state(hello)
            made.state(weather)
            made.state(bye_after_weather)
        case "3":
            made.state(knock)
            made.state(after=["knock"])(hello)
            made.state(bye)
        case _:
            made.state(knock)
    return made


OLD, NEW, LATER, OTHER = (greeting(version) for version in "1234")


async def left_in_bye(stores: Stores) -> RunId:
    """A run of the old version that waits in its last state."""
    async with perdure.open(stores, OLD, recover=False, park_after=timedelta()) as p:
        run = await p.start(OLD, "ann", labels={"of": "ann"}, detach=True)
        await run.signal("hello")
        await p.resume(run.id)
        assert (await p.drive_result(run.id)).waiting_for == "signal bye"
        return run.id


async def test_a_run_stays_in_the_version_that_it_was_started_in() -> None:
    """New ones begin in the version that is named last, unless another is asked for."""
    stores = Stores.in_memory()
    mistaken: Any = NEW
    run_id = await left_in_bye(stores)
    async with perdure.open(stores, App([OLD, NEW]), park_after=timedelta()) as p:
        runs = [await p.get(run_id), await p.start("greeting", "bob")]
        runs.append(await p.start("greeting", "cid", op_version="1"))
        for run in runs:
            await run.signal("hello")
            await run.signal("bye")
        assert [await run.result() for run in runs] == [
            "hello by 1, bye by 1",
            "hello by 2, fine by 2, bye by 2",
            "hello by 1, bye by 1",
        ]
        with pytest.raises(InvalidPlanError, match="op_not_found"):
            await p.start("greeting", "dot", op_version="9")
        with pytest.raises(InvalidPlanError, match="call_invalid"):
            await p.start(mistaken, "dot", op_version="1")


def test_the_newest_version_is_the_one_that_is_named_last() -> None:
    """Not one that only a pipeline brings along."""
    tour = pipeline("tour", steps=[OLD], input=str)
    assert App([NEW, tour]).op("greeting") is NEW
    assert App([tour, NEW, OLD]).op("greeting") is OLD
    assert App([tour]).op("greeting") is OLD


async def test_a_run_whose_version_nobody_has_is_left_alone() -> None:
    """It is listed, as are pipelines with such a step; what can be done about it is said; it can be ended."""
    stores = Stores.in_memory()
    run_id = await left_in_bye(stores)
    tour = pipeline("tour", steps=[NEW, perdure.step("second", OLD)], input=str)
    async with perdure.open(stores, tour, recover=False) as p:
        touring = await p.start(tour, "eve", detach=True)
    before = await stream(stores, run_id)
    async with perdure.open(stores, NEW, park_after=timedelta()) as p:
        run = await p.get(run_id)
        with pytest.raises(InvalidPlanError, match="run_blocked_by_version") as caught:
            await (await p.resume(run_id)).result()
        assert "run fork RUN --at STATE --op-version V" in (caught.value.hint or "")
        assert await p.recover() == []
        blocked = await blocked_by_version(stores, p.app, labels={}, limit=9)
        assert [(each.summary.run_id, [step.op_version for step in each.missing]) for each in blocked] == [
            (touring.id, ["1"]),
            (run_id, ["1"]),
        ]
        assert [each.summary.run_id for each in blocked[1:]] == [
            each.summary.run_id
            for each in await blocked_by_version(stores, p.app, labels={"of": "ann"}, limit=9)
        ]
        assert len(await blocked_by_version(stores, p.app, labels={}, limit=1)) == 1
        assert await blocked_by_version(stores, App([OLD, NEW]), labels={}, limit=9) == []
        assert await stream(stores, run_id) == before
        await run.cancel("enough")  # what cleans up is not known here, so it waits for who knows
        assert await stream(stores, run_id) == before
        await run.terminate("enough")
        assert (await run.wait()).phase is RunPhase.CANCELLED
    assert (await stream(stores, run_id))[-2:] == ["failed bye run_cancelled", "run Cancelled"]


async def test_a_fork_can_go_on_in_another_version() -> None:
    """In one that has what was carried over, in an order in which nothing is missed.

    What was carried over is replayed in the version that it was executed in, where that is known.
    """
    stores = Stores.in_memory()
    run_id = await left_in_bye(stores)
    async with perdure.open(stores, App([NEW, LATER, OTHER]), recover=False, park_after=timedelta()) as p:
        fork = await p.fork(run_id, "bye", op_version="2", set={"hello": "good day"}, by="ann")
        await fork.signal("bye")
        assert await fork.result() == "good day, fine by 2, bye by 2"
        view = await read_view(stores, fork.id)
        assert view.started is not None
        assert view.started.forked_from is not None
        assert view.started.forked_from.set_keys == ("greeting.main.hello",)
        assert (await p.list(labels={"of": "ann"}))[0].op_version == "2"
        difference = (await fork.replay()).first_difference
        assert difference is not None
        assert difference.state_id == "greeting.main.hello"
        knows_both = App([OLD, NEW]).resolver
        assert (await replay_run(stores, fork.id, knows_both)).first_difference is None
        for version, code, named in (
            ("3", "fork_order_changed", ["greeting.main.hello"]),
            ("4", "fork_states_not_in_plan", ["greeting.main.hello", "greeting.main.bye"]),
        ):
            with pytest.raises(InvalidPlanError, match=code) as caught:
                await p.fork(run_id, "bye", op_version=version)
            assert caught.value.info.details == {"states": named}
        again = await p.fork(run_id, "hello", op_version="3", key="k")
        assert again.id == RunId.for_invocation("k")
        with pytest.raises(InvalidPlanError, match="run_blocked_by_version"):
            await p.fork(run_id, "bye")
        with pytest.raises(InvalidPlanError, match="op_not_found"):
            await p.fork(run_id, "bye", op_version="9")
