"""Long lives as authors write them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import (
    App,
    BlockingIo,
    Context,
    IoProvider,
    Run,
    RunError,
    RunId,
    RunPhase,
    RunResult,
    StateError,
    Stores,
)
from perdure.engine.recovery import read_view
from perdure.stores.memory import MemoryState, memory_stores
from perdure.testing import FakeClock


@dataclass(frozen=True)
class Page:
    """What a leg works on."""

    number: int
    last: int


crawl = perdure.op("crawl", input=Page, output=list[int], exports=["total"])


@crawl.state
async def fetch(page: Page) -> int:
    """A page."""
    return page.number * 10


@crawl.state
async def total(page: Page, fetch: int, ctx: Context) -> list[int]:
    """All pages so far, a leg for each."""
    seen = [*(ctx.read("seen") or []), fetch]
    if page.number < page.last:
        perdure.continue_as_new(Page(page.number + 1, page.last), carry={"seen": seen})
    return seen


async def test_a_run_is_all_of_its_legs() -> None:
    """Whoever started it gets the last leg's result, and asks it for what is now."""
    stores = Stores.in_memory()
    async with perdure.open(stores, crawl) as p:
        run = await p.start(crawl, Page(1, 4), key="k")
        assert await run.result() == [10, 20, 30, 40]
        assert await run.wait() == RunResult(
            await run.newest_leg(), RunPhase.COMPLETED, (await run.wait()).final_snapshot_id
        )
        assert await run.phase() is RunPhase.COMPLETED
        assert (await run.context())["crawl.main.total"] == [10, 20, 30, 40]
        again = await p.start(crawl, Page(1, 4), key="k")
        assert (again.id, await again.result()) == (run.id, [10, 20, 30, 40])
        (listed,) = await p.list()
        assert (listed.run_id, listed.leg, listed.first_run_id) == (await run.newest_leg(), 4, run.id)
        legs = [each.run_id for each in await p.list(legs=True)]
        assert (len(legs), legs[0], legs[-1]) == (4, listed.run_id, run.id)
        assert p.driven == []
        assert not p._driven._ids


async def test_a_leg_has_its_own_input_and_what_was_carried() -> None:
    """Results of the leg before are not there, unless they were carried."""
    seen: list[Any] = []
    op = perdure.op("tick", input=int)

    @op.state
    async def first(n: int) -> int:
        return n

    @op.state
    async def then(first: int, ctx: Context) -> None:
        seen.append(dict(ctx.dump()))
        if first < 3:
            perdure.continue_as_new(first + 1, carry={"page": Page(first, 3)})

    async with perdure.open(Stores.in_memory(), op) as p:
        await (await p.start(op, 1)).result()
    assert seen == [
        {"first": 1},
        {"first": 2, "page": {"number": 1, "last": 3}},
        {"first": 3, "page": {"number": 2, "last": 3}},
    ]


async def test_without_an_input_it_stays() -> None:
    """None is an input, where the type has it."""
    seen: list[int | None] = []
    op = perdure.op("tick", input=int | None)

    @op.state
    def go(n: int | None, ctx: Context) -> None:
        seen.append(n)
        if len(seen) == 1:
            perdure.continue_as_new()
        if len(seen) == 2:
            perdure.continue_as_new(None)

    async with perdure.open(Stores.in_memory(), op) as p:
        await (await p.start(op, 7)).result()
    assert seen == [7, 7, None]


async def test_a_pipeline_goes_on_as_a_whole() -> None:
    """From its first step, with the context that it was started with; a step carries for itself."""
    seen: list[Any] = []
    one = perdure.op("one", output=str, imports={"greeting": str})
    two = perdure.op("two", imports={"word": str})

    @one.state
    async def word(greeting: str, ctx: Context) -> str:
        seen.append(("one", ctx.dump()))
        return greeting

    @two.state
    async def say(word: str, ctx: Context) -> None:
        number = ctx.read("number") or 0
        seen.append((word, ctx.dump()))
        if number < 1:
            perdure.continue_as_new(carry={"number": number + 1})

    talk = perdure.pipeline("talk", steps=[one, two])
    async with perdure.open(Stores.in_memory(), talk) as p:
        run = await p.start(talk, context={"greeting": "hello"})
        await run.result()
        assert await run.newest_leg() == run.id.next_leg()
    assert seen == [("one", {}), ("hello", {}), ("one", {}), ("hello", {"number": 1})]


