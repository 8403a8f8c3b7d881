"""Apps whose screens are looked at: one that works, one that was changed since, one with mistakes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from perdure import (
    App,
    IoCall,
    IoProvider,
    Recorder,
    SideEffectKind,
    Stores,
    TransportEnv,
    TransportError,
    op,
    pipeline,
    transport,
)
from perdure.adapters.sqlite.store import SqliteStore
from perdure.demo import Order, Services, checkout
from perdure.ids import RunId
from perdure.model.config import RetryPolicy, RunConfig
from perdure.sdk.client import Client
from perdure.testing import FakeClock

refund = op("refund", "2", input=Order, output=str)


@refund.state
async def payment(order: Order, io: IoProvider) -> str:
    """Nobody serves this namespace."""
    return str((await io.call(IoCall("bank.payments", {"item": order.item}, fact_key="payment"))).response)


parcel = op("parcel", imports={"receipt": str}, output=int)


@parcel.state(tags=("post",), retry=RetryPolicy(max_attempts=5))
def label(receipt: str) -> int:
    """A pipeline's second step."""
    return len(receipt)


purchase = op("purchase", input=Order, output=str)


@purchase.state
async def approval(order: Order, io: IoProvider, rec: Recorder) -> str:
    """Wait for somebody's word."""
    await rec.publish("standing", {"item": order.item, "asked": ["ann", "bob"]})
    signal = await io.wait_signal("approval")
    assert signal is not None
    return signal.by


@purchase.state(on_cancel=True)
async def withdrawal(order: Order) -> None:
    """Nothing is bought."""


harvest = op("harvest", input=Order, output=str)


@harvest.state
async def ripening(order: Order, io: IoProvider) -> str:
    """Tea takes its time."""
    await io.sleep_until(datetime(2100, 1, 1, tzinfo=UTC))
    return "ripe"


transfer = op("transfer", input=Order, output=dict)


@transfer.state(side_effects=SideEffectKind.APPLY_SIDE_EFFECT, idempotency="transfer")
async def money(order: Order, io: IoProvider) -> dict[str, int]:
    """Pay; the line drops."""
    return dict((await io.call(IoCall("line.transfer", {"cents": 450 * order.count}))).response)


@transport("line")
async def line(call: IoCall, env: TransportEnv) -> None:
    """A bank behind a bad line, which honours no keys."""
    raise TransportError.of("line_dropped", "no answer came")


delivery = pipeline("delivery", steps=[checkout, parcel], input=Order, output=dict)
app = App(
    [checkout, refund, delivery, purchase, harvest, transfer],
    transports=[Services(), line],
)

changed_checkout = op("checkout", input=Order, output=str)


@changed_checkout.state
async def price(order: Order, io: IoProvider) -> int:
    """As it was, but for a discount."""
    answer = await io.call(IoCall("shop.catalogue", {"item": order.item}, fact_key="price"))
    return int(answer.response["cents"]) - 50


@changed_checkout.state
def shelf(price: int) -> str:
    """Not as it was."""
    return "A1"


@changed_checkout.state
def courier(shelf: str) -> str:
    """Not as it was."""
    return "Bob"


@changed_checkout.state
def receipt(courier: str) -> str:
    """Not as it was."""
    return "nothing"


changed = App([changed_checkout], transports=[Services()])

wrong = op("wrong", input=Order, output=str)


@wrong.state
def total(ordr: Order, prise: int, rate: float) -> float:
    """Three mistakes."""
    return prise * rate


@wrong.state
def price_of(order: int) -> None:
    """Another."""


mistaken = App([wrong, checkout], transports=[Services()])


class StillClock(FakeClock):
    """Jumps over nothing, so that what waits goes on waiting."""

    async def sleep_until(self, due_millis: int) -> None:
        await asyncio.get_running_loop().create_future()


def opened(path: str, app: App = app) -> Client:
    """A client for a store, on a certain day."""
    clock = StillClock(1_767_225_600_000)
    store = SqliteStore(Path(path), clock=clock)
    stores = Stores(
        store, store, store, store, store.close, mailbox=store, agenda=store, schedules=store.schedules
    )
    return Client(stores, app, clock=clock, closes_stores=True)


async def fill(path: str) -> None:
    """A store with a run that completed, one that failed, one that nobody drives yet, and some that wait."""
    client, tea = opened(path), Order("tea", 3)
    for key, started, labels in (
        ("order-7", checkout, {"customer": "7", "channel": "shop"}),
        ("order-8", refund, {"customer": "8"}),
        ("order-10", purchase, {"customer": "7"}),
        ("order-11", transfer, {}),
        ("order-12", harvest, {}),
        ("order-13", purchase, {}),
    ):
        config = RunConfig(retry_policy=RetryPolicy(max_attempts=2))
        run = await client.start(started, tea, key=key, labels=labels, run_config=config)
        await client.drive_result(run.id)
    await (await client.get(PAUSED)).pause("the buyer is away", by="ann")
    await client.start(delivery, tea, key="order-9", detach=True)
    await client.aclose()


async def fill_with_one_due(path: str) -> None:
    """A store with a run that nobody drives yet, and that will have to wait."""
    client = opened(path)
    await client.start(purchase, Order("tea", 3), key="order-14", detach=True)
    await client.aclose()


COMPLETED, FAILED, DETACHED, WAITING, IN_DOUBT, SLEEPING, PAUSED = (
    RunId.for_invocation(f"order-{number}") for number in (7, 8, 9, 10, 11, 12, 13)
)
DOUBTFUL = f"{IN_DOUBT}:transfer.main.money:0"
