"""Forking from programs: by name, into other versions, in pipelines, and without an event loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import (
    App,
    BlockingIo,
    CanonicalJsonError,
    InvalidPlanError,
    IoProvider,
    NotFoundError,
    RunError,
    RunId,
    RunPhase,
    Stores,
)
from perdure.sdk.reading import status_of
from perdure.stores.memory import memory_stores
from perdure.testing import FakeClock

prices = perdure.op("prices", input=int)


@prices.state
def cents(count: int) -> int:
    return count * 100


bills = perdure.op("bills", input=int, imports={"cents": int, "rate": int})


@bills.state
def tax(cents: int, rate: int) -> int:
    return cents * rate // 100


@bills.state
def total(cents: int, tax: int) -> int:
    return cents + tax


shop = perdure.pipeline("shop", steps=[prices, bills], input=int)


async def test_values_go_by_the_names_that_the_state_has_for_them() -> None:
    """Its operation's own, those that it imports from steps or from the initial context, and whole ones."""
    async with perdure.open(Stores.in_memory(), shop) as p:
        run = await p.start(shop, 3, context={"rate": 7})
        assert (await run.result())["total"] == 321
        for values, wanted, keys in (
            ({}, 321, ()),
            ({"tax": 0}, 300, ("shop.bills.tax",)),
            ({"cents": 1000}, 1021, ("shop.prices.cents",)),
            ({"shop.prices.cents": 1000, "tax": 5}, 1005, ("shop.prices.cents", "shop.bills.tax")),
        ):
            fork = await p.fork(run.id, "total", set=values)
            assert (await fork.result())["total"] == wanted
            told: Any = await status_of(p.stores, fork.id)
            assert told["forked_from"]["set_keys"] == list(keys)
            assert told["forked_from"]["by"] == "program"
        fork = await p.fork(run.id[:8], "tax", set={"rate": 10})
        assert (await fork.result())["total"] == 330


async def test_a_run_that_lacks_an_import_is_mended_by_a_fork() -> None:
    """The state says that it reads the key, so it may be set though nobody has."""
    async with perdure.open(Stores.in_memory(), shop) as p:
        run = await p.start(shop, 3)
        with pytest.raises(RunError, match="unsatisfied_import"):
            await run.result()
        assert (await (await p.fork(run.id, "tax", set={"rate": 0})).result())["total"] == 300


async def test_arguments_that_make_no_sense_are_refused() -> None:
    """Before anything is written."""
    async with perdure.open(Stores.in_memory(), shop) as p:
        run = await p.start(shop, 3, context={"rate": 7})
        await run.wait()
        mistaken: Any = p.fork
        for options in ({"set": [1]}, {"op_version": 2}, {"key": ""}, {"by": None}, {"reason": 7}):
            with pytest.raises(InvalidPlanError, match="call_invalid"):
                await mistaken(run.id, "tax", **options)
        with pytest.raises(CanonicalJsonError, match="secrets_detected"):
            await p.fork(run.id, "tax", reason="password=hunter22hunter22")
        with pytest.raises(NotFoundError, match="run_not_found"):
            await p.fork(RunId.random(), "tax")
        with pytest.raises(NotFoundError, match="run_not_found"):
            await p.fork(RunId.random(), "tax", op_version="1")
        assert [each.run_id for each in await p.list()] == [run.id]


async def test_another_version_is_asked_whether_it_takes_the_input() -> None:
    """And an operation's configuration; a pipeline's definition has those of its steps."""

    def work(config: Any, version: str, given: type) -> Any:
        op: Any = perdure.op("work", version, input=given, config=config)

        def done(config: Any) -> Any:
            return [version, config]

        op.state(done)
        return op

    one, two, three = work(int, "1", str), work(int, "2", str), work(int, "3", int)
    texts = work(str, "4", str)
    old = perdure.pipeline("line", "1", steps=[perdure.step("main", one, config=1)])
    new = perdure.pipeline("line", "2", steps=[perdure.step("main", two, config=2)])
    async with perdure.open(Stores.in_memory(), App([one, two, three, texts, old, new])) as p:
        run = await p.start(one, "x", config=7)
        assert await (await p.fork(run.id, "done", op_version="2")).result() == ["2", 7]
        for version, code in (("3", "input_invalid"), ("4", "config_invalid")):
            with pytest.raises(InvalidPlanError, match=code):
                await p.fork(run.id, "done", op_version=version)
        line = await p.start(old)
        assert await line.result() == ["1", 1]
        assert await (await p.fork(line.id, "done", op_version="2")).result() == ["2", 2]


