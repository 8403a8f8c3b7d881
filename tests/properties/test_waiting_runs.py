"""Whatever runs wait for, whoever dies and whatever they are told: nothing is lost, nothing done twice."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from perdure.adapters.sqlite.store import SqliteStore
from perdure.engine import letters
from perdure.engine.history import RunView
from perdure.engine.letters import AnyLetter, ResolveLetter, SignalLetter, StopLetter
from perdure.engine.recovery import read_view
from perdure.stores.memory import MemoryState, MemoryStore
from tests.slow_stores import SlowStore
from tests.waiting import RUN_ID, World
from tests.waiting_laws import check
from tests.waiting_plans import Await, Both, HeldClock, Note, Pay, Script, Sleep

T = TypeVar("T")
NAMES = ("x", "y")


@pytest.fixture(autouse=True, scope="module")
def _nobody_looks_by_the_clock() -> Iterator[None]:
    """Letters are noticed when their sender says so, or when a stint begins: the test decides when."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(letters, "POLL_SECONDS", 3600.0)
        yield


signal_names = st.sampled_from([("x",), ("y",), ("x", "y"), ("y", "x")])
sleeps = st.builds(Sleep, st.sampled_from([1, 4, 3600]), st.booleans())
waits = st.builds(Await, signal_names, st.sampled_from([None, 3, 100]), st.booleans())
pays = st.builds(Pay, st.sampled_from(["same", "looks", "blind"]), st.booleans(), st.booleans())
simple = sleeps | waits | pays | st.just(Note())
both = st.lists(simple, min_size=2, max_size=3).map(lambda actions: Both(tuple(actions)))


def scripts(actions: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Script]]:
    """One to three states, and perhaps one that cleans up."""

    def named(lists: list[list[Any]], cleanup: list[Any] | None) -> list[Script]:
        states = [Script(f"s{index}", tuple(each)) for index, each in enumerate(lists)]
        return states if cleanup is None else [*states, Script("clean", tuple(cleanup), True)]

    some = st.lists(actions, min_size=1, max_size=4)
    return st.builds(named, st.lists(some, min_size=1, max_size=3), st.none() | st.lists(actions, max_size=2))


which = st.integers(0, 1)
failpoints = st.builds(
    lambda point, hit: f"{point}:{hit}",
    st.sampled_from(
        [f"{place}.{when}" for place in ("commit", "handler", "transport") for when in ("before", "after")]
    ),
    st.integers(1, 5),
)
deaths = st.tuples(st.integers(1, 12), st.booleans())
behaviours = st.sampled_from(["answer", "drop before", "drop after", "refuse", "hang before", "hang after"])


