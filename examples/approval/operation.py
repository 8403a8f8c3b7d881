"""The operation: a verdict by people, who may take their time, and then the payment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from perdure import IoCall, IoProvider, Recorder, SideEffectKind, op

APPROVALS_NEEDED = 2
PATIENCE = timedelta(days=1)
"""How long nobody may answer before the manager is told."""


@dataclass(frozen=True)
class Expense:
    """What somebody wants to be paid for, and who decides if nobody else does."""

    spender: str
    manager: str
    cents: int
    purpose: str


@dataclass(frozen=True)
class Verdict:
    """Whether it is to be paid, and who said so."""

    is_granted: bool
    by: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How it ended; an expense that was refused has no receipt."""

    verdict: Verdict
    receipt: str | None


expense = op("expense", input=Expense, output=Outcome)
approval = expense.signal("approval", bool)


@expense.state
async def verdict(expense: Expense, io: IoProvider, rec: Recorder) -> Verdict:
    """Wait until two people have approved, or one has refused. Nobody counts twice, the spender never.

    Once nobody has answered for a day, the manager's word alone is enough.
    """
    approved: list[str] = []
    is_escalated = False
    while len(approved) < APPROVALS_NEEDED and not (is_escalated and expense.manager in approved):
        await rec.publish("standing", {"approved_by": approved, "is_escalated": is_escalated})
        answer = await approval.wait(io, timeout=None if is_escalated else PATIENCE)
        if answer is None:
            is_escalated = True
            # No effect: it does no harm if a crash has the manager told twice.
            notice = {"to": expense.manager, "about": expense.purpose}
            await io.call(IoCall("notices.send", notice, fact_key="manager told"))
        elif answer.by not in (expense.spender, *approved):
            if not answer.value:
                return Verdict(False, (answer.by,))
            approved.append(answer.by)
    return Verdict(True, tuple(approved))


@expense.state(side_effects=SideEffectKind.APPLY_SIDE_EFFECT)
async def outcome(expense: Expense, verdict: Verdict, io: IoProvider) -> Outcome:
    """Pay what was granted: once, whatever crashes."""
    if not verdict.is_granted:
        return Outcome(verdict, None)
    transfer = {"to": expense.spender, "cents": expense.cents, "purpose": expense.purpose}
    answer = await io.call(IoCall("bank.transfer", transfer))
    return Outcome(verdict, str(answer.response["receipt"]))
