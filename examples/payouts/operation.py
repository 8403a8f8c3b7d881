"""Two operations: one pays one invoice; the other has a child run of it pay each, and adds up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import perdure
from perdure import FixedBackoff, IoCall, IoProvider, RetryPolicy, SideEffectKind


@dataclass(frozen=True)
class Invoice:
    """What is owed, in cents."""

    id: str
    cents: int


@dataclass(frozen=True)
class Batch:
    """The invoices to pay, and the bank's address. ``timeout_ms`` is how long one answer may take."""

    bank: str
    invoices: list[Invoice]
    timeout_ms: int = 2_000


@dataclass(frozen=True)
class Order:
    """One invoice of a batch, and what the batch says of the bank."""

    bank: str
    invoice: Invoice
    timeout_ms: int


@dataclass(frozen=True)
class Payment:
    """An invoice that was paid, and the bank's receipt for it."""

    invoice: str
    cents: int
    receipt: int


@dataclass(frozen=True)
class Report:
    """What was paid in all."""

    payments: list[Payment]
    cents: int


pay = perdure.op("pay", input=Order, output=Payment)

# A bank that is out of order is asked for ten seconds; what it did is never done twice by that.
_PATIENT = RetryPolicy(500, FixedBackoff(timedelta(milliseconds=20)))


@pay.state(side_effects=SideEffectKind.APPLY_SIDE_EFFECT, idempotency="pay", retry=_PATIENT)
async def transfer(order: Order, io: IoProvider) -> Payment:
    """Pay the invoice once. What was paid before a crash or a retry is answered by its fact."""
    invoice = order.invoice
    request = {
        "kind": "http_request_v1",
        "method": "POST",
        "url": f"{order.bank}/payments",
        "json": {"invoice": invoice.id, "cents": invoice.cents},
        "timeout_ms": order.timeout_ms,
        "accept_status": [201],
    }
    answer = await io.call(IoCall("http", request, fact_key="payment"))
    return Payment(invoice.id, invoice.cents, answer.response["json"]["receipt"])


payouts = perdure.op("payouts", input=Batch, output=Report)


@payouts.state
async def pay_each(batch: Batch) -> list[Payment]:
    """Have every invoice paid, side by side: one that is in doubt holds up none of the others."""
    orders = [Order(batch.bank, invoice, batch.timeout_ms) for invoice in batch.invoices]
    return await perdure.gather_children(pay, orders, names=[child_name(each) for each in batch.invoices])


@payouts.state
async def report(pay_each: list[Payment]) -> Report:
    """Add up."""
    return Report(pay_each, sum(payment.cents for payment in pay_each))


def child_name(invoice: Invoice) -> str:
    """What the child that pays an invoice is known by, wherever in the batch the invoice stands."""
    return f"invoice {invoice.id}"
