"""A program starts runs and waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import (
    ConcurrencyError,
    InvalidPlanError,
    IoProvider,
    NotFoundError,
    RunError,
    RunId,
    RunPhase,
    StateError,
    StorageError,
    Stores,
    op,
)
from perdure.clock import SystemClock
from perdure.errors import ErrorCategory, ErrorInfo
from perdure.sdk import App, Client
from perdure.stores.memory import MemoryState, MemoryStore, memory_stores
from perdure.testing import FakeClock
from tests.support import CountingTransport, stream
from tests.unit.sdk import ONCE
from tests.unit.sdk.operations import Gate, HandMade, doubles, fails

RUN = "abcdef00-0000-0000-0000-00000000000"


async def test_a_run_is_started_and_gives_its_result() -> None:
    """By its operation or its name; a run is there as soon as ``start`` returns."""
    async with perdure.open(Stores.in_memory(), doubles) as p:
        run = await p.start(doubles, 21)
        assert await run.result() == 42
        assert repr(run) == f"<run {run.id}>"
        assert await run.phase() is RunPhase.COMPLETED
        assert (await run.wait()).phase is RunPhase.COMPLETED
        assert await run.context() == {"doubles.main.double": 42}
        assert await (await p.start("doubles", 4)).result() == 8


async def test_starting_what_is_not_there_writes_nothing() -> None:
    """An unknown name, an operation of another app, an input and a context that may not be written."""
    stores, other = Stores.in_memory(), op("other", states=[doubles.states[0].definition])
    async with perdure.open(stores, doubles) as p:
        for refused in (p.start("other"), p.start(other, 1)):
            with pytest.raises(InvalidPlanError) as caught:
                await refused
            assert caught.value.code == "op_not_found"
        with pytest.raises(InvalidPlanError, match="input_invalid"):
            await p.start("doubles", "1")
        with pytest.raises(perdure.ContextError, match="context_not_canonical"):
            await p.start(doubles, 1, context={"x": 0.5})
        assert await p.list() == []


async def test_a_key_starts_a_run_once() -> None:
    """While it runs and when it has ended; with another input it is a conflict."""
    gate = Gate()
    async with perdure.open(Stores.in_memory(), gate.operation) as p:
        first = await p.start(gate.operation, 1, key="order-7")
        again = await p.start(gate.operation, 1, key="order-7")
        with pytest.raises(ConcurrencyError, match="invocation_conflict"):
            await p.start(gate.operation, 2, key="order-7")
        gate.open.set()
        assert await first.result() == await again.result() == 2
        late = await p.start(gate.operation, 1, key="order-7")
        assert late.id == first.id == RunId.for_invocation("order-7")
        assert await late.result() == 2
        with pytest.raises(ConcurrencyError, match="invocation_conflict"):
            await p.start(gate.operation, 2, key="order-7")
        with pytest.raises(ConcurrencyError, match="invocation_conflict"):
            await p.start(gate.operation, 1, key="order-8", run_id=RunId.random())
        assert len(await p.list()) == 1
    assert gate.times == 1


async def test_a_refused_start_does_not_hinder_the_run_that_is_there() -> None:
    """It is recovered and waited for as if nothing had been asked."""
    async with perdure.open(Stores.in_memory(), doubles) as p:
        run = await p.start(doubles, 1, key="k", detach=True)
        with pytest.raises(ConcurrencyError, match="invocation_conflict"):
            await p.start(doubles, 2, key="k")
        with pytest.raises(ConcurrencyError, match="run_already_exists"):
            await p.start(doubles, 1, run_id=run.id)
        assert await p.recover() == [run.id]
        assert await run.result() == 2


async def test_runs_are_listed_by_phase_and_labels() -> None:
    """The newest first."""
    async with perdure.open(Stores.in_memory(), [doubles, fails]) as p:
        first = await p.start(doubles, 1, labels={"shop": "north", "day": "monday"})
        second = await p.start(doubles, 2, labels={"shop": "north"})
        third = await p.start(fails, run_config=ONCE)
        fourth = await p.start(doubles, 4, detach=True)
        for run in (first, second, third):
            await run.wait()

        async def found(**options: Any) -> list[str]:
            return [each.run_id for each in await p.list(**options)]

        assert await found() == [fourth.id, third.id, second.id, first.id]
        assert await found(limit=1) == [fourth.id]
        assert await found(labels={"shop": "north"}) == [second.id, first.id]
        assert await found(labels={"shop": "north", "day": "monday"}) == [first.id]
        assert await found(labels={"shop": "south"}) == []
        assert await found(phase=RunPhase.FAILED) == [third.id]
        assert await found(phase=RunPhase.RUNNING) == [fourth.id]
        (line,) = await p.list(labels={"day": "monday"})
        data = line.to_json()
        assert isinstance(data.pop("started_millis"), int)
        assert data == {
            "run_id": first.id,
            "phase": "Completed",
            "op_id": "doubles",
            "op_version": "1",
            "labels": {"shop": "north", "day": "monday"},
            "states_completed": 1,
            "events": 4,
            "error": None,
            "waiting_for": None,
            "in_doubt": [],
            "effects_in_doubt": [],
            "due_millis": None,
            "schedule": None,
        }


async def test_a_run_is_found_by_the_beginning_of_its_id() -> None:
    """At least four characters of it, which no other run has; its operation gives the result a type."""
    async with perdure.open(Stores.in_memory(), doubles) as p:
        for number in (1, 2):
            await p.start(doubles, number, run_id=RunId(f"{RUN}{number}"))
        other = await p.start(doubles, 3, run_id=RunId("12345678-0000-0000-0000-000000000000"))
        assert (await p.get("12345")).id == (await p.get(other.id)).id == other.id
        assert await (await p.get(f"{RUN}2".upper(), doubles)).result() == 4
        for text, code in [("123", "run_ambiguous"), ("abcdef", "run_ambiguous"), ("ffff", "run_not_found")]:
            with pytest.raises((RunError, NotFoundError)) as caught:
                await p.get(text)
            assert caught.value.code == code
        with pytest.raises(NotFoundError, match="run_not_found"):
            await p.get(RunId.random())


async def test_a_detached_run_is_left_to_others() -> None:
    """It is durably there, and nobody drives it until somebody recovers or resumes it."""
    stores = Stores.in_memory()
    async with perdure.open(stores, doubles) as p:
        recovered, resumed = [await p.start(doubles, n, detach=True) for n in (1, 2)]
        assert await stream(stores, recovered.id) == ["started"]
        assert await recovered.phase() is RunPhase.RUNNING
        assert await recovered.context() == {}
        assert (await p.resume(resumed.id)).id == resumed.id
        assert await resumed.result() == 4
        assert await p.recover() == [recovered.id]
        assert await recovered.result() == 2
        assert await p.recover() == []
        assert await (await p.resume(resumed.id)).result() == 4


async def test_events_come_as_they_are_written() -> None:
    """From the first or from a later one, until the run has ended."""
    gate = Gate()
    async with perdure.open(Stores.in_memory(), gate.operation) as p:
        run = await p.start(gate.operation, 1)
        events = run.events()
        seen = [await anext(events), await anext(events)]
        gate.open.set()
        seen += [each async for each in events]
        assert [each.seq for each in seen] == [1, 2, 3, 4]
        assert [each.seq async for each in run.events(after=2)] == [3, 4]
        assert [each.seq async for each in run.events(after=4)] == []
        assert [each.seq async for each in (await p.get(run.id)).events(after=99)] == []
        with pytest.raises(NotFoundError, match="run_not_found"):
            await anext(p.events_of(RunId.random()))


async def test_a_failed_run_says_which_state_failed_and_why() -> None:
    """``run_failed`` with the state and its error's code; to wait for it is no error."""
    async with perdure.open(Stores.in_memory(), fails) as p:
        run = await p.start(fails, run_config=ONCE)
        with pytest.raises(RunError) as caught:
            await run.result()
        assert (await run.wait()).phase is await run.phase() is RunPhase.FAILED
    assert caught.value.info == ErrorInfo(
        "run_failed",
        ErrorCategory.OFF_CHAIN,
        False,
        "fails.main.broken failed with declined: no luck",
        {"run_id": run.id, "state_id": "fails.main.broken", "code": "declined"},
    )


