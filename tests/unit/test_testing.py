"""The tools for those who test operations: the fixture, scripted answers, and what they find."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import (
    App,
    IoCall,
    IoProvider,
    RateLimitedError,
    RunConfig,
    RunError,
    RunPhase,
    SideEffectKind,
    TransportError,
    op,
    secret,
)
from perdure.demo import Order, checkout
from perdure.stores.memory import memory_stores
from perdure.testing import FakeClock, RunInMemory, ScriptedTransport, in_turn, told

ANSWERS = {
    "shop.catalogue": {"cents": 450},
    "shop.warehouse": {"shelf": "B7"},
    "shop.couriers": {"name": "Ada"},
}


def test_a_run_has_a_result_and_calls(perdure_run: RunInMemory) -> None:
    """And it was replayed without asking anybody."""
    run = perdure_run(checkout, Order("tea", 3), answers=ANSWERS)
    assert run.result() == "3 x tea: 13.50, brought by Ada"
    assert [call.namespace for call in run.calls] == list(ANSWERS)
    assert run.calls[1].request == {"item": "tea", "count": 3}
    assert (run.phase, run.error, run.context["checkout.main.shelf"]) == (RunPhase.COMPLETED, None, "B7")
    assert run.events[-1].seq == len(run.events)
    assert run.replay.first_difference is None
    assert len(run.replay.states) == 4


async def test_it_works_where_a_loop_runs(perdure_run: RunInMemory) -> None:
    """The run has a loop of its own."""
    assert perdure_run(checkout, Order("tea", 1), answers=ANSWERS).phase is RunPhase.COMPLETED


def asks(*, key: str | None) -> Any:
    """An operation with one call."""
    made = op("asks", output=dict)

    @made.state
    async def answer(io: IoProvider) -> dict[str, Any]:
        result = await io.call(IoCall("quotes.today", {"of": "PRD"}, fact_key=key))
        return dict(result.response)

    return made


def test_answers_may_be_functions_errors_and_turns(perdure_run: RunInMemory) -> None:
    """A retry asks again, without waiting."""

    async def last(call: IoCall) -> Any:
        return {"of": call.request["of"]}

    busy = RateLimitedError.of("http_rate_limited", "later", retryable=True)
    run = perdure_run(asks(key="quote"), answers={"quotes.today": in_turn(busy, last)})
    assert run.result() == {"of": "PRD"}
    assert len(run.calls) == 2


def test_what_the_script_lacks_fails_the_run(perdure_run: RunInMemory) -> None:
    """With the code of what is missing."""
    for answers in ({}, {"quotes.today": in_turn()}):
        run = perdure_run(asks(key="quote"), answers=answers)
        assert isinstance(run.error, RunError)
        assert "answer_missing" in str(run.error)
        with pytest.raises(RunError, match="answer_missing"):
            run.result()


def test_what_is_not_recorded_is_found(perdure_run: RunInMemory) -> None:
    """By executing the states again: with another result, or no fact to answer with."""
    counter = itertools.count()
    counts = op("counts", output=int)

    @counts.state
    def count() -> int:
        return next(counter)

    with pytest.raises(AssertionError, match=r"came to something else: counts\.main\.count was 0, is 1"):
        perdure_run(counts)
    assert perdure_run(counts, check_replay=False).replay.first_difference is not None
    with pytest.raises(AssertionError, match="missing_fact_key"):
        perdure_run(asks(key=None), answers={"quotes.today": {}})


def test_secrets_reach_transports_alone(perdure_run: RunInMemory) -> None:
    """By name."""
    resolved: list[str] = []

    class Bank:
        namespace_group = "bank"

        def make(self, env: Any) -> Any:
            self._secrets = env.secrets
            return self

        async def call(self, call: IoCall) -> Any:
            resolved.append(self._secrets.fill(call.request["token"]))
            return {}

    pays = op("pays")

    @pays.state
    async def pay(io: IoProvider) -> None:
        await io.call(IoCall("bank.pay", {"token": secret("BANK_TOKEN")}, fact_key="paid"))

    run = perdure_run(pays, transports=[Bank()], secrets={"BANK_TOKEN": "open-sesame-1234"})
    assert (run.phase, resolved) == (RunPhase.COMPLETED, ["open-sesame-1234"])


DAY = timedelta(days=1)


def test_a_year_of_sleeping_takes_no_time(perdure_run: RunInMemory) -> None:
    """The run is parked and woken each day, as it would be; only the clock is quicker."""
    sleeps = op("sleeps", output=int)

    @sleeps.state
    async def year(io: IoProvider) -> int:
        begun = await io.now_millis()
        for day in range(365):
            await io.sleep(DAY, name=f"day {day}")
        return begun

    run = perdure_run(sleeps)
    assert len([each for each in run.events if "wait_started" in str(each.event)]) == 365
    assert FakeClock().now_millis() == run.result()
    last = run.events[-1].ts_millis
    assert last == run.result() + 365 * (DAY // timedelta(milliseconds=1))


def asking(*, timeout: timedelta | None = None, count: int = 2) -> Any:
    """An operation that takes signals."""
    made = op("asking", output=list)

    @made.state
    async def approvals(io: IoProvider) -> list[Any]:
        got = [await io.wait_signal("approval", timeout=timeout) for _ in range(count)]
        return [each and [each.value, each.by] for each in got]

    return made


def test_signals_are_there_when_the_run_asks(perdure_run: RunInMemory) -> None:
    """In the order in which they are given; without one the clock jumps to the end of the wait."""
    signals = {"approval": [{"granted": True}, told(False, by="ann")]}
    assert perdure_run(asking(), signals=signals).result() == [[{"granted": True}, "test"], [False, "ann"]]
    assert perdure_run(asking(timeout=DAY), signals={"approval": [1]}).result() == [[1, "test"], None]


def test_what_never_comes_is_told(perdure_run: RunInMemory) -> None:
    """Instead of being waited for: what is waited for, and what to do about it."""
    with pytest.raises(AssertionError, match=r"waits for signal approval, which never comes\. Send it"):
        perdure_run(asking(), signals={"approval": [1]})

    pays = op("pays")

    @pays.state(side_effects=SideEffectKind.APPLY_SIDE_EFFECT, idempotency="pay")
    async def pay(io: IoProvider) -> None:
        await io.call(IoCall("bank.pay", {}))

    dropped = TransportError.of("line_dropped", "no answer came")
    with pytest.raises(AssertionError, match=r"effect_in_doubt .*pays\.main\.pay:0, .*NotAppliedError"):
        perdure_run(pays, answers={"bank.pay": dropped})


def test_a_run_s_time_limit_strikes(perdure_run: RunInMemory) -> None:
    """Also while it waits for nobody."""
    run = perdure_run(asking(), run_config=RunConfig(timeout=DAY))
    assert "run_timeout" in str(run.error)


async def test_a_jump_costs_no_claim() -> None:
    """A run that sleeps often and shortly is driven on in its process, and may still call."""
    naps = op("naps", output=int)

    @naps.state
    async def nap(io: IoProvider) -> int:
        for _ in range(20):
            await io.sleep(timedelta(seconds=4))
        return int((await io.call(IoCall("quotes.today", {}, fact_key="quote"))).response)

    clock = FakeClock()
    app = App([naps], transports=[ScriptedTransport({"quotes.today": 7})])
    async with perdure.open(memory_stores(clock=clock), app=app, clock=clock) as client:
        assert await (await client.start(naps)).result() == 7
    assert clock.now_millis() == FakeClock().now_millis() + 80_000


async def test_the_clock_jumps() -> None:
    """To the end of every sleep, never back, and in no monotonic time."""
    clock = FakeClock(1000)
    await clock.sleep_until(5000)
    await clock.sleep_until(2000)
    clock.advance(500)
    assert (clock.now_millis(), clock.monotonic_seconds()) == (5500, 1.5)


def test_children_run_to_their_ends(perdure_run: RunInMemory) -> None:
    """Also those that sleep for weeks; a child that waits for somebody has its parent's test fail."""
    nap, lonely, parent = op("nap", input=int, output=int), op("lonely"), op("parent", output=int)

    @nap.state
    async def rest(weeks: int, io: IoProvider) -> int:
        await io.sleep(timedelta(weeks=weeks))
        return weeks

    @lonely.state
    async def waiting(io: IoProvider) -> None:
        await io.wait_signal("a word")

    @parent.state
    async def both() -> int:
        return sum(await perdure.gather_children(nap, [3, 1, 2]))

    assert perdure_run(parent, ops=[nap]).result() == 6

    hopeful = op("hopeful")

    @hopeful.state
    async def hope() -> None:
        await (await perdure.spawn(lonely)).result()

    with pytest.raises(AssertionError, match=r"waits for child .* give that wait a timeout"):
        perdure_run(hopeful, ops=[lonely])
