"""The approval of expenses, from every side that people may take."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import perdure
from examples.approval import app
from examples.approval.operation import PATIENCE, Expense, Outcome, Verdict, approval, expense
from perdure import App, Client, ConcurrencyError, DomainEvent, Run, RunError, RunPhase, Stores
from perdure.model.events import VALUE_PUBLISHED, WAIT_STARTED, Event
from perdure.stores.memory import memory_stores
from perdure.testing import FakeClock, FinishedRun, RunInMemory, told

CHAIR = Expense("eve", "mia", 12_000, "a chair")


def published(event: Event) -> dict[str, Any]:
    """The standing that an event publishes."""
    if isinstance(event, DomainEvent) and event.name == VALUE_PUBLISHED:
        return dict(event.payload["value"])
    return {}


class Desk:
    """Expenses of which people said something, decided."""

    def __init__(self, run: RunInMemory) -> None:
        self._run = run

    def decide(self, *answers: Any) -> FinishedRun[Outcome]:
        """The expense of a chair, after these answers; whoever is asked outside is in its ``calls``."""
        transfers = {"bank.transfer": {"receipt": "r-1"}, "notices.send": {"told": "mia"}}
        return self._run(expense, CHAIR, signals={"approval": answers}, answers=transfers)

    @staticmethod
    def asked(run: FinishedRun[Outcome]) -> list[str]:
        return [call.namespace for call in run.calls]

    @staticmethod
    def standings(run: FinishedRun[Outcome]) -> list[Any]:
        """What was published, each once."""
        seen: list[Any] = []
        for envelope in run.events:
            standing = published(envelope.event)
            if standing and standing not in seen:
                seen.append(standing)
        return seen


@pytest.fixture
def desk(perdure_run: RunInMemory) -> Desk:
    """Where expenses are decided, in memory."""
    return Desk(perdure_run)


def yes(by: str) -> Any:
    """An approval."""
    return told(True, by=by)


def test_two_people_approve(desk: Desk) -> None:
    """It is paid, and everybody could see how far it was."""
    run = desk.decide(yes("ann"), yes("bob"))
    assert run.result() == Outcome(Verdict(True, ("ann", "bob")), "r-1")
    assert desk.asked(run) == ["bank.transfer"]
    assert run.calls[0].request == {"to": "eve", "cents": 12_000, "purpose": "a chair"}
    assert desk.standings(run) == [
        {"approved_by": [], "is_escalated": False},
        {"approved_by": ["ann"], "is_escalated": False},
    ]


def test_one_refuses(desk: Desk) -> None:
    """That is the end of it, whoever has approved before."""
    run = desk.decide(yes("ann"), told(False, by="bob"), yes("cid"))
    assert run.result() == Outcome(Verdict(False, ("bob",)), None)
    assert desk.asked(run) == []


@pytest.mark.parametrize("again", ["ann", "eve"])
def test_nobody_counts_twice_and_the_spender_not_at_all(desk: Desk, again: str) -> None:
    """Nobody else answers, so that the manager is told, whose answer never comes."""
    with pytest.raises(AssertionError, match="waits for signal approval"):
        desk.decide(yes("ann"), yes(again))
    assert desk.decide(yes("ann"), yes(again), yes("bob")).result().verdict.by == ("ann", "bob")


def test_what_is_no_answer_is_refused(desk: Desk) -> None:
    """Where it is sent: it reaches no run."""
    with pytest.raises(RunError, match="signal_invalid"):
        desk.decide(told("perhaps", by="bob"))


async def until(run: Run[Any], told_of: Callable[[Event], bool]) -> None:
    """Follow the run until an event tells of something."""
    async for envelope in run.events():
        if told_of(envelope.event):
            return
    raise AssertionError("the run has ended")


def waits(event: Event) -> bool:
    """Whether the run waits for an answer now."""
    return isinstance(event, DomainEvent) and event.name == WAIT_STARTED


def escalated(event: Event) -> bool:
    """Whether the manager has been told."""
    return published(event).get("is_escalated") is True


@pytest.mark.parametrize("is_granted", [True, False])
async def test_after_a_day_the_manager_decides(is_granted: bool) -> None:
    """Alone; the clock jumps over the day."""
    clock = FakeClock()
    begun = clock.now_millis()
    async with perdure.open(memory_stores(clock=clock), app=app(), clock=clock) as client:
        run = await client.start(expense, CHAIR)
        await until(run, escalated)
        assert clock.now_millis() == begun + PATIENCE // timedelta(milliseconds=1)
        await run.signal(approval, is_granted, by="mia")
        outcome = await run.result()
        assert outcome.verdict == Verdict(is_granted, ("mia",))
        assert (outcome.receipt is not None) is is_granted


def test_what_the_manager_said_before_counts_after_a_day(desk: Desk) -> None:
    """They are told, and need not say it again."""
    run = desk.decide(yes("mia"))
    assert run.result().verdict == Verdict(True, ("mia",))
    assert desk.asked(run) == ["notices.send", "bank.transfer"]


async def test_cancelled_while_it_waits() -> None:
    """Nobody is paid, and who answers after that is told so."""
    async with perdure.open("memory:", app=app()) as client:
        run = await client.start(expense, CHAIR)
        await until(run, waits)
        await run.signal("approval", True, by="ann")
        await run.cancel("bought elsewhere", by="eve")
        assert (await run.wait()).phase is RunPhase.CANCELLED
        with pytest.raises(ConcurrencyError, match="run_already_terminal"):
            await run.signal("approval", True, by="bob")
        assert await run.context() == {}


async def test_it_waits_longer_than_any_process() -> None:
    """Each answer may reach another one, and one may come while there is none."""
    stores = Stores.in_memory()
    async with perdure.open(stores, app=app()) as client:
        run = await client.start(expense, CHAIR)
        await until(run, waits)
    elsewhere = Client(stores, App())
    await (await elsewhere.get(run.id)).signal("approval", True, by="ann")
    await elsewhere.aclose()
    async with perdure.open(stores, app=app()) as client:
        again = await client.get(run.id, expense)
        await again.signal("approval", True, by="bob")
        assert (await again.result()).verdict.by == ("ann", "bob")
