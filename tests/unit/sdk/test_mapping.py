"""Maps as authors write them: typed, in states that are functions, with and without an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import BlockingIo, IoCall, IoProvider, ItemError, MapError, RetryPolicy, RunError, Stores, op
from perdure.testing import RunInMemory

ONCE = RetryPolicy(max_attempts=1)


@dataclass(frozen=True)
class Line:
    """An item."""

    name: str
    cents: int


@dataclass(frozen=True)
class Price:
    """What an item comes to."""

    name: str
    cents: int
    parts: tuple[int, ...] = ()


async def priced(line: Line) -> Price:
    """A result that JSON alone would not give back as it was."""
    return Price(line.name, line.cents * 2, (1, 2))


def test_items_and_results_are_typed(perdure_run: RunInMemory) -> None:
    """What comes back is of the type that the function says, whether recorded or not."""
    seen: list[Price] = []
    shop = op("shop", input=list[Line], output=int)

    @shop.state
    async def total(input: list[Line], io: IoProvider) -> int:  # noqa: A002 — the term
        prices = await perdure.map_over(input, priced)
        seen.extend(prices)
        return sum(price.cents for price in prices)

    run = perdure_run(shop, [Line("a", 1), Line("b", 2)])
    assert run.result() == 6
    assert seen == [Price("a", 2, (1, 2)), Price("b", 4, (1, 2))] * 2


def test_functions_that_are_not_async(perdure_run: RunInMemory) -> None:
    """They run in threads, and what they use is numbered as in others; items may come from a generator."""
    threads: set[str] = set()
    shop = op("shop", input=int, output=list[str])

    @shop.state
    def labels(input: int, io: BlockingIo) -> list[str]:  # noqa: A002 — the term
        def numbers() -> Iterator[int]:
            for number in range(input):
                io.call(IoCall("shop.page", number, fact_key=f"page-{number}"))
                yield number

        def label(number: int) -> str:
            threads.add(threading.current_thread().name.rpartition("_")[0])
            return f"{number} {io.uuid4()}"

        first = io.wait(perdure.map_over(range(input), label, max_concurrency=4))
        second = list(io.each(perdure.map_over(numbers(), label, name="second")))
        return [*first, *second]

    result = perdure_run(shop, 3, answers={"shop.page": True}).result()
    assert [each.split()[0] for each in result] == ["0", "1", "2"] * 2
    assert len({each.split()[1] for each in result}) == 6
    assert threads == {"perdure-map"}


def test_a_thread_that_waits_is_freed_when_the_run_is_parked(perdure_run: RunInMemory) -> None:
    """However often: threads are few."""
    naps = op("naps", input=int, output=int)

    @naps.state
    def nap(input: int, io: BlockingIo) -> int:  # noqa: A002 — the term
        for _ in range(input):
            io.sleep(timedelta(days=1))
        return input

    before = threading.active_count()
    assert perdure_run(naps, 100).result() == 100
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ("items", "result", "code"),
    [
        ([0.5], 1, "map_item_invalid"),
        ([object()], 1, "map_item_invalid"),
        (["-----BEGIN PRIVATE KEY-----\nabc"], 1, "secrets_detected"),
        ([1], "one", "map_items_failed"),
    ],
)
def test_what_cannot_be_recorded(perdure_run: RunInMemory, items: list[Any], result: Any, code: str) -> None:
    """An item that has no exact form, and a result of another type."""
    shop = op("shop", output=int)

    @shop.state(retry=ONCE)
    async def total(io: IoProvider) -> int:
        async def work(item: object) -> int:
            value: int = result
            return value

        return len(await perdure.map_over(items, work))

    error = perdure_run(shop, check_replay=False).error
    assert isinstance(error, RunError)
    assert error.info.details["code"] == code


def test_errors_tell_what_failed(perdure_run: RunInMemory) -> None:
    """A handler that catches the end of a map finds the item's own error, and may go on."""
    caught: list[MapError] = []
    shop = op("shop", output=int)

    @shop.state
    async def total(io: IoProvider) -> int:
        async def work(number: int) -> int:
            return number // (number - 1)

        try:
            await perdure.map_over([0, 1, 2], work, max_concurrency=1)
        except MapError as error:
            caught.append(error)
        await io.sleep(timedelta(days=1))
        return 1

    assert perdure_run(shop, check_replay=False).result() == 1
    error = caught[0]
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert [(each.index, each.code) for each in error.errors] == [(1, "handler_raised")]
    assert isinstance(error.errors[0], ItemError)


