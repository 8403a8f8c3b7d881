"""Children as authors spawn them."""

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
    ChildRunError,
    DomainEvent,
    IoProvider,
    RetryPolicy,
    RunError,
    RunStatus,
    StateError,
    Stores,
)


@dataclass(frozen=True)
class Order:
    """What a child works on."""

    name: str
    cents: int


price = perdure.op("price", input=Order, output=int)


@price.state
async def total(order: Order) -> int:
    """The simplest child's result; it refuses to give anything away."""
    if order.cents <= 0:
        raise StateError.of("nothing_to_pay", "the order is free")
    return order.cents * 2


async def run(operation: Any, given: Any = None, *ops: Any, **options: Any) -> tuple[Any, Stores, Any]:
    """The result of a run, the stores, and the run."""
    stores = Stores.in_memory()
    async with perdure.open(stores, App([operation, price, *ops]), **options) as p:
        started = await p.start(operation, given)
        return await started.result(), stores, started


async def test_a_childs_result_has_its_type() -> None:
    """Spawned, and awaited later."""
    shop = perdure.op("shop", output=int)

    @shop.state
    async def both(io: IoProvider) -> int:
        first = await perdure.spawn(price, Order("a", 1))
        second = await perdure.spawn(price, Order("b", 10), name="second", close="cancel")
        return await second.result() - await first.result()

    result, stores, parent = await run(shop)
    assert result == 18
    ids = {parent.id.child("child:shop.main.both|price|0"), parent.id.child("child:shop.main.both|second")}
    assert set(await stores.events.list_runs()) == {parent.id, *ids}


async def test_children_are_gathered_in_the_order_of_their_inputs() -> None:
    """However many have a place at a time."""
    shop = perdure.op("shop", input=list[Order], output=list[int])

    @shop.state
    async def prices(orders: list[Order]) -> list[int]:
        return await perdure.gather_children(price, orders)

    orders = [Order(str(number), number + 1) for number in range(40)]
    result, _, _ = await run(shop, orders, max_concurrency=3)
    assert result == [2 * order.cents for order in orders]


async def test_a_failed_child_raises_its_own_error() -> None:
    """With its code, so that the parent fails for the same reason unless it says otherwise."""
    shop = perdure.op("shop", input=list[Order], output=int)
    seen: list[Any] = []

    @shop.state
    async def prices(orders: list[Order]) -> int:
        seen.extend(await perdure.gather_children(price, orders, return_exceptions=True))
        child = await perdure.spawn(price, orders[1])
        with pytest.raises(ChildRunError) as caught:
            await child.result()
        assert (caught.value.end.status, caught.value.end.state_id) == (RunStatus.FAILED, "price.main.total")
        return sum(await perdure.gather_children(price, orders, names=["a", "b"]))

    with pytest.raises(RunError) as caught:
        await run(shop, [Order("a", 1), Order("b", 0)])
    assert caught.value.info.details["code"] == "nothing_to_pay"
    assert seen[0] == 2
    assert seen[1].code == "nothing_to_pay"


async def test_functions_in_threads_spawn_too() -> None:
    """They wait for it."""
    shop = perdure.op("shop", output=int)

    @shop.state
    def one(io: BlockingIo) -> int:
        child = io.wait(perdure.spawn(price, Order("a", 4)))
        return io.wait(child.result())

    assert (await run(shop))[0] == 8


async def test_a_child_survives_its_parents_retries() -> None:
    """Code that moves around the spawn does not move the child."""
    shop = perdure.op("shop", output=int)
    attempts: list[int] = []

    @shop.state(retry=RetryPolicy(3))
    async def one(io: IoProvider) -> int:
        attempts.append(1)
        if len(attempts) > 1:
            await io.sleep(timedelta(milliseconds=1))
            await io.record_value("more", 1)
        child = await perdure.spawn(price, Order("a", 4))
        if len(attempts) == 1:
            raise StateError.of("again", "not yet", retryable=True)
        return await child.result()

    result, stores, _ = await run(shop)
    assert (result, len(attempts)) == (8, 2)
    assert len(await stores.events.list_runs()) == 2


async def test_what_cannot_be_spawned_is_refused() -> None:
    """Outside of a state, under a bad name, of an operation that the app does not have, and for ever."""
    with pytest.raises(StateError) as caught:
        await perdure.spawn(price, Order("a", 1))
    assert caught.value.code == "spawn_outside_state"

    shop, stranger, codes = perdure.op("shop", output=int), perdure.op("stranger", output=int), []

    @stranger.state
    async def nothing() -> int:
        return 0

    untyped: Any = price
    no_operation: Any = "price"

    @shop.state
    async def bad() -> int:
        for attempt in (
            perdure.spawn(price, Order("a", 1), name="7"),
            perdure.spawn(stranger),
            perdure.spawn(untyped, "text"),
            perdure.spawn(no_operation),
        ):
            with pytest.raises(perdure.PerdureError) as caught:
                await attempt
            codes.append(caught.value.code)
        return 1

    await run(shop)
    assert codes == ["child_name_invalid", "op_not_found", "input_invalid", "call_invalid"]


async def test_a_parent_that_waits_for_a_parked_child_is_woken(tmp_path: Path) -> None:
    """By the end of the child, whoever executes it."""
    patient, shop = perdure.op("patient", output=str), perdure.op("shop", output=str)

    @patient.state
    async def hear(io: IoProvider) -> str:
        signal = await io.wait_signal("go")
        assert signal is not None
        return str(signal.value)

    @shop.state
    async def ask() -> str:
        return await (await perdure.spawn(patient)).result()

    path = tmp_path / "runs.db"
    async with perdure.open(path, App([shop, patient]), recover=False) as p:
        parent = await p.start(shop)
        child = parent.id.child("child:shop.main.ask|patient|0")
        assert (await p.drive_result(parent.id)).waiting_for == f"child {child}"
        async with perdure.open(path, App([shop, patient]), recover=False) as other:
            await (await other.get(child)).signal("go", "done")
        assert await asyncio.wait_for(parent.result(), 20) == "done"
        events = await p.stores.events.read_range(parent.id, 1)
        names = [each.event.name for each in events if isinstance(each.event, DomainEvent)]
        assert names.count("wait_started") == 1
        assert names.count("child_run_completed") == 1
