"""What is told of a run while several of its attempts are open."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

import perdure
from perdure import (
    Context,
    DomainEvent,
    ErrorCategory,
    ErrorInfo,
    FanOutJoin,
    FixedBackoff,
    IoProvider,
    RetryPolicy,
    RunConfig,
    RunId,
    RunStarted,
    StateCompleted,
    StateEntered,
    StateError,
    StateErrorInfo,
    StateFailed,
)
from perdure.cli import main
from perdure.cli.output import Output
from perdure.cli.progress import Progress
from perdure.cli.waiting import waiting_for
from perdure.engine.history import RunView
from perdure.ids import ArtifactId, OpId
from perdure.io.facts import fact_event
from perdure.io.waits import SIGNAL, Wait, wait_key, wait_started
from perdure.model.events import Event
from perdure.sdk.reading import status_of
from perdure.stores.memory import memory_stores
from perdure.testing import FakeClock
from tests.support import state_id

RUN_ID = RunId("00000000-0000-0000-0000-00000000000f")
SNAPSHOT = ArtifactId("0" * 64)


class StillClock(FakeClock):
    """Its time never comes."""

    async def sleep_until(self, due_millis: int) -> None:
        await asyncio.get_running_loop().create_future()


def entered(name: str) -> StateEntered:
    return StateEntered(state_id(name), 0, SNAPSHOT)


def failed(name: str, code: str, *, retryable: bool) -> StateFailed:
    info = ErrorInfo(code, ErrorCategory.UNKNOWN, retryable)
    return StateFailed(state_id(name), StateErrorInfo(state_id(name), info), None)


def waits(name: str) -> DomainEvent:
    return wait_started(Wait(state_id(name), 0, wait_key(state_id(name), 0), SIGNAL, signals=(name,)))


def view_of(*events: Event) -> RunView:
    view = RunView()
    for seq, event in enumerate((RunStarted(OpId("op"), SNAPSHOT, SNAPSHOT), *events), 1):
        view.advance(event, seq)
    return view


def test_a_run_waits_when_all_its_open_attempts_do() -> None:
    """While one of them runs, it waits for nothing."""
    assert view_of(entered("a"), entered("b"), waits("a")).waiting_for is None
    both = view_of(entered("a"), entered("b"), waits("a"), waits("b"))
    assert both.waiting_for == "signal a, signal b"


def test_a_run_failed_by_what_could_not_be_tried_again() -> None:
    """Not by what was interrupted, nor by what would have been tried again."""
    events = (entered("a"), entered("b"), entered("c"), failed("a", "broken", retryable=False))
    later = (failed("b", "flaky", retryable=True), failed("c", "orphan_attempt_recovered", retryable=True))
    view = view_of(*events, *later)
    assert view.failure is not None
    assert (view.failure[0], view.failure[1].code) == (state_id("a"), "broken")
    assert view_of(entered("a"), StateCompleted(state_id("a"), SNAPSHOT)).failure is None


async def test_a_status_tells_of_waits_and_of_retries() -> None:
    """In words, and when the first of them is due."""
    clock = StillClock(0)
    op = perdure.op("mixed", execution=FanOutJoin(2))

    @op.state
    async def asks(io: IoProvider) -> None:
        await io.wait_signal("go", timeout=timedelta(hours=2))

    @op.state
    async def flaky(ctx: Context) -> None:
        raise StateError(ErrorInfo("flaky", ErrorCategory.UNKNOWN, True))

    stores = memory_stores(clock=clock)
    app = perdure.App([op])
    client = perdure.Client(stores, app, clock=clock)
    config = RunConfig(retry_policy=RetryPolicy(3, FixedBackoff(timedelta(hours=1))))
    run = await client.start(op, run_config=config, detach=True)
    parked = await perdure.Engine(app.resolver, clock=clock).resume(stores, run.id)
    status = await status_of(stores, run.id)
    assert parked.due_millis == status["due_millis"] == 3_600_000
    assert set((status["waiting_for"] or "").split(", ")) == {"signal go", "retry"}
    assert waiting_for(status).endswith("; a state to be tried again")


def test_a_table_counts_each_fact_for_its_state() -> None:
    """For the one that its key names; where it names none, for the only one that runs."""
    progress = Progress(Output(as_json=True), RUN_ID)
    for event in (entered("a"), entered("ab"), waits("a")):
        progress.take(RUN_ID, event, 1.0)
    for key in ("free", f"effect:{state_id('ab')}:0"):
        progress.take(RUN_ID, fact_event(key, SNAPSHOT), 1.0)
    rows = dict(progress._rows)
    assert [(row[0], row[2]) for row in rows.values()] == [("waiting", 0), ("running", 2)]
    progress.take(RUN_ID, fact_event(wait_key(state_id("a"), 0), SNAPSHOT), 1.0)
    progress.take(RUN_ID, fact_event("whose", SNAPSHOT), 1.0)
    assert [(row[0], row[2]) for row in rows.values()] == [("running", 1), ("running", 2)]


def test_a_table_without_room_for_all_shows_what_is_under_way() -> None:
    """And of the others the latest."""
    progress = Progress(Output(as_json=True), RUN_ID)
    for number in range(40):
        progress.take(RUN_ID, entered(f"s{number}"), 1.0)
        if number != 3:
            progress.take(RUN_ID, StateCompleted(state_id(f"s{number}"), SNAPSHOT), 2.0)
    shown = [each for each, _ in progress._rows_shown()]
    assert shown == [state_id("s3"), *(state_id(f"s{number}") for number in range(11, 40))]


def test_a_number_of_places_that_cannot_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is written."""
    store = tmp_path / "runs.db"
    words = ["run", "start", "checkout", "--app", "perdure.demo:app", "--store", str(store)]
    for number, why in (("0", "1 or more"), ("-1", "1 or more"), ("10001", "1 to 10000"), ("many", "whole")):
        assert main([*words, "--input", '{"item": "tea", "count": 1}', "--side-by-side", number]) == 2
        assert why in capsys.readouterr().err
    assert not store.exists()
