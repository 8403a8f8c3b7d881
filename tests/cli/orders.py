"""A family of runs whose screens are looked at: an order, its items, and a crowd of parcels."""

from __future__ import annotations

import perdure
from perdure import App, ChildRunError, IoProvider, RunId, RunStatus, StateError
from perdure.model.events import ParentRun
from tests.cli.shop import opened
from tests.families import failed, write_run

item = perdure.op("item", input=str, output=str)


@item.state
async def packing(name: str, io: IoProvider) -> str:
    """Some things have to be found first."""
    if name == "milk":
        raise StateError.of("sold_out", "there is no milk")
    if name == "saffron":
        await io.wait_signal("found")
    return name


greeting = perdure.op("greeting", output=str)


@greeting.state
async def card(io: IoProvider) -> str:
    """Somebody writes it, some day."""
    signal = await io.wait_signal("written")
    assert signal is not None
    return str(signal.value)


order = perdure.op("order", input=list[str], output=list[str])


@order.state
async def items(names: list[str]) -> list[str]:
    """Every item that can be had."""
    await perdure.spawn(greeting, name="greeting", close="abandon")
    found = []
    for name in names:
        child = await perdure.spawn(item, name, name=name)
        try:
            found.append(await child.result())
        except ChildRunError as error:
            found.append(error.code)
    return found


app = App([order, item, greeting])
PARENT, CROWD = RunId.for_invocation("order-20"), RunId.for_invocation("order-21")
SAFFRON = PARENT.child("child:order.main.items|saffron")


async def fill_with_family(path: str) -> None:
    """A store with an order that waits for one of its items, and one that has many."""
    client = opened(path, app)
    run = await client.start(order, ["tea", "milk", "saffron"], key="order-20")
    await client.drive_result(run.id)
    ids = [CROWD.child(str(number)) for number in range(60)]
    await write_run(client.stores, CROWD, op_id="order", children=ids)
    for number, child in enumerate(ids[:-1]):
        parent, end = ParentRun(CROWD, 1), RunStatus.COMPLETED
        if number % 20 == 7:
            after, end = [failed("sold_out", "item")], RunStatus.FAILED
            await write_run(client.stores, child, op_id="item", parent=parent, after=after, end=end)
        else:
            await write_run(client.stores, child, op_id="item", parent=parent, end=end)
    await client.aclose()