class WaitingRuns(RuleBasedStateMachine):
    """One run in one world, or in several that must have the same history."""

    actions: Any = simple | both

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.posted: dict[str, list[str]] = {name: [] for name in NAMES}
        self.sent: list[tuple[AnyLetter, str]] = []
        self.worlds: list[World] = []

    def open_worlds(self, scripts: list[Script], retry_seconds: int) -> list[World]:
        """The worlds in which the same happens."""
        state = MemoryState()
        return [World(scripts, lambda clock: SlowStore(state, clock, 2), retry_seconds)]

    @initialize(
        data=st.data(),
        failpoint=st.none() | failpoints,
        retry_seconds=st.sampled_from([0, 0, 2, 60]),
        how=st.lists(behaviours, max_size=4),
    )
    def begin(self, data: st.DataObject, failpoint: str | None, retry_seconds: int, how: list[str]) -> None:
        drawn = data.draw(scripts(self.actions))
        self.worlds = self.open_worlds(drawn, retry_seconds)
        self.behave(how)
        self.all(lambda world: world.drive(0, failpoint))
        if not all(self.all(lambda world: world.events())):
            self.all(lambda world: world.drive(0))

    def all(self, work: Callable[[World], Coroutine[Any, Any, T]]) -> list[T]:
        """What ``work`` comes to in each world: the same in all."""
        return [self.runner.run(work(world)) for world in self.worlds]

    def say(self, letter: AnyLetter, letter_id: str, sender: int) -> None:
        """Have a letter sent by process 1, or by whichever drives the run, and notices it at once."""
        if sender == 0 and self.worlds[0].processes[1].task is not None:
            sender = 1
        outcomes = self.all(lambda world: world.send(sender, letter, letter_id))
        assert len(set(outcomes)) == 1, outcomes
        ids = self.posted[letter.name] if isinstance(letter, SignalLetter) else None
        was_posted = outcomes[0] == "True" or self.runner.run(self.was_posted(letter_id))
        if ids is not None and was_posted and letter_id not in ids:
            ids.append(letter_id)
        self.sent.append((letter, letter_id))

    async def was_posted(self, letter_id: str) -> bool:
        stores = self.worlds[0].stores
        unread = [letter.id for letter in await stores.mailbox.unread(RUN_ID)]
        return letter_id in unread or letter_id in (await read_view(stores, RUN_ID)).inbox.letters

    @rule(which=which, failpoint=st.none() | failpoints, deaths=st.none() | deaths)
    def resume(self, which: int, failpoint: str | None, deaths: tuple[int, bool] | None) -> None:
        if deaths is not None:
            for world in self.worlds:
                world.die_at(which, deaths[0], after=deaths[1])
        self.all(lambda world: world.drive(which, failpoint))

    @rule(which=which)
    def deliver(self, which: int) -> None:
        self.all(lambda world: world.drive(which, runs_handlers=False))

    @rule(seconds=st.sampled_from([1, 3, 31, 3600]))
    def pass_time(self, seconds: int) -> None:
        self.all(lambda world: world.advance(seconds))

    @rule()
    def until_due(self) -> None:
        parked, now = self.worlds[0].parked, self.worlds[0].clock.millis
        if parked is not None and parked.due_millis is not None:
            seconds = max(0, -(-(parked.due_millis - now) // 1000))
            self.all(lambda world: world.advance(seconds))

    @rule(name=st.sampled_from(NAMES), sender=which)
    def signal(self, name: str, sender: int) -> None:
        number = len(self.sent)
        self.say(SignalLetter(name, {"number": number}, "ann"), f"letter {number}", sender)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), sender=which)
    def say_again(self, data: st.DataObject, sender: int) -> None:
        letter, letter_id = data.draw(st.sampled_from(self.sent[-4:]))
        self.say(letter, letter_id, sender)

    @rule(how=st.sampled_from(["pause", "unpause", "pause", "unpause", "cancel"]), sender=which)
    def stop(self, how: Any, sender: int) -> None:
        self.say(StopLetter(how, "ann", "enough"), f"letter {len(self.sent)}", sender)

    @precondition(lambda self: len(self.sent) > 3)
    @rule(sender=which)
    def terminate(self, sender: int) -> None:
        self.say(StopLetter("terminate", "ann", "enough"), f"letter {len(self.sent)}", sender)

    @rule(happened=st.booleans(), sender=which)
    def resolve(self, happened: bool, sender: int) -> None:
        view = self.view()
        for effect in view.in_doubt[:1]:
            doubt = effect.intents if view.may_be_told_of(effect) else None
            told = ResolveLetter(effect.key, happened, {"receipt": "said"}, "ann", "looked", doubt)
            self.say(told, f"letter {len(self.sent)}", sender)

    @rule(how=st.lists(behaviours, max_size=3))
    def behave(self, how: list[str]) -> None:
        for world in self.worlds:
            world.bank.behaviours.extend(how)

    @rule()
    def answer(self) -> None:
        self.all(lambda world: world.answer())

    @rule(which=which)
    def interrupt(self, which: int) -> None:
        self.all(lambda world: world.interrupt(which))

    @rule(which=which)
    def kill(self, which: int) -> None:
        self.all(lambda world: world.kill(which))

    @invariant()
    def laws(self) -> None:
        self.all(lambda world: check(world, self.posted))
        histories = self.all(lambda world: world.events())
        assert all(each == histories[0] for each in histories)
        assert all(world.outcomes == self.worlds[0].outcomes for world in self.worlds)

    def finish(self) -> None:
        """Drive the run to its end, whatever it takes."""
        for world in self.worlds:
            world.bank.behaviours.clear()
        view = self.view()
        for step in range(200):
            if view.ended is not None:
                return
            waits = [wait for attempt in view.open_attempts.values() for wait in view.waits_of(attempt)]
            if view.is_paused:
                self.stop("unpause", step % 2)
            elif any(wait.effect for wait in waits):
                self.resolve(True, step % 2)
            elif any(wait.signals for wait in waits):
                self.signal(NAMES[step % 3 == 0], step % 2)
            self.answer()
            self.pass_time(60 if step % 2 else 7200)
            if not self.worlds[0].is_driven:
                self.resume(step % 2, None, None)
            self.laws()
            view = self.view()
        raise AssertionError(f"the run does not end: {view.waiting_for} {self.worlds[0].outcomes[-5:]}")

    def view(self) -> RunView:
        """Where the run stands."""
        return self.runner.run(read_view(self.worlds[0].stores, RUN_ID))

    def teardown(self) -> None:
        try:
            if self.worlds:
                self.finish()
        finally:
            for world in self.worlds:
                for process in world.processes:
                    if process.task is not None:
                        process.task.cancel()
            self.runner.close()
            self.close_worlds()

    def close_worlds(self) -> None:
        """Let go of files."""


class WaitingRunsAlike(WaitingRuns):
    """In memory and in SQLite."""

    actions = simple

    def open_worlds(self, scripts: list[Script], retry_seconds: int) -> list[World]:
        self.folder = tempfile.TemporaryDirectory()
        self.opened: list[SqliteStore] = []
        state = MemoryState()

        def sqlite(clock: HeldClock) -> SqliteStore:
            self.opened.append(SqliteStore(Path(self.folder.name) / "runs.db", clock=clock))
            return self.opened[-1]

        return [
            World(scripts, lambda clock: MemoryStore(state, clock), retry_seconds),
            World(scripts, sqlite, retry_seconds),
        ]

    def close_worlds(self) -> None:
        for store in getattr(self, "opened", []):
            asyncio.run(store.close())
        if self.worlds:
            self.folder.cleanup()


TestWaitingRuns = WaitingRuns.TestCase
TestWaitingRuns.settings = settings(max_examples=60, stateful_step_count=25)
TestWaitingRunsAlike = WaitingRunsAlike.TestCase
TestWaitingRunsAlike.settings = settings(max_examples=20, stateful_step_count=20)
