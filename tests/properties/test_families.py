"""Whoever stops, dies or comes in between: a family ends as an undisturbed one, and nothing is done twice."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from perdure import DomainEvent
from perdure.adapters.sqlite.store import SqliteStore
from perdure.engine import letters
from perdure.engine.history import RunView, fold
from perdure.ids import RunId
from perdure.io.children import ClosePolicy
from perdure.model.events import CHILD_RUN_SPAWNED, RunStarted
from perdure.stores.memory import MemoryState, MemoryStore
from perdure.stores.ports import Append, Committed
from tests.families import turns
from tests.family_trees import ROOT_ID, Clock, Link, Member, Trees, check_families, check_letters
from tests.slow_stores import SlowStore


@pytest.fixture(autouse=True, scope="module")
def _nobody_looks_by_the_clock() -> Iterator[None]:
    """Letters are noticed when their sender says so, or when a stint begins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(letters, "POLL_SECONDS", 3600.0)
        yield


class Watched(SlowStore):
    """A slow store, and whether a crash after any commit would have left a child or a link alone."""

    async def _land(self, *args: Any, **options: Any) -> Committed:
        committed = await super()._land(*args, **options)
        appends: Sequence[Append] = args[1]
        for run_id, _, events in appends:
            for event in events:
                if isinstance(event, RunStarted) and event.parent is not None:
                    parent = fold(await self.read_range(event.parent.run_id, 1))
                    assert run_id in parent.children, "a child without its link"
                if isinstance(event, DomainEvent) and event.name == CHILD_RUN_SPAWNED:
                    assert await self.head_seq(event.payload["child_run_id"]), "a link without its child"
        return committed


actions = st.lists(st.sampled_from(["call", "nap", "sleep", "signal", "tell"]), max_size=2).map(tuple)


@st.composite
def members(draw: st.DrawFn, depth: int = 2, fan_out: int = 4) -> Member:
    """A run with children and, within ``depth``, theirs."""
    states = draw(st.lists(actions, min_size=1, max_size=3))
    links = draw(st.integers(0, fan_out)) if depth else 0
    children = [draw(link(len(states), depth - 1)) for _ in range(links)]
    failures = draw(st.sampled_from([0, 0, 0, 1, 2]))
    return Member(tuple(states), tuple(children), failures, draw(st.booleans()))


@st.composite
def link(draw: st.DrawFn, states: int, depth: int) -> Link:
    """A child of a run with so many states."""
    spawned_in = draw(st.integers(0, states - 1))
    awaited_in = draw(st.none() | st.integers(spawned_in, states - 1))
    child = draw(members(depth, 2))
    return Link(child, draw(st.sampled_from(ClosePolicy)), spawned_in, awaited_in, draw(st.integers(1, 2)))


families = members().filter(lambda member: bool(member.children))
failpoints = st.builds(
    lambda point, hit: f"{point}:{hit}",
    st.sampled_from(
        [f"{place}.{when}" for place in ("commit", "handler", "transport") for when in ("before", "after")]
    ),
    st.integers(1, 12),
)
deaths = st.tuples(st.integers(1, 60), st.booleans())
stints = st.tuples(st.integers(0, 1), st.integers(0, 9), st.none() | failpoints, st.none() | deaths)
moves = st.lists(st.lists(stints, min_size=1, max_size=3), max_size=4)
orders = st.lists(st.integers(0, 999), min_size=1, max_size=20)


def ends_alike(expected: dict[RunId, Any], ends: dict[RunId, Any], views: dict[RunId, RunView]) -> None:
    """All that does not depend on when somebody was told to stop is as it was."""
    sure = {run_id for run_id in expected if is_sure(run_id, views)}
    assert {run_id: end for run_id, end in ends.items() if run_id in sure} == {
        run_id: expected[run_id] for run_id in sure
    }


def is_sure(run_id: RunId, views: dict[RunId, RunView]) -> bool:
    """Whether neither the run nor one above it was to be cancelled at its parent's end."""
    view = views[run_id]
    assert view.started is not None
    if view.started.parent is None:
        return True
    parent = view.started.parent.run_id
    child = views[parent].children[run_id]
    return (child.close_policy is not ClosePolicy.CANCEL or child.has_ended) and is_sure(parent, views)


async def undisturbed(family: Member) -> tuple[MemoryState, dict[RunId, Any], dict[RunId, RunView]]:
    """How a family ends that nobody disturbs."""
    state = MemoryState()
    trees = Trees(family, lambda clock: MemoryStore(state, clock))
    ends = await trees.drive_to_end()
    assert set(Counter(trees.asked).values()) <= {1}
    views = await trees.views()
    check_families(views)
    return state, ends, views


async def disturb(trees: Trees, moves: list[list[tuple[int, int, str | None, Any]]]) -> None:
    """Several stints at once, of which some stop or die, and again."""
    for stints in moves:
        runs = sorted(await trees.views())
        work = []
        for which, number, failpoint, death in stints:
            if death is not None and which == stints[0][0]:
                trees.processes[which].gate.calls_left, trees.processes[which].gate.dies_after = death
            run_id = runs[number % len(runs)] if runs and number else ROOT_ID
            work.append(trees.drive(which, run_id, failpoint))
        await asyncio.gather(*work)
        await trees.settle()
        note(f"{stints}: {len(runs)} runs")
        check_families(await trees.views())
        await trees.bury()


