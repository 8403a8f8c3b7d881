"""Whoever stops, dies or comes in between: a chain has each leg once, and no letter is lost or doubled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure import (
    Context,
    ContinueAsNew,
    Engine,
    Failpoints,
    IoProvider,
    PerdureError,
    Recorder,
    RunId,
    RunPhase,
    RunResult,
    RunStarted,
    RunStatus,
    StateOutcome,
    Stores,
)
from perdure.engine import letters
from perdure.engine.history import RunView
from perdure.engine.letters import SignalLetter, StopLetter
from perdure.engine.ownership import CLAIM_TTL
from perdure.engine.recovery import read_view
from perdure.model.events import ContinuedRun
from perdure.stores.memory import MemoryState
from perdure.stores.reading import read_json
from perdure.stores.sharing import SharedArtifacts
from perdure.testing import FakeClock
from tests.families import Ops, await_child, spawn, start_of
from tests.slow_stores import SlowStore
from tests.waiting import Died, Gate, StillKeeper

FIRST = RunId("00000000-0000-0000-0000-00000000000c")


@pytest.fixture(autouse=True, scope="module")
def _nobody_looks_by_the_clock() -> Iterator[None]:
    """Letters are noticed when their sender says so, or when a stint begins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(letters, "POLL_SECONDS", 3600.0)
        yield


Legs = Sequence[Sequence[str]]
actions = st.lists(st.sampled_from(["take", "now", "spawn", "await"]), max_size=3)
chains = st.lists(actions, min_size=2, max_size=4)
points = st.builds(
    lambda place, when, hit: f"{place}.{when}:{hit}=stop",
    st.sampled_from(["commit", "commit", "handler"]),
    st.sampled_from(["before", "after"]),
    st.integers(1, 6),
)
deaths = st.tuples(st.integers(1, 30), st.booleans())
stints = st.tuples(st.just("drive"), st.integers(0, 3), st.none() | points, st.none() | deaths)
sends = st.tuples(st.just("send"), st.integers(0, 3), st.none(), st.none())
pauses = st.tuples(st.sampled_from(["pause", "unpause"]), st.integers(0, 3), st.none(), st.none())
moves = st.lists(stints | sends | stints | sends | pauses, max_size=12)