async def test_a_fork_is_left_to_others_or_made_once() -> None:
    """As a start is."""
    stores = Stores.in_memory()
    async with perdure.open(stores, shop, recover=False) as p:
        run = await p.start(shop, 3, context={"rate": 7})
        await run.wait()
        left = await p.fork(run.id, "total", detach=True, key="k")
        assert await left.phase() is RunPhase.RUNNING
        again = await p.fork(run.id, "total", key="k")
        assert again.id == left.id == RunId.for_invocation("k")
        assert (await again.result())["total"] == 321
        wanted = RunId.random()
        assert (await p.fork(run.id, "total", new_run_id=wanted)).id == wanted


async def test_a_fork_outlives_the_run_that_it_comes_from() -> None:
    """It holds all that it needs: it is replayed, and forked, after that is deleted and swept away."""
    clock = FakeClock()
    stores = memory_stores(clock=clock)
    async with perdure.open(stores, shop, clock=clock) as p:
        run = await p.start(shop, 3, context={"rate": 7})
        await run.wait()
        fork = await p.fork(run.id, "total", set={"tax": 0})
        await fork.wait()
        assert await p.delete(run.id) == [run.id]
        clock.advance(2 * 60 * 60 * 1000)
        assert (await p.prune(apply=True)).artifacts > 0
        assert (await fork.replay()).first_difference is None
        again = await p.fork(fork.id, "tax", set={"cents": 1000})
        assert (await again.result())["total"] == 1070


async def test_a_leg_of_a_long_life_is_forked_by_itself() -> None:
    """Its fork goes on as new runs of its own."""
    counting = perdure.op("counting", input=int)

    @counting.state
    def count(number: int) -> int:
        return number + 1

    @counting.state
    async def again(count: int, io: IoProvider) -> int:
        if count < 3:
            perdure.continue_as_new(count)
        return count

    async with perdure.open(Stores.in_memory(), counting) as p:
        run = await p.start(counting, 0)
        ended = await run.wait()
        second = RunId(run.id).next_leg()
        assert ended.run_id == second.next_leg()
        fork = await p.fork(second, "again", set={"count": 7})
        assert await fork.result() == 7
        fork = await p.fork(second, "count")
        assert (await fork.wait()).run_id == fork.id.next_leg()


def test_without_an_event_loop(tmp_path: Path) -> None:
    """The same calls, waited for."""
    patient = perdure.op("patient", input=int)

    @patient.state
    def first(given: int) -> int:
        return given

    @patient.state
    def second(first: int, io: BlockingIo) -> str:
        return f"{first} {io.patched('new')}"

    with perdure.open(tmp_path / "runs.db", patient) as p:
        run = p.start(patient, 1)
        assert run.result() == "1 True"
        assert p.fork(run.id, "second", set={"first": 2}).result() == "2 True"


async def test_a_long_run_s_states_are_not_all_named_in_a_message() -> None:
    """A dozen are; the details have all."""
    long = perdure.op("long", states=[_nothing(f"s{number:02}") for number in range(20)])
    async with perdure.open(Stores.in_memory(), long) as p:
        run = await p.start(long)
        await run.wait()
        with pytest.raises(NotFoundError) as caught:
            await p.fork(run.id, "s20")
        assert caught.value.info.message.endswith("long.main.s11 and 8 more")
        assert len(caught.value.info.details["states"]) == 20
        with pytest.raises(InvalidPlanError, match="it has none"):
            await p.fork(run.id, "s00", set={"s": 1})


def _nothing(name: str) -> Any:
    def nothing() -> str:
        return f"{name} was here"

    nothing.__name__ = name
    return perdure.state(nothing)


async def test_states_side_by_side() -> None:
    """Those that had completed when the state was entered are carried over; what is set is seen by it."""
    wide = perdure.op("wide", states=[_nothing("a"), _nothing("b"), _nothing("c")])

    @wide.state(after=["a", "b", "c"])
    def joined() -> str:
        return "joined"

    config = perdure.RunConfig(execution_mode=perdure.FanOutJoin())
    async with perdure.open(Stores.in_memory(), wide) as p:
        run = await p.start(wide, run_config=config)
        await run.wait()
        for at in ("a", "b", "c", "joined"):
            fork = await p.fork(run.id, at)
            assert (await fork.wait()).phase is RunPhase.COMPLETED
            assert await fork.context() == await run.context()
            assert (await fork.replay()).first_difference is None
        fork = await p.fork(run.id, "joined", set={"a": "x"})
        assert (await fork.context())["wide.main.a"] == "x"