async def test_closing_interrupts_a_run_that_the_next_client_resumes() -> None:
    """Whoever waits is told; the attempt that was open counts for nothing."""
    stores, gate = Stores.in_memory(), Gate()
    p = await perdure.open(stores, gate.operation)
    run = await p.start(gate.operation, 1, run_config=ONCE)
    waiting = asyncio.ensure_future(run.result())
    await gate.entered.wait()
    await p.aclose()
    with pytest.raises(RunError) as caught:
        await waiting
    assert caught.value.code == "client_closed"
    assert await stream(stores, run.id) == ["started", "entered gated 0", "failed gated attempt_interrupted"]

    gate.open.set()
    async with perdure.open(stores, gate.operation) as other:
        assert await (await other.get(run.id)).result() == 2
    assert (await stream(stores, run.id))[3:] == ["entered gated 1", "completed gated", "run Completed"]


async def test_awaiting_gives_a_client_without_a_block(tmp_path: Path) -> None:
    """As in a notebook, whose cells share the client until one of them closes it."""
    path = tmp_path / "runs.db"
    p = await perdure.open(path, doubles)
    assert isinstance(p, Client)
    run = await p.start(doubles, 4)
    assert await run.result() == 8
    await p.aclose()
    with pytest.raises(RunError) as caught:
        await run.result()
    assert caught.value.code == "client_closed"
    again = await perdure.open(path, app=doubles)
    assert await (await again.get(run.id)).result() == 8
    await again.aclose()