@pytest.mark.parametrize(
    ("given", "carry", "code"),
    [
        ("three", {}, "input_invalid"),
        (3, {"password": "correct horse battery"}, "secrets_detected"),
        (3, {"at": object()}, "carry_invalid"),
        (3, {"at": 0.5}, "context_not_canonical"),
        (3, [1], "call_invalid"),
    ],
)
async def test_what_cannot_be_started_fails_the_state(given: Any, carry: Any, code: str) -> None:
    """With the code that starting it would have; the run ends there."""
    op = perdure.op("tick", input=int)

    @op.state
    async def go(n: int) -> None:
        perdure.continue_as_new(given, carry=carry)

    async with perdure.open(Stores.in_memory(), op) as p:
        run = await p.start(op, 1)
        with pytest.raises(RunError) as failed:
            await run.result()
        assert failed.value.info.details["code"] == code
        assert await run.newest_leg() == run.id


async def test_only_states_go_on() -> None:
    """And no function's `except Exception` is in the way."""
    with pytest.raises(StateError) as refused:
        perdure.continue_as_new(1)
    assert refused.value.code == "continue_outside_state"
    op = perdure.op("tick", input=int, output=int)

    @op.state
    async def go(n: int) -> int:
        try:
            if n < 2:
                perdure.continue_as_new(n + 1)
        except Exception:  # noqa: BLE001 — as authors write it
            return -1
        return n

    async with perdure.open(Stores.in_memory(), op) as p:
        assert await (await p.start(op, 1)).result() == 2


def test_functions_in_threads_go_on_too() -> None:
    """And programs without an event loop follow."""
    op = perdure.op("tick", input=int, output=int)

    @op.state
    def go(n: int, io: BlockingIo) -> int:
        io.now_millis()
        if n < 3:
            perdure.continue_as_new(n + 1)
        return n

    with perdure.open(Stores.in_memory(), op) as p:
        run = p.start(op, 1)
        assert run.result() == 3
        assert run.newest_leg() == run.id.next_leg().next_leg()


listens = perdure.op("listens", output=list[str])
go_signal = listens.signal("go", str)


@listens.state
async def heard(io: IoProvider, ctx: Context) -> list[str]:
    """Three words, one a leg."""
    words = list(ctx.read("words") or [])
    received = await go_signal.wait(io)
    assert received is not None
    words.append(received.value)
    if len(words) < 3:
        perdure.continue_as_new(carry={"words": words})
    return words


async def until_it_went_on(run: Run[Any]) -> None:
    """Wait for the second leg."""
    while await run.newest_leg() == run.id:  # noqa: ASYNC110 — nobody announces it
        await asyncio.sleep(0)


async def test_whoever_holds_the_first_leg_talks_to_the_last() -> None:
    """In a client that drives it, parked again and again."""
    async with perdure.open(Stores.in_memory(), listens) as p:
        run = await p.start(listens)
        waiting = asyncio.create_task(run.result())
        for word in ("a", "b", "c"):
            await run.signal(go_signal, word)
        assert await asyncio.wait_for(waiting, 10) == ["a", "b", "c"]
        assert await run.phase() is RunPhase.COMPLETED
        assert await run.newest_leg() == run.id.next_leg().next_leg()


async def test_another_client_follows_too() -> None:
    """By looking, whoever drives it."""
    state = MemoryState()
    async with (
        perdure.open(memory_stores(state), listens) as here,
        perdure.open(memory_stores(state), listens, recover=False) as there,
    ):
        run = await here.start(listens)
        other = await there.get(run.id, listens)
        waiting = asyncio.create_task(other.result())
        for word in ("a", "b", "c"):
            await other.signal(go_signal, word)
            while await other.phase() is RunPhase.RUNNING:
                view = await read_view(here.stores, await other.newest_leg())
                if view.waiting_for is not None and not view.inbox.letters:
                    break
                await asyncio.sleep(0)
        assert await asyncio.wait_for(waiting, 10) == ["a", "b", "c"]