class World:
    """A chain whose legs do what is drawn, in a place where processes die."""

    def __init__(self, legs: Legs) -> None:
        self._legs = legs
        self._state = MemoryState()
        self.clock = FakeClock()
        self.ops = Ops({"chain": self._work, "kid": self._kid})
        self.stores = self._place(SlowStore(self._state, self.clock, 2))
        self.sent = 0
        self.words = 0
        self.wanted = sum(each.count("take") for each in legs)

    def _place(self, store: Any) -> Stores:
        shared = SharedArtifacts(store)
        return Stores(store, shared, store, shared, mailbox=store, agenda=store)

    async def _kid(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.now_millis()

    async def _work(self, ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        leg, taken = ctx.read("leg") or 0, ctx.read("taken") or []
        open_children = ctx.read("children") or []
        for number, action in enumerate(self._legs[leg]):
            if action == "take":
                signal = await io.wait_signal("a")
                assert signal is not None
                taken.append(signal.value)
            elif action == "now":
                await io.now_millis()
            elif action == "spawn":
                open_children.append(await spawn(io, f"k{number}", "kid", [leg, number]))
            elif open_children:
                child = open_children.pop(0)
                assert (await await_child(io, f"w{number}", child))["status"] == "Completed"
        ctx.write("taken", taken)
        if leg + 1 == len(self._legs):
            return None
        given = {"leg": leg + 1, "taken": taken, "children": open_children}
        return StateOutcome(continuation=ContinueAsNew(given))

    async def drive(
        self, number: int = 0, failpoint: str | None = None, death: tuple[int, bool] | None = None
    ) -> RunResult | None:
        """A stint of a process of its own, on whichever leg; None if it died."""
        gate = Gate(SlowStore(self._state, self.clock, 2))
        if death is not None:
            gate.calls_left, gate.dies_after = death
        failpoints = Failpoints.parse([] if failpoint is None else [failpoint])
        keeper = StillKeeper(CLAIM_TTL)
        engine = Engine(self.ops, failpoints=failpoints, clock=self.clock, claim_keeper=keeper)
        stores = self._place(gate)
        legs = await self.legs()
        try:
            if legs:
                work = engine.resume(stores, legs[number % len(legs)])
            else:
                run = await start_of(self.stores, self.ops, "chain", run_id=FIRST)
                work = engine.start(stores, run)
            return await asyncio.wait_for(work, 20)
        except Died:
            return None
        except PerdureError as error:
            # What a dying process was told by its own gate.
            if death is None and error.code != "run_already_active":
                raise
            return None
        finally:
            gate.close()
            await self._bury()

    async def _bury(self) -> None:
        """Nothing of a process is left but its claims, until they expire."""
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self.clock.advance(31_000)

    async def say(self, what: str, number: int) -> None:
        """A word to any of the legs; a sender does not know which of them lives."""
        legs = await self.legs()
        if not legs or (what == "send" and self.sent == self.wanted):
            return
        letter: Any = SignalLetter("a", self.sent, "ann")
        if what != "send":
            letter = StopLetter(what, "ann", "")  # type: ignore[arg-type]  # drawn from the words there are
        engine = Engine(self.ops, clock=self.clock)
        try:
            await engine.send(self.stores, legs[number % len(legs)], letter, f"{what} {self.words}")
        except PerdureError as error:
            if error.code != "run_already_terminal":
                raise
            return
        self.words += 1
        self.sent += what == "send"

    async def legs(self) -> list[RunId]:
        """The chain so far."""
        if not await self.stores.events.head_seq(FIRST):
            return []
        found = [FIRST]
        while (heir := (await self.view(found[-1])).continued_as) is not None:
            found.append(heir)
        return found

    async def view(self, run_id: RunId) -> RunView:
        return await read_view(self.stores, run_id)

    async def check(self) -> None:
        """What holds at any time."""
        legs = await self.legs()
        expected: ContinuedRun | None = None
        for number, leg in enumerate(legs, 1):
            started = (await self.stores.events.read_range(leg, 1, 1))[0].event
            assert isinstance(started, RunStarted)
            assert started.continues == expected
            expected = ContinuedRun(leg, FIRST, number + 1)
            view = await self.view(leg)
            assert (view.continued_as is not None) == (leg != legs[-1])
            if view.continued_as is not None:
                assert view.ended is not None
                assert view.ended.status is RunStatus.COMPLETED
                assert not await self.stores.mailbox.unread(leg)
            assert await self.stores.newest_leg(leg) == legs[-1]
        runs = await self.stores.events.list_runs(limit=1000)
        kids = {child for leg in legs for child in (await self.view(leg)).children}
        assert set(runs) == {*legs, *kids}
        living = [each for each in await self.stores.events.list_runs(unfinished=True) if each not in kids]
        assert len(living) <= 1

    async def to_the_end(self) -> RunResult:
        """Drive it on, and tell it what it waits for."""
        for _ in range(60):
            result = await self.drive()
            await self.check()
            if result is not None and result.phase is not RunPhase.RUNNING:
                return result
            await self.say("unpause", 0)
            await self.say("send", 0)
        raise AssertionError("the chain does not end")


async def _story(legs: Legs, told: Sequence[Any]) -> None:
    world = World(legs)
    for what, number, failpoint, death in told:
        if what == "drive":
            await world.drive(number, failpoint, death)
        else:
            await world.say(what, number)
        await world.check()
    result = await world.to_the_end()
    assert result.phase is RunPhase.COMPLETED
    chain = await world.legs()
    assert len(chain) == len(legs)
    assert result.run_id == chain[-1]
    view = await world.view(chain[-1])
    assert view.ended is not None
    assert view.ended.final_snapshot_id is not None
    context: Any = (await read_json(world.stores.artifacts, view.ended.final_snapshot_id))[0]
    assert context["taken"] == list(range(world.wanted))
    for leg in chain:
        for child in (await world.view(leg)).children:
            assert (await world.view(child)).phase is RunPhase.COMPLETED


@settings(max_examples=40)
@given(chains, moves)
def test_a_disturbed_chain_ends_as_an_undisturbed_one(legs: Legs, told: Sequence[Any]) -> None:
    """Each leg once, each signal taken once and in the order of sending; children end before the last leg."""
    asyncio.run(_story(legs, told))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_any_commit_changes_nothing(when: str) -> None:
    """Every commit of a chain with signals and children is looked at as the last one before a crash."""
    legs = [["spawn", "take"], ["now", "spawn", "take"], ["await", "take"]]
    for hit in range(1, 30):
        drives = [("drive", 0, None, None), ("send", 0, None, None)]
        crash = ("drive", 0, f"commit.{when}:{hit}=stop", None)
        asyncio.run(_story(legs, [crash, *drives, crash, ("send", 0, None, None), *drives, crash]))
