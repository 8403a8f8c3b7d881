"""Apps whose screens are looked at: one that works, one that was changed since, one with mistakes."""

from __future__ import annotations

from pathlib import Path

from perdure import App, IoCall, IoProvider, Stores, op, pipeline
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


delivery = pipeline("delivery", steps=[checkout, parcel], input=Order, output=dict)
app = App([checkout, refund, delivery], transports=[Services()])

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


async def fill(path: str) -> None:
    """A store with a run that completed, one that failed, and one that nobody drives yet."""
    clock = FakeClock(1_767_225_600_000)
    store = SqliteStore(Path(path), clock=clock)
    stores = Stores(store, store, store, store, store.close, mailbox=store, agenda=store)
    client = Client(stores, app, clock=clock, closes_stores=True)
    for key, started, labels in (
        ("order-7", checkout, {"customer": "7", "channel": "shop"}),
        ("order-8", refund, {"customer": "8"}),
    ):
        config = RunConfig(retry_policy=RetryPolicy(max_attempts=2))
        run = await client.start(started, Order("tea", 3), key=key, labels=labels, run_config=config)
        await run.wait()
    await client.start(delivery, Order("tea", 3), key="order-9", detach=True)
    await client.aclose()


COMPLETED, FAILED, DETACHED = (RunId.for_invocation(f"order-{number}") for number in (7, 8, 9))
