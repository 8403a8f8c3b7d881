"""The tools for those who test operations: the fixture, scripted answers, and what they find."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from perdure import IoCall, IoProvider, RateLimitedError, RunError, RunPhase, op, secret
from perdure.demo import Order, checkout
from perdure.testing import FakeClock, RunInMemory, in_turn

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


async def test_the_clock_jumps() -> None:
    """To the end of every sleep, never back."""
    clock = FakeClock(1000)
    await clock.sleep_until(5000)
    await clock.sleep_until(2000)
    clock.advance(500)
    assert (clock.now_millis(), clock.monotonic_seconds()) == (5500, 5.5)
