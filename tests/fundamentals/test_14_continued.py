"""Runs that go on as new ones: each leg is short, and whoever deals with the first deals with the last."""

from __future__ import annotations

import uuid

from perdure import (
    ContinueAsNew,
    Context,
    Engine,
    IoProvider,
    Recorder,
    RunId,
    RunPhase,
    StateOutcome,
    Stores,
)
from perdure.engine.recovery import read_view
from tests.support import FixedResolver, Scripted, plan_of, start_run, stream


async def count(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
    """Counts to ``until``, one a leg."""
    n, until = ctx.read("n") or 0, ctx.read("until")
    ctx.write("n", n + 1)
    if n + 1 < until:
        return StateOutcome(continuation=ContinueAsNew({"n": n + 1, "until": until}))
    return None


async def test_a_run_goes_on_as_a_new_one() -> None:
    """The engine drives one leg after the other; the result is the last one's."""
    stores, plan = Stores.in_memory(), plan_of(("count", Scripted(count)))
    run = await start_run(stores, plan, context={"until": 3})
    result = await Engine(FixedResolver(plan)).start(stores, run)
    assert result.phase is RunPhase.COMPLETED
    legs = [run_id async for run_id in _legs(stores, RunId((await stores.events.list_runs())[-1]))]
    assert len(legs) == 3
    assert result.run_id == legs[-1]
    assert await stream(stores, legs[0]) == [
        "started", "entered count 0", "completed count", "run_continued", "run Completed",
    ]  # fmt: skip


async def _legs(stores, run_id):
    while run_id is not None:
        yield run_id
        run_id = (await read_view(stores, run_id)).continued_as
