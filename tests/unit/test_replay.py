"""Replay of a recorded run: the same from its facts alone, or the first difference."""

from __future__ import annotations

from typing import Any

import pytest

import perdure
from perdure import (
    App,
    BlockingIo,
    InvalidPlanError,
    IoCall,
    IoMode,
    IoProvider,
    NotFoundError,
    RetryPolicy,
    RunConfig,
    RunId,
    RunPhase,
    StateError,
    Stores,
    op,
)
from perdure.errors import ErrorCategory, ErrorInfo
from perdure.proof.replay import ReplayReport, replay_run
from perdure.sdk import Op
from tests.support import CountingTransport, stream


def counts(extra: int = 0, key: str = "answer") -> Op[Any, Any]:
    """An operation of three states; ``extra`` and ``key`` are what a change of its code changes."""
    counts = op("counts")

    @counts.state
    async def asked(io: IoProvider) -> int:
        answer = await io.call(IoCall("test", {"n": 40}, fact_key=key))
        await io.random_bytes(4)
        return int(answer.response["asked"]["n"])

    @counts.state
    async def more(asked: int) -> int:
        return asked + 1 + extra

    @counts.state
    def most(more: int, io: BlockingIo) -> list[int]:
        return [more + 1, io.now_millis()]

    return counts


class Recorded:
    """A run, its stores, and what its states asked of the world."""

    def __init__(self, stores: Stores, run_id: RunId, transport: CountingTransport) -> None:
        self.stores = stores
        self.run_id = run_id
        self.transport = transport

    @classmethod
    async def of(cls, operation: Op[Any, Any]) -> Recorded:
        """The run of an operation, to its end."""
        stores, transport = Stores.in_memory(), CountingTransport()
        async with perdure.open(stores, App([operation], [transport])) as p:
            run = await p.start(operation, run_config=RunConfig(retry_policy=RetryPolicy(2)))
            await run.wait()
        return cls(stores, run.id, transport)

    async def replay(self, operation: Op[Any, Any]) -> ReplayReport:
        """The replay with this code; it neither asks nor writes."""
        asked, written = self.transport.calls.copy(), await stream(self.stores, self.run_id)
        kept = await self.stores.describe()
        report = await replay_run(self.stores, self.run_id, App([operation], [self.transport]).resolver)
        assert self.transport.calls == asked
        assert await stream(self.stores, self.run_id) == written
        assert await self.stores.describe() == kept
        return report


def names(report: ReplayReport) -> list[tuple[str, bool]]:
    """Which states were replayed, and which came out the same."""
    return [(each.state_id.split(".")[-1], each.is_same) for each in report.states]


async def test_the_same_code_gives_the_same_snapshots() -> None:
    """From the recorded answers, times and random bytes; nobody outside is asked."""
    recorded = await Recorded.of(counts())
    report = await recorded.replay(counts())
    assert recorded.transport.calls == {"answer": 1}
    assert names(report) == [("asked", True), ("more", True), ("most", True)]
    assert (report.phase, report.states_recorded) == (RunPhase.COMPLETED, 3)
    assert report.first_difference is None
    data = report.to_json()
    assert (data["same"], data["first_difference"], len(data["states"])) == (True, None, 3)


async def test_the_first_difference_is_named() -> None:
    """The state and the keys, with both values; what follows is not looked at."""
    report = await (await Recorded.of(counts())).replay(counts(extra=5))
    assert names(report) == [("asked", True), ("more", False)]
    difference = report.first_difference
    assert difference is not None
    assert difference.to_json() == {
        "state_id": "counts.main.more",
        "attempt": 0,
        "recorded": difference.recorded,
        "replayed": difference.replayed,
        "same": False,
        "keys": [{"key": "counts.main.more", "recorded": 41, "replayed": 46}],
        "error": None,
    }
    assert None is not difference.replayed != difference.recorded
    assert report.to_json()["first_difference"] == difference.to_json()


async def test_keys_that_came_or_went_are_differences() -> None:
    """Null stands for what is not there."""

    def writes(*keys: str) -> Op[Any, Any]:
        writes = op("writes")

        @writes.state
        async def write(ctx: perdure.Context) -> None:
            for key in keys:
                ctx.write(key, 1)

        return writes

    report = await (await Recorded.of(writes("both", "old"))).replay(writes("both", "new"))
    assert report.first_difference is not None
    assert [each.to_json() for each in report.first_difference.keys] == [
        {"key": "writes.main.new", "recorded": None, "replayed": 1},
        {"key": "writes.main.old", "recorded": 1, "replayed": None},
    ]