async def closed_client(store: Any, gate: Gate) -> tuple[Client, perdure.Run[Any]]:
    """A client that was closed while it drove a run, and that run."""
    async with perdure.open(store, gate.operation) as p:
        run = await p.start(gate.operation, 1)
        await gate.entered.wait()
    return p, run


@pytest.mark.parametrize("store", ["memory:", Stores.in_memory])
async def test_a_closed_client_drives_and_follows_nothing(store: Any) -> None:
    """``client_closed``, also where the stores are still open, and at once."""
    p, run = await closed_client(store() if callable(store) else store, Gate())
    for asked in (run.result(), run.wait(), anext(run.events(after=3)), p.start("gated", 1)):
        with pytest.raises(RunError) as caught:
            await asked
        assert caught.value.code == "client_closed"
        assert caught.value.hint
    await p.aclose()


async def test_what_follows_a_run_ends_with_the_client() -> None:
    """Also when somebody else drives the run: nothing waits for ever."""
    stores, gate = Stores.in_memory(), Gate()
    async with perdure.open(stores, gate.operation) as driver:
        run = await driver.start(gate.operation, 1)
        follower = await perdure.open(stores, gate.operation, recover=False)
        seen = await follower.get(run.id)
        events = seen.events(after=1)
        assert (await anext(events)).seq == 2
        waiting = [asyncio.ensure_future(seen.result()), asyncio.ensure_future(anext(events))]
        await asyncio.sleep(0)
        await follower.aclose()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert [getattr(each, "code", None) for each in answers] == ["client_closed", "client_closed"]
        gate.open.set()
        assert await run.result() == 2
        assert await seen.result() == 2


@pytest.mark.parametrize("recover", [True, False])
async def test_opening_resumes_what_nobody_owns(tmp_path: Path, recover: bool) -> None:
    """Unless it is asked not to."""
    path = tmp_path / "runs.db"
    gate = Gate()
    _, run = await closed_client(path, gate)
    gate.open.set()
    async with perdure.open(path, gate.operation, recover=recover) as p:
        mine = await p.get(run.id)
        if not recover:
            assert await mine.phase() is RunPhase.RUNNING
            assert await p.recover() == [run.id]
        assert await mine.result() == 2
    assert gate.times == 2


async def test_a_run_of_an_unknown_operation_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """It is reported once, and others go on; who knows the operation can resume it."""
    stores, strange = Stores.in_memory(), op("strange", states=[doubles.states[0].definition])
    async with perdure.open(stores, [doubles, strange]) as p:
        lost = await p.start(strange, 1, detach=True)
        found = await p.start(doubles, 2, detach=True)
    async with perdure.open(stores, doubles) as p:
        assert await (await p.get(found.id)).result() == 4
        with pytest.raises(InvalidPlanError, match="run_blocked_by_version"):
            await (await p.get(lost.id)).result()
        assert await p.recover() == []
    (record,) = caplog.records
    assert f"run {lost.id} cannot be driven here: run_blocked_by_version" in record.getMessage()
    assert await stream(stores, lost.id) == ["started"]
    async with perdure.open(stores, strange) as p:
        assert await (await p.get(lost.id)).result() == 2


