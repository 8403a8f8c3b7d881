"""What a run waits for, told in words and commands; the screens show the ordinary cases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import (
    FixedBackoff,
    IoCall,
    IoProvider,
    RetryPolicy,
    RunConfig,
    RunId,
    SideEffectKind,
    TransportError,
)
from perdure.cli.common import Common
from perdure.cli.progress import told
from perdure.cli.waiting import cell, doubts, next_steps, phrase, waiting_for, waits_for_words_alone
from perdure.errors import Json
from perdure.model.events import DomainEvent
from perdure.sdk.reading import status_of
from perdure.stores.memory import memory_stores
from perdure.testing import FakeClock, ScriptedTransport

HOUR = timedelta(hours=1)


class StillClock(FakeClock):
    """Jumps over nothing."""

    async def sleep_until(self, due_millis: int) -> None:
        raise AssertionError("nobody is to wait here")


async def standing(wait: Any, config: RunConfig | None = None) -> tuple[Json, Sequence[str]]:
    """A parked run's status, and what was told on the way there."""
    waits = perdure.op("waits")

    @waits.state
    async def waiting(io: IoProvider) -> None:
        await wait(io)

    down = TransportError.of("line_down", "no line", retryable=True)
    app = perdure.App([waits], transports=[ScriptedTransport({"line": down})])
    stores = memory_stores(clock=StillClock(0))
    client = perdure.Client(stores, app, clock=StillClock(0))
    run = await client.start(waits, run_config=config, detach=True)
    engine = perdure.Engine(app.resolver, app.transports, clock=StillClock(0))
    await engine.resume(stores, run.id)
    events = [each.event for each in await stores.events.read_range(run.id, 1)]
    lines = [told(event.name, event.payload) for event in events if isinstance(event, DomainEvent)]
    return await status_of(stores, run.id), [line for line in lines if line is not None]


async def test_a_signal_that_is_waited_for_only_so_long() -> None:
    """The words say both, the table the names; names are quoted for a shell."""
    status, lines = await standing(lambda io: io.wait_any("it's time", "stop", timeout=HOUR))
    words = "the signal it's time or stop, until 1970-01-01 01:00:00 UTC at most"
    assert waiting_for(status) == words
    assert lines == [f"waits.main.waiting waits for {words}"]
    assert cell(status["waiting_for"], status["due_millis"]) == "signal it's time or stop"
    short = status["run_id"][:13]
    assert next_steps(status, Common()) == [
        f"""send it with: perdure run signal {short} 'it'"'"'s time' JSON""",
        f"send it with: perdure run signal {short} stop JSON",
    ]


async def test_a_state_that_will_be_tried_again() -> None:
    """When, and that there is nothing to be done."""
    policy = RunConfig(retry_policy=RetryPolicy(2, FixedBackoff(HOUR)))
    status, lines = await standing(lambda io: io.call(IoCall("line", {}, fact_key="k")), policy)
    assert waiting_for(status) == "1970-01-01 01:00:00 UTC, to try again"
    assert lines == ["waits.main.waiting will be tried again at 1970-01-01 01:00:00 UTC"]
    assert cell(status["waiting_for"], status["due_millis"]) == "1970-01-01 01:00"
    assert next_steps(status, Common()) == []


def test_a_state_that_has_failed_in_doubt() -> None:
    """It has no wait of its own, and is told of as one that has."""
    status: Json = {"waiting_for": "effect_in_doubt k", "waits": [], "due_millis": None}
    assert waits_for_words_alone(status)
    assert waiting_for(status) == "a word on what became of an effect"
    assert cell(status["waiting_for"], None) == "effect in doubt"


async def test_a_run_that_waits_for_a_word_and_for_something_else() -> None:
    """A worker goes on with it when the other thing comes; while it may be under way nobody is asked."""

    async def both(io: IoProvider) -> None:
        call = IoCall("line", {}, effect=SideEffectKind.APPLY_SIDE_EFFECT, idempotency_key="k")
        await asyncio.gather(io.call(call), io.wait_signal("go"))

    status, _ = await standing(both)
    short = status["run_id"][:13]
    assert not waits_for_words_alone(status)
    assert waiting_for(status) == "the signal go; a word on what became of an effect"
    assert doubts(status) == ["waits.main.waiting asked line, in doubt since 1970-01-01 00:00:00 UTC"]
    assert next_steps(status, Common()) == [
        f"send it with: perdure run signal {short} go JSON",
        f"if it happened: perdure run resolve {short} --effect k --doubt 1 --why TEXT --happened JSON",
        f"if it did not:  perdure run resolve {short} --effect k --doubt 1 --why TEXT --did-not-happen",
    ]
    status["effects_in_doubt"][0]["may_be_under_way"] = True
    assert len(next_steps(status, Common())) == 1


@pytest.mark.parametrize(
    ("name", "payload", "line"),
    [
        ("run_paused", {"by": "ann", "reason": "away"}, "run paused by ann: away"),
        ("run_unpaused", {"by": "ann", "reason": ""}, "run unpaused by ann"),
        ("run_cancel_requested", {"by": "ann", "reason": "x"}, "run asked to stop by ann: x"),
        ("value_published", {"name": "done", "value": {"of": 2}}, 'done: {"of": 2}'),
        ("anything", {}, None),
    ],
)
def test_what_is_told_of_events(name: str, payload: Json, line: str | None) -> None:
    """A line for what a person should know, and none for the rest."""
    assert told(name, payload) == line


def test_a_wait_of_a_kind_that_is_new() -> None:
    """A newer engine may have written it; its name says something."""
    assert phrase({"kind": "rain", "until_millis": None}) == "rain"


def test_a_run_that_waits_for_children() -> None:
    """One is named, of many a few; a table counts them, and says what else is waited for."""
    ids = [RunId.for_invocation(str(number)) for number in range(5)]
    shorts = [each[:13] for each in ids]

    def status(count: int, *others: Json) -> Json:
        waits = [{"kind": "child", "child_run_id": each, "until_millis": None} for each in ids[:count]]
        return {"waiting_for": "child …", "waits": [*waits, *others], "due_millis": None}

    signal = {"kind": "signal", "signals": ["go"], "until_millis": None}
    assert phrase(status(1)["waits"][0]) == f"child {shorts[0]}"
    assert waiting_for(status(1)) == f"child {shorts[0]}"
    assert waiting_for(status(3, signal)) == f"the signal go; 3 children: {', '.join(shorts[:3])}"
    assert waiting_for(status(5)) == f"5 children: {', '.join(shorts[:3])} and 2 more"
    assert waiting_for(status(1), names_children=False) == "a child"
    assert waiting_for(status(5), names_children=False) == "5 children"
    assert cell(f"child {ids[0]}", None) == f"child {shorts[0]}"
    assert cell(f"signal go, child {ids[0]}", None) == f"signal go, child {shorts[0]}"
    assert cell(f"child {ids[0]}, child {ids[1]}, signal go", None) == "2 children, signal go"