async def test_a_question_that_was_never_asked_has_no_answer() -> None:
    """The state fails with the error that says so."""
    report = await (await Recorded.of(counts())).replay(counts(key="other"))
    difference = report.first_difference
    assert names(report) == [("asked", False)]
    assert difference is not None
    assert difference.error is not None
    assert (difference.error.code, difference.replayed, difference.keys) == ("missing_fact", None, ())
    assert difference.to_json()["error"]["code"] == "missing_fact"


async def test_a_run_without_facts() -> None:
    """Pure states need none."""
    pure = op("pure")

    @pure.state
    async def given(input: int) -> int:  # noqa: A002 — the term
        return input

    stores = Stores.in_memory()
    async with perdure.open(stores, pure) as p:
        run = await p.start(pure, 7)
        await run.result()
        report = await run.replay()
    assert names(report) == [("given", True)]


async def test_an_unfinished_run_is_replayed_as_far_as_it_came() -> None:
    """A run that nobody drives yet has nothing to replay."""
    stores, operation = Stores.in_memory(), counts()
    async with perdure.open(stores, App([operation], [CountingTransport()])) as p:
        run = await p.start(operation, detach=True)
        report = await run.replay()
    assert (report.phase, report.states, report.states_recorded) == (RunPhase.RUNNING, (), 0)
    assert report.first_difference is None


async def test_a_failed_run_is_replayed_up_to_its_failure() -> None:
    """Only states that completed are compared, each as in the attempt that completed."""
    times: list[int] = []

    def fails(live: bool) -> Op[Any, Any]:
        fails = op("fails")

        @fails.state
        async def flaky(io: IoProvider) -> list[int]:
            numbers = list(await io.random_bytes(2))
            times.append(1)
            if live and len(times) == 1:
                raise StateError(ErrorInfo("busy", ErrorCategory.RPC, retryable=True))
            return numbers

        @fails.state
        async def broken(flaky: list[int]) -> int:
            raise ValueError("no luck")

        return fails

    report = await (await Recorded.of(fails(live=True))).replay(fails(live=False))
    assert (report.phase, report.states_recorded) == (RunPhase.FAILED, 1)
    assert [(each.state_id, each.attempt, each.is_same) for each in report.states] == [
        ("fails.main.flaky", 1, True)
    ]


async def test_a_skipped_state_is_as_it_was() -> None:
    """Nobody calls it, then or now."""
    skips = op("skips")

    @skips.state(tags=["slow"])
    async def never() -> int:
        raise AssertionError

    stores = Stores.in_memory()
    async with perdure.open(stores, skips) as p:
        run = await p.start(skips, run_config=RunConfig(skip_tags=("slow",)))
        await run.wait()
        assert names(await run.replay()) == [("never", True)]


async def test_what_cannot_be_replayed() -> None:
    """A run that is not there, an operation that is gone, a state that is gone."""
    recorded = await Recorded.of(counts())
    with pytest.raises(NotFoundError, match="run_not_found"):
        await replay_run(recorded.stores, RunId.random(), App([counts()]).resolver)
    with pytest.raises(InvalidPlanError, match="op_not_found"):
        await replay_run(recorded.stores, recorded.run_id, App([]).resolver)
    fewer = op("counts", states=[counts().states[0].definition])
    with pytest.raises(InvalidPlanError, match="recovery_state_not_in_plan"):
        await recorded.replay(fewer)


async def test_a_run_that_replays_another_can_be_replayed() -> None:
    """It is answered by the other's facts, as it was itself; the other's readings too."""
    recorded = await Recorded.of(counts())
    config = RunConfig(io_mode=IoMode.REPLAY, replay_of=recorded.run_id)
    async with perdure.open(recorded.stores, App([counts()], [recorded.transport])) as p:
        again = await p.start("counts", run_config=config)
        await again.wait()
        report = await again.replay()
    assert (report.run_id, len(report.states), report.first_difference) == (again.id, 3, None)