async def test_who_cancels_the_first_leg_cancels_the_run() -> None:
    """Though it went on meanwhile."""
    async with perdure.open(Stores.in_memory(), listens) as p:
        run = await p.start(listens)
        await run.signal(go_signal, "a")
        await until_it_went_on(run)
        await run.cancel("enough")
        assert (await run.wait()).phase is RunPhase.CANCELLED
        with pytest.raises(RunError) as stopped:
            await run.result()
        assert stopped.value.code == "run_cancelled"
        assert stopped.value.info.details["run_id"] == run.id.next_leg()


async def test_a_run_is_resumed_by_its_first_leg(tmp_path: Path) -> None:
    """In another process, later: parked there, woken there, and waited for."""
    async with perdure.open(tmp_path / "runs.db", listens) as p:
        run = await p.start(listens)
        await run.signal(go_signal, "a")
        await until_it_went_on(run)
        run_id = run.id
    async with perdure.open(tmp_path / "runs.db", listens, recover=False) as p:
        again = await p.resume(run_id)
        waiting = asyncio.create_task(again.wait())
        await again.signal(go_signal, "b")
        await again.signal(go_signal, "c")
        ended = await asyncio.wait_for(waiting, 10)
        assert ended.run_id == RunId(run_id).next_leg().next_leg()


async def test_why_a_later_leg_cannot_be_driven_reaches_who_waits_for_the_first() -> None:
    """It waits for a leg that nobody can plan."""
    state = MemoryState()
    async with perdure.open(memory_stores(state), listens) as p:
        run = await p.start(listens)
        await run.signal(go_signal, "a")
        await until_it_went_on(run)
    async with perdure.open(memory_stores(state), App(), recover=False) as p:
        waiting = await p.resume(run.id)
        with pytest.raises(perdure.InvalidPlanError) as refused:
            await asyncio.wait_for(waiting.wait(), 10)
        assert refused.value.code == "run_blocked_by_version"


def test_in_memory_all_legs_are_run_and_replayed(perdure_run: Any) -> None:
    """The fixture's run is all of them too; time jumps."""
    op = perdure.op("daily", input=int, output=int)

    @op.state
    async def day(n: int, io: IoProvider) -> int:
        await io.sleep(timedelta(days=1))
        if n < 3:
            perdure.continue_as_new(n + 1)
        return n

    finished = perdure_run(op, 1)
    assert finished.result() == 3
    assert len({each.run_id for each in finished.events}) == 3
    assert finished.replay.run_id == finished.events[-1].run_id


async def test_a_client_keeps_nothing_of_old_legs() -> None:
    """However many there were."""
    op = perdure.op("tick", input=int)

    @op.state
    async def go(n: int) -> None:
        assert len(p.driven) == len(p._driven._ids) == 1
        assert len(p._watcher._changed) <= 2
        if n:
            perdure.continue_as_new(n - 1)

    clock = FakeClock()
    async with perdure.open(memory_stores(clock=clock), op, clock=clock) as p:
        run = await p.start(op, 200)
        assert (await run.wait()).phase is RunPhase.COMPLETED


async def test_the_ends_of_a_chain_are_deleted_together() -> None:
    """Without the first the key begins a run that meets old legs; without the newest there is no result."""
    async with perdure.open(Stores.in_memory(), crawl) as p:
        run = await p.start(crawl, Page(1, 3), key="k")
        assert await run.result() == [10, 20, 30]
        newest, between, first = [each.run_id for each in await p.list(legs=True)]
        for alone in (first, newest):
            with pytest.raises(RunError, match="run_referred_to"):
                await p.delete(alone)
        await p.delete(between)
        assert await (await p.start(crawl, Page(1, 3), key="k")).result() == [10, 20, 30]
        await p.delete(first, newest)
        other = await p.start(crawl, Page(1, 2), key="k")
        assert (other.id, await other.result()) == (first, [10, 20])
