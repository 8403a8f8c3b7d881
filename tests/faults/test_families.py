"""Stores that fail a family, or that hold what cannot be read: nobody hangs, and nothing is lost for good."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure import (
    Context,
    CorruptionError,
    Engine,
    IoError,
    IoProvider,
    PerdureError,
    Recorder,
    RetryPolicy,
    RunConfig,
    RunId,
    RunPhase,
    StateId,
    Stores,
)
from perdure.clock import SystemClock
from perdure.engine.letters import SignalLetter, StopLetter
from perdure.errors import StorageError
from perdure.model.events import EventEnvelope, StateCompleted
from perdure.stores.memory import MemoryState, MemoryStore, memory_stores
from tests.families import (
    Hanging,
    Ops,
    await_child,
    context_of,
    nobody_drives,
    resume,
    spawn,
    start,
    start_of,
)

CONFIG = RunConfig(retry_policy=RetryPolicy(9))
RUN_ID = RunId("00000000-0000-0000-0000-00000000000a")
ENOUGH_SECONDS = 10


class Flaky:
    """A store that does not answer a few calls, or answers those with an error after it has done them."""

    def __init__(self, state: MemoryState, first: int, calls: int, *, does_them: bool) -> None:
        self._store = MemoryStore(state, SystemClock())
        self._first = first
        self._last = first + calls - 1
        self._does_them = does_them
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            fails = self._first <= self.calls <= self._last
            if fails and not self._does_them:
                raise StorageError.of("store_down", "no answer")
            result = await method(*args, **options)
            if fails:
                raise StorageError.of("store_down", "no answer")
            return result

        return method if name == "renew" else call


async def leaf(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """The last of a family."""
    ctx.write("done", True)


async def middle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """Has one child."""
    ctx.write("end", (await await_child(io, "w", await spawn(io, "k", "leaf")))["status"])


async def root(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """Has two children at once."""
    children = [await spawn(io, f"k{number}", "middle", number) for number in range(2)]
    ends = await asyncio.gather(*(await_child(io, f"w{n}", child) for n, child in enumerate(children)))
    ctx.write("statuses", [end["status"] for end in ends])


OPS = Ops({"root": root, "middle": middle, "leaf": leaf})


@pytest.mark.parametrize("calls", [1, 3])
@pytest.mark.parametrize("does_them", [False, True])
async def test_a_store_that_does_not_answer_now_and_then(calls: int, does_them: bool) -> None:
    """Whichever call it is: the family ends as if nothing had been, now or with the next who resumes it."""
    outcomes: Counter[str] = Counter()
    first = 0
    while True:
        first += 1
        state = MemoryState()
        stores = memory_stores(state)
        store: Any = Flaky(state, first, calls, does_them=does_them)
        run = await start_of(stores, OPS, "root", config=CONFIG, run_id=RUN_ID)
        flaky = Stores(store, store, store, store, mailbox=store, agenda=store)
        try:
            outcome = (await start(Engine(OPS), flaky, run)).phase.value
        except PerdureError as error:
            outcome = error.code
        await nobody_drives()
        if store.calls < first:
            break
        outcomes[outcome] += 1
        state.claims.clear()  # those that could not be given up are over some day
        if not await stores.events.head_seq(RUN_ID):
            await start(Engine(OPS), stores, run)
        assert (await resume(Engine(OPS), stores, RUN_ID)).phase is RunPhase.COMPLETED
        assert (await context_of(stores, RUN_ID))["statuses"] == ["Completed"] * 2
        assert await stores.events.list_runs(unfinished=True) == []
    assert first > 40
    assert outcomes["Completed"]
    assert outcomes["store_down"]


class Refusing(MemoryStore):
    """A store that takes no letters to children, and says so in its own words."""

    async def post(self, run_id: RunId, letter_id: str, body: Any) -> bool:
        if run_id != RUN_ID:
            raise OSError("the line is busy")
        return await super().post(run_id, letter_id, body)


async def test_a_letter_that_cannot_be_passed_on_stops_who_was_to_do_it() -> None:
    """The error is the owner's, also while a handler runs; who resumes the run passes the letter on."""
    hanging = Hanging()

    async def parent(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await await_child(io, "w", await spawn(io, "k", "hang"))

    ops, state = Ops({"parent": parent, "hang": hanging.handle}), MemoryState()
    store = Refusing(state, SystemClock())
    stores = Stores(store, store, store, store, mailbox=store, agenda=store)
    engine = Engine(ops)
    run = await start_of(stores, ops, "parent", run_id=RUN_ID)
    running = asyncio.create_task(engine.start(stores, run))
    await hanging.until_begun()
    await engine.send(stores, RUN_ID, StopLetter("pause", "ann", "lunch"), "letter")
    with pytest.raises(OSError, match="busy"):
        await asyncio.wait_for(running, ENOUGH_SECONDS)
    await nobody_drives()
    hanging.go_on.set()
    healthy = memory_stores(state)
    assert (await resume(engine, healthy, RUN_ID)).waiting_for == "being unpaused"
    await engine.send(healthy, RUN_ID, StopLetter("unpause", "ann", "back"), "other")
    assert (await resume(engine, healthy, RUN_ID)).phase is RunPhase.COMPLETED
    history = await healthy.events.read_range(RUN_ID.child("k"), 1)
    names = [getattr(each.event, "name", None) for each in history]
    assert (names.count("run_paused"), names.count("run_unpaused")) == (1, 1)


async def wait(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """Is parked."""
    await io.wait_signal("go")


@pytest.mark.parametrize("awaits", [True, False])
async def test_a_child_with_a_broken_history_is_waited_for_until_somebody_terminates(awaits: bool) -> None:
    """Nobody knows how it would have ended; its parent is parked, and listens."""

    async def parent(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        child = await spawn(io, "k", "wait")
        if awaits:
            await await_child(io, "w", child)

    ops, state = Ops({"parent": parent, "wait": wait}), MemoryState()
    stores, engine = memory_stores(state), Engine(ops)
    await start(engine, stores, await start_of(stores, ops, "parent", run_id=RUN_ID))
    child = RUN_ID.child("k")
    broken = StateCompleted(StateId("nobody.main.knows"), run_artifact(state))
    state.streams[child].append(EventEnvelope(child, len(state.streams[child]) + 1, 1, broken))
    assert (await resume(engine, stores, RUN_ID)).waiting_for == f"child {child}"
    for how, phase in (("cancel", RunPhase.RUNNING), ("terminate", RunPhase.CANCELLED)):
        await engine.send(stores, RUN_ID, StopLetter(how, "ann", "enough"), how)  # type: ignore[arg-type]
        for runs_handlers in (False, True):
            result = await engine.resume(stores, RUN_ID, runs_handlers=runs_handlers)
            assert result.phase is phase


def run_artifact(state: MemoryState) -> Any:
    """Some artifact of the store."""
    return next(iter(state.blobs))


async def test_a_child_whose_events_are_damaged(tmp_path: Path) -> None:
    """Who resumes its parent is told of it; a handler that asks is, too; and a word ends the parent."""

    async def parent(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        child = await spawn(io, "k", "wait")
        await io.wait_signal("go")
        with pytest.raises(IoError) as caught:
            await await_child(io, "w", child)
        codes.append(caught.value.code)
        await io.wait_signal("go again")

    codes: list[str] = []
    ops, path = Ops({"parent": parent, "wait": wait}), tmp_path / "runs.db"
    async with Stores.sqlite(path) as stores:
        engine = Engine(ops)
        await start(engine, stores, await start_of(stores, ops, "parent", run_id=RUN_ID))
        await nobody_drives()
        with apsw.Connection(str(path)) as database:
            child = "(SELECT key FROM run WHERE run_id <> ?)"
            database.execute(f"UPDATE event SET body = x'7b' WHERE seq > 1 AND run = {child}", [RUN_ID])
        database.close()
        await engine.send(stores, RUN_ID, SignalLetter("go", 1, "ann"), "go")
        assert (await resume(engine, stores, RUN_ID)).waiting_for == "signal go again"
        assert codes == ["child_run_engine_failed"]
        await engine.send(stores, RUN_ID, StopLetter("cancel", "ann", "enough"), "cancel")
        with pytest.raises(CorruptionError):
            await resume(engine, stores, RUN_ID)
        await engine.send(stores, RUN_ID, StopLetter("terminate", "ann", "enough"), "terminate")
        assert (await resume(engine, stores, RUN_ID)).phase is RunPhase.CANCELLED
