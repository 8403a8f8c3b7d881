"""Signals with a type: checked where they are sent, and given back as what they are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

import perdure
from perdure import IoProvider, Received, RunError, RunPhase, Stores
from perdure.sdk import App


@dataclass(frozen=True)
class Approval:
    """What a person says of an expense."""

    granted: bool
    cents_max: int = 0


expenses = perdure.op("expenses", output=str)
approval = expenses.signal("approval", Approval)


@expenses.state
async def decide(io: IoProvider) -> str:
    """Wait for a decision."""
    got: Received[Approval] | None = await approval.wait(io, timeout=timedelta(days=1))
    return "nobody" if got is None else f"{got.by}: {got.value.granted} {got.value.cents_max}"


async def test_a_typed_signal_arrives_as_its_type() -> None:
    """Sent as a value of the type, or as its JSON form."""
    async with perdure.open(Stores.in_memory(), expenses) as p:
        first, second = [await p.start(expenses) for _ in range(2)]
        await first.signal(approval, Approval(True, 500), by="ann")
        await second.signal("approval", {"granted": False}, by="bob")
        assert [await first.result(), await second.result()] == ["ann: True 500", "bob: False 0"]
    assert repr(approval) == "<signal approval: Approval>"


async def test_what_an_operation_does_not_take_is_not_sent() -> None:
    """Neither another signal nor another value; the run waits on."""
    async with perdure.open(Stores.in_memory(), expenses) as p:
        run = await p.start(expenses)
        with pytest.raises(RunError) as caught:
            await run.signal("aproval", {"granted": True})
        assert (caught.value.code, caught.value.info.details) == ("signal_unknown", {"known": ["approval"]})
        assert caught.value.hint
        for value in (True, {"granted": "yes"}, {"granted": 1.5}):
            with pytest.raises(RunError, match="signal_invalid"):
                await run.signal("approval", value)
        await run.cancel("over")
        assert (await run.wait()).phase is RunPhase.CANCELLED


async def test_a_value_that_was_not_checked_fails_the_state() -> None:
    """Who sends it may not have the app."""
    stores = Stores.in_memory()
    async with perdure.open(stores, expenses) as p:
        run = await p.start(expenses)
        async with perdure.open(stores, App(), recover=False) as outsider:
            await (await outsider.get(run.id)).signal("approval", "yes")
        with pytest.raises(RunError, match="signal_invalid"):
            await run.result()


def test_declarations_are_checked() -> None:
    """With everything else that is wrong with an operation."""
    wrong = perdure.op("wrong")
    wrong.signal("a", int)
    wrong.signal("a", float)
    codes = [each.code for each in wrong.mistakes()]
    assert codes == ["op_empty", "signal_taken", "signal_unwritable"]
