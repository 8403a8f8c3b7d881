"""The operation: two states. The first pays, the second adds up."""

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


payouts = perdure.op("payouts", input=Batch, output=Report)

# A bank that is out of order is asked for ten seconds; what it did is never done twice by that.
_PATIENT = RetryPolicy(500, FixedBackoff(timedelta(milliseconds=20)))


@payouts.state(side_effects=SideEffectKind.APPLY_SIDE_EFFECT, idempotency="pay", retry=_PATIENT)
async def pay(batch: Batch, io: IoProvider) -> list[Payment]:
    """Pay each invoice once. Whatever was paid before a crash or a retry is answered by its fact."""
    payments = []
    for invoice in batch.invoices:
        request = {
            "kind": "http_request_v1",
            "method": "POST",
            "url": f"{batch.bank}/payments",
            "json": {"invoice": invoice.id, "cents": invoice.cents},
            "timeout_ms": batch.timeout_ms,
            "accept_status": [201],
        }
        answer = await io.call(IoCall("http", request, fact_key=f"payment:{invoice.id}"))
        payments.append(Payment(invoice.id, invoice.cents, answer.response["json"]["receipt"]))
    return payments


@payouts.state
async def report(pay: list[Payment]) -> Report:
    """Add up."""
    return Report(pay, sum(payment.cents for payment in pay))