async def test_two_clients_share_one_file(tmp_path: Path) -> None:
    """One drives a run, the other sees and follows it, and drives it only when the first lets go."""
    path, gate = tmp_path / "runs.db", Gate()
    async with perdure.open(f"sqlite:{path}", gate.operation) as driver:
        run = await driver.start(gate.operation, 1)
        await gate.entered.wait()
        async with perdure.open(path, gate.operation) as other:
            mine = await other.get(run.id[:8])
            assert await mine.phase() is RunPhase.RUNNING
            assert await (await other.resume(run.id)).phase() is RunPhase.RUNNING
            events = mine.events()
            seen = [await anext(events), await anext(events)]
            gate.open.set()
            seen += [each async for each in events]
            assert [each.seq for each in seen] == [1, 2, 3, 4]
            assert await mine.result() == 2
            assert await mine.context() == await run.context() == {"gated.main.gated": 2}
    assert gate.times == 1


async def test_stores_are_given_in_many_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, a text, an address, or stores that stay open. A path is never taken for an address."""
    monkeypatch.chdir(tmp_path)
    for store in (tmp_path / "a.db", "b.db", f"sqlite:{tmp_path}/c.db", Path("memory:"), "memory:"):
        async with perdure.open(store, [doubles]) as p:
            assert await (await p.start(doubles, 1)).result() == 2
    assert {"a.db", "b.db", "c.db", "memory:"} <= {each.name for each in tmp_path.iterdir()}
    stores = Stores.in_memory()
    async with perdure.open(stores, App([doubles])) as p:
        run = await p.start(doubles, 1)
        await run.result()
    assert (await stream(stores, run.id))[-1] == "run Completed"
    assert await run.result() == 2


async def test_what_cannot_be_recovered_is_closed_again() -> None:
    """An opening that fails leaves nothing open."""

    class Unreadable(MemoryStore):
        async def due_runs(
            self, limit: int, *, within_millis: int = 0, among: Collection[RunId] | None = None
        ) -> list[RunId]:
            raise StorageError.of("store_io_error", "the disk is gone")

    class Transport(CountingTransport):
        is_open = True

        async def aclose(self) -> None:
            self.is_open = False

    store, transport = Unreadable(MemoryState(), SystemClock()), Transport()
    stores = Stores(store, store, store, store, mailbox=store, agenda=store)
    with pytest.raises(StorageError, match="store_io_error"):
        await perdure.open(stores, App([doubles], [transport]))
    assert not transport.is_open


async def test_an_operation_made_by_hand() -> None:
    """JSON in, and its exports by name out."""
    made = HandMade("made")
    async with perdure.open(Stores.in_memory(), [made]) as p:
        assert await (await p.start("made", {"a": [1]})).result() == {"seen": {"a": [1]}}
        assert (await p.list())[0].op_id == "made"


async def test_what_ends_a_driver_is_told_to_whoever_waits() -> None:
    """Also an error that is none of ours: the run stays, and can be resumed."""

    class Breaks(HandMade):
        imports_read = 0

        @property
        def imports(self) -> tuple[str, ...]:
            self.imports_read += 1
            if self.imports_read > 1:
                raise RuntimeError("out of order")
            return ()

    async with perdure.open(Stores.in_memory(), [Breaks("made")]) as p:
        run = await p.start("made", 1, detach=True)
        await p.resume(run.id)
        with pytest.raises(RuntimeError, match="out of order"):
            await run.result()
        assert await run.phase() is RunPhase.RUNNING


async def test_an_error_of_the_users_keeps_its_category() -> None:
    """So that callers can tell what kind of failure it was."""
    error = StateError(ErrorInfo("busy", ErrorCategory.RPC, retryable=True))
    busy = op("busy")

    @busy.state
    async def asks() -> int:
        raise error

    async with perdure.open(Stores.in_memory(), busy) as p:
        with pytest.raises(RunError) as caught:
            await (await p.start(busy, run_config=ONCE)).result()
    assert (caught.value.info.category, caught.value.info.details["code"]) == (ErrorCategory.RPC, "busy")


@pytest.mark.parametrize(("seconds", "times"), [(0, 2), (5, 1)])
async def test_how_long_a_run_may_wait_in_memory_is_the_client_s_to_say(seconds: int, times: int) -> None:
    """One that waits longer leaves it: its handler is run again when the time has come."""
    called: list[int] = []
    naps = op("naps")

    @naps.state
    async def nap(io: IoProvider) -> None:
        called.append(1)
        await io.sleep(timedelta(seconds=1))

    clock = FakeClock()
    limit = timedelta(seconds=seconds)
    async with perdure.open(memory_stores(clock=clock), naps, clock=clock, park_after=limit) as p:
        assert (await (await p.start(naps)).wait()).phase is RunPhase.COMPLETED
    assert len(called) == times