async def check(
    family: Member, open_store: Callable[[Clock], Any], places: int, moves: Any, order: list[int]
) -> None:
    """A disturbed family ends as an undisturbed one."""
    _, expected, views = await undisturbed(family)
    trees = Trees(family, open_store, places)
    await disturb(trees, moves)
    ends = await trees.drive_to_end(order)
    assert trees.asked_again == []
    check_families(await trees.views())
    ends_alike(expected, ends, views)


@settings(max_examples=30)
@given(families, st.sampled_from([1, 2, 100]), moves, orders)
def test_a_disturbed_family_ends_as_an_undisturbed_one(
    family: Member, places: int, moves: Any, order: list[int]
) -> None:
    """Several processes work on it at once, each with few places or many."""
    state = MemoryState()
    asyncio.run(check(family, lambda clock: Watched(state, clock, 2), places, moves, order))


@settings(max_examples=4)
@given(families, st.sampled_from([1, 100]), moves, orders)
def test_a_disturbed_family_in_a_file(family: Member, places: int, moves: Any, order: list[int]) -> None:
    """Processes that share a SQLite file."""
    opened: list[SqliteStore] = []
    with tempfile.TemporaryDirectory() as folder:

        def open_store(clock: Clock) -> SqliteStore:
            opened.append(SqliteStore(Path(folder) / "runs.db", clock=clock))
            return opened[-1]

        async def body() -> None:
            try:
                await check(family, open_store, places, moves, order)
            finally:
                for store in opened:
                    await store.close()

        asyncio.run(body())


@settings(max_examples=8)
@given(families, st.integers(0, 99))
def test_a_member_whose_history_is_cut_goes_on_to_the_same_end(family: Member, number: int) -> None:
    """Whatever it has forgotten, the others have not: children are adopted, and not made again."""

    async def body() -> None:
        calm, expected, views = await undisturbed(family)
        cut = sorted(views)[number % len(views)]
        history = calm.streams[cut]
        for length in range(1, len(history)):
            note(f"{cut} is cut after event {length}")
            state = MemoryState()
            state.blobs.update(calm.blobs)
            state.recipes.update(calm.recipes)
            state.streams.update(calm.streams)
            state.streams[cut] = history[:length]
            state.ended.update(calm.ended - {cut})
            trees = Trees(family, lambda clock, state=state: MemoryStore(state, clock))  # type: ignore[misc]
            ends = await trees.drive_to_end()
            assert trees.asked_again == []
            check_families(await trees.views())
            ends_alike(expected, ends, views)
            assert state.streams[cut][:length] == history[:length]

    asyncio.run(body())


words = st.sampled_from(["pause", "unpause", "pause", "unpause", "cancel", "terminate"])
tellings = st.tuples(st.integers(0, 1), st.integers(0, 9), words, st.integers(0, 60))
calm = st.tuples(st.integers(0, 1), st.integers(0, 9), st.none(), st.none())
told_stints = st.lists(calm | calm | stints, min_size=1, max_size=2)
told_moves = st.lists(
    st.tuples(told_stints, st.lists(tellings, min_size=1, max_size=3)), min_size=1, max_size=4
)


@settings(max_examples=30)
@given(families, st.sampled_from([1, 2, 100]), told_moves, orders)
def test_whatever_a_family_is_told_it_ends(family: Member, places: int, moves: Any, order: list[int]) -> None:
    """Any member is told anything while any of them are driven, stop, or die: all that concerns it, once.

    Pauses alone change nothing in the end.
    """

    async def body() -> None:
        state = MemoryState()
        trees = Trees(family, lambda clock: Watched(state, clock, 2), places)
        names = sorted(trees.members)
        stopped = False

        async def tell(telling: tuple[int, int, Any, int], letter_id: str) -> None:
            nonlocal stopped
            which, number, how, after = telling
            stopped = stopped or how in ("cancel", "terminate")
            _, run_id = trees.members[names[number % len(names)] if number > 2 else "m"]
            trees.told.setdefault(run_id, set()).add(letter_id)
            await turns(after)
            await trees.tell(which, run_id, how, letter_id)

        for index, (stints, told) in enumerate(moves):
            telling = [
                asyncio.create_task(tell(each, f"letter {index} {number}"))
                for number, each in enumerate(told)
            ]
            await disturb(trees, [stints])
            await asyncio.gather(*telling)
            await trees.settle()
            await trees.bury()
            check_letters(await trees.histories(), trees.told)
        ends = await trees.drive_to_end(order)
        histories = await trees.histories()
        check_letters(histories, trees.told)
        check_families(await trees.views())
        assert trees.asked_again == []
        if not stopped:
            _, expected, views = await undisturbed(family)
            ends_alike(expected, ends, views)

    asyncio.run(body())
