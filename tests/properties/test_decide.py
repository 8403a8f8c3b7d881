"""Deciding, wherever a run stands: nothing is entered that may not be, and every pause ends when it says."""

from __future__ import annotations

import copy
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from perdure import (
    ArtifactId,
    Context,
    EventEnvelope,
    FixedBackoff,
    IoProvider,
    OpId,
    Recorder,
    RetryPolicy,
    RunConfig,
    RunId,
    RunStarted,
    StateCompleted,
    StateEntered,
    StateFailed,
    StateMeta,
)
from perdure.engine.decide import Go, Pause, PlannedRun, Run, Stop, decide
from perdure.engine.history import RunView, fold
from perdure.errors import ErrorCategory, ErrorInfo, Json
from perdure.io.effects import Effect, effect_intended, effect_settled
from perdure.io.facts import fact_event
from perdure.io.waits import EFFECT_IN_DOUBT, SIGNAL, SLEEP, Wait, signal_key, wait_key, wait_started
from perdure.model.events import DomainEvent, Event, StateErrorInfo
from tests.support import START_MILLIS, Scripted, plan_of, state_id

SOME_ID = ArtifactId("0" * 64)
STATES = ("a", "b", "clean")
moments = st.integers(0, 100).map(lambda offset: START_MILLIS + offset)


async def _nothing(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """Do nothing."""


def planned(config: RunConfig) -> PlannedRun:
    """Two states and one that cleans up."""
    cleanup = Scripted(_nothing, StateMeta(on_cancel=True))
    states = [("a", Scripted(_nothing)), ("b", Scripted(_nothing)), ("clean", cleanup)]
    return PlannedRun.of(plan_of(*states, edges=[("a", "b")]), config)


configs = st.builds(
    lambda delay, timeout: RunConfig(
        retry_policy=RetryPolicy(2, FixedBackoff(timedelta(milliseconds=delay))),
        timeout=None if timeout is None else timedelta(milliseconds=timeout),
    ),
    st.sampled_from([0, 30]),
    st.sampled_from([None, 80]),
)


def failed(name: str, code: str, *, retryable: bool) -> StateFailed:
    """The end of an attempt."""
    info = ErrorInfo(code, ErrorCategory.UNKNOWN, retryable)
    return StateFailed(state_id(name), StateErrorInfo(state_id(name), info), None)


@st.composite
def views(draw: st.DrawFn) -> RunView:
    """Where a run may stand: any number of its states done, one perhaps open, with all kinds of waits."""
    events: list[Event] = [RunStarted(OpId("op"), SOME_ID, SOME_ID)]
    tried = draw(st.integers(0, 2))
    for name in STATES[:tried]:
        events += [StateEntered(state_id(name), 0, SOME_ID), StateCompleted(state_id(name), SOME_ID)]
    asked = draw(st.lists(st.sampled_from(["run_paused", "run_unpaused", "run_cancel_requested"])))
    requests: list[Event] = [
        DomainEvent(name, {"id": name, "by": "ann", "reason": "", "terminate": draw(st.booleans())})
        for name in asked
    ]
    names = [*(["clean"] if "run_cancel_requested" in asked else []), *STATES[tried:2]]
    is_open: bool = draw(st.booleans())
    if names and is_open:
        name = draw(st.sampled_from(list(names)))
        events.append(StateEntered(state_id(name), 0, SOME_ID))
        if draw(st.booleans()):
            events.append(
                failed(
                    name,
                    draw(st.sampled_from(["bad", "orphan_attempt_recovered"])),
                    retryable=draw(st.booleans()),
                )
            )
            if draw(st.booleans()):
                due: Json = {"state_id": state_id(name), "attempt": 1, "due_millis": draw(moments)}
                events.append(DomainEvent("retry_scheduled", due))
        else:
            events += draw(
                st.lists(_waits(name), max_size=3).map(
                    lambda lists: [each for some in lists for each in some]
                )
            )
    events += requests
    if draw(st.booleans()):
        events.append(fact_event(signal_key("x", 0), SOME_ID, meta={"letter": "l"}))
    return fold(EventEnvelope(RUN, seq, START_MILLIS, event) for seq, event in enumerate(events, 1))


RUN = RunId("00000000-0000-0000-0000-00000000000a")


@st.composite
def _waits(draw: st.DrawFn, name: str) -> list[Event]:
    key = wait_key(state_id(name), draw(st.integers(0, 3)))
    until = draw(st.none() | moments)
    kind = draw(st.sampled_from([SLEEP, SIGNAL, EFFECT_IN_DOUBT]))
    if kind == SLEEP:
        return [wait_started(Wait(state_id(name), 0, key, SLEEP, until or START_MILLIS))]
    if kind == SIGNAL:
        return [wait_started(Wait(state_id(name), 0, key, SIGNAL, until, ("x",)))]
    effect = Effect("e", wait_key(state_id(name), "e"), state_id(name), "bank", "0", 1)
    begun: list[Event] = [
        effect_intended(effect),
        wait_started(Wait(state_id(name), 0, key, EFFECT_IN_DOUBT, effect="e")),
    ]
    return [*begun, effect_settled("e", "not_applied")] if draw(st.booleans()) else begun


@given(views(), configs, moments)
def test_what_is_decided_can_follow_and_comes_to_an_end(view: RunView, config: RunConfig, now: int) -> None:
    """Deciding changes nothing. What it says leads to a handler, a pause or the end, in a few steps."""
    plan = planned(config)
    for _ in range(8):
        before = copy.deepcopy(view)
        step = decide(view, plan, config, now)
        assert step == decide(view, plan, config, now)
        assert view == before
        for event in step.events:
            if isinstance(event, StateEntered):
                assert not view.is_paused
                assert (event.state_id == state_id("clean")) == (view.cancel is not None)
            view.advance(event, view.head_seq + 1)
        if isinstance(step.then, Stop):
            assert view.ended is not None
            assert not view.open_attempts
        if isinstance(step.then, Run):
            assert view.open_attempts == {step.then.attempt.state_id: step.then.attempt}
        if not isinstance(step.then, Go):
            return
    raise AssertionError("nothing comes of it")


@given(views(), configs, moments)
def test_a_pause_ends_when_it_says(view: RunView, config: RunConfig, now: int) -> None:
    """Not before, and it says for what the run waits."""
    plan = planned(config)
    while isinstance((step := decide(view, plan, config, now)).then, Go):
        for event in step.events:
            view.advance(event, view.head_seq + 1)
    if not isinstance(step.then, Pause):
        return
    assert step.events == ()
    assert view.waiting_for == step.then.waiting_for
    until = step.then.until_millis
    if until is None:
        assert decide(view, plan, config, now + 10**9).then == step.then
    else:
        assert until > now
        assert decide(view, plan, config, until - 1).then == step.then
        later = decide(view, plan, config, until)
        assert later.events or later.then != step.then
