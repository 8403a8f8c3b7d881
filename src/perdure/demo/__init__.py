"""A small shop that `perdure demo` runs, kills and resumes: offline, and the whole of it on one page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from perdure import App, IoCall, IoProvider, TransportEnv, op

LOG_VARIABLE = "PERDURE_DEMO_LOG"


@dataclass
class Order:
    """What a customer wants."""

    item: str
    count: int


checkout = op("checkout", input=Order, output=str)


@checkout.state
async def price(order: Order, io: IoProvider) -> int:
    """Ask the catalogue for the price of one piece, in cents."""
    answer = await io.call(IoCall("shop.catalogue", {"item": order.item}, fact_key="price"))
    return int(answer.response["cents"])


@checkout.state
async def shelf(order: Order, io: IoProvider) -> str:
    """Have the warehouse put the pieces aside; it says where they lie."""
    request = {"item": order.item, "count": order.count}
    answer = await io.call(IoCall("shop.warehouse", request, fact_key="shelf"))
    return str(answer.response["shelf"])


@checkout.state
async def courier(shelf: str, io: IoProvider) -> str:
    """Call a courier to the shelf."""
    answer = await io.call(IoCall("shop.couriers", {"from": shelf}, fact_key="courier"))
    return str(answer.response["name"])


@checkout.state
def receipt(order: Order, price: int, courier: str) -> str:
    """Write the receipt: from what is known, without asking anybody."""
    cents = order.count * price
    return f"{order.count} x {order.item}: {cents // 100}.{cents % 100:02d}, brought by {courier}"


class Services:
    """The outside world of the demo. It notes every question in a file, so that one can count them."""

    namespace_group = "shop"

    def make(self, env: TransportEnv) -> Services:
        return self

    async def call(self, call: IoCall) -> Any:
        log = os.environ.get(LOG_VARIABLE)
        if log:
            os.write(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), f"{call.namespace}\n".encode())
        return _ANSWERS[call.namespace]


_ANSWERS: dict[str, Any] = {
    "shop.catalogue": {"cents": 450},
    "shop.warehouse": {"shelf": "B7"},
    "shop.couriers": {"name": "Ada"},
}

app = App([checkout], transports=[Services()])