def test_a_map_may_be_left_early(perdure_run: RunInMemory) -> None:
    """What runs ahead is stopped, and what it came to is on record."""
    working: set[int] = set()
    shop = op("shop", output=int)

    @shop.state
    async def first(io: IoProvider) -> int:
        async def work(number: int) -> int:
            if number > 3:
                working.add(number)
                try:
                    await asyncio.Event().wait()
                finally:
                    working.discard(number)
            return number

        async for number in perdure.map_over(range(10), work, max_concurrency=2):
            if number == 2:
                break
        return number

    assert perdure_run(shop).result() == 2
    assert not working


async def test_an_interrupted_map_goes_on() -> None:
    """Closing the client keeps what is done, also what was not yet written."""
    entered, worked = asyncio.Event(), list[int]()
    shop = op("shop", output=int)

    @shop.state
    async def total(io: IoProvider) -> int:
        async def work(number: int) -> int:
            worked.append(number)
            if number == 2 and not entered.is_set():
                entered.set()
                await asyncio.Event().wait()
            return number

        return sum(await perdure.map_over(range(4), work, max_concurrency=1))

    stores = Stores.in_memory()
    async with perdure.open(stores, shop) as p:
        run = await p.start(shop)
        await entered.wait()
    async with perdure.open(stores, shop) as p:
        assert await (await p.resume(run.id)).result() == 6
    assert worked == [0, 1, 2, 2, 3]


def test_children_of_items(perdure_run: RunInMemory) -> None:
    """An item may spawn; each child belongs to its item, whichever is first."""
    double = op("double", input=int, output=int)

    @double.state
    async def doubled(input: int) -> int:  # noqa: A002 — the term
        return input * 2

    shop = op("shop", output=list[int])

    @shop.state
    async def total(io: IoProvider) -> list[int]:
        async def work(number: int) -> int:
            for _ in range(3 - number):
                await asyncio.sleep(0)
            return await (await perdure.spawn(double, number)).result()

        return await perdure.map_over(range(3), work)

    run = perdure_run(shop, ops=[double])
    assert run.result() == [0, 2, 4]
    facts = [
        each.event.payload["key"]
        for each in run.events
        if isinstance(each.event, perdure.DomainEvent) and each.event.name == "fact_recorded"
    ]
    assert {f"child:shop.main.total#{item}|double|0" for item in range(3)} <= set(facts)


async def items_of(count: int) -> AsyncIterator[int]:
    """Items that come one after another."""
    for number in range(count):
        await asyncio.sleep(0)
        yield number


def test_calls_that_make_no_sense_are_refused(perdure_run: RunInMemory) -> None:
    """Where they are made, with the line."""
    shop = op("shop", output=int)

    @shop.state
    async def total(io: IoProvider) -> int:
        mistakes: list[dict[str, Any]] = [
            {"name": "Loud"},
            {"max_concurrency": 0},
            {"retry": 3},
            {"failures_max": 3},
            {"return_exceptions": True, "failures_max": 1.5},
            {"process": True},
        ]
        for options in mistakes:
            with pytest.raises(perdure.InvalidPlanError) as refused:
                perdure.map_over([Line("a", 1)], priced, **options)
            assert refused.value.code == "call_invalid"
            assert __file__ in refused.value.info.message
        return len(await perdure.map_over(items_of(3), abs))

    assert perdure_run(shop).result() == 3
