"""A history of waits and payments, cut anywhere, goes on to the end that it had."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from zlib import crc32

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from perdure import ArtifactId, RunPhase
from perdure.engine import letters
from perdure.engine.history import RunView, fold
from perdure.engine.letters import ResolveLetter, SignalLetter
from perdure.engine.recovery import read_view
from perdure.io.effects import NOT_APPLIED
from perdure.io.waits import Wait
from perdure.stores.memory import MemoryState, MemoryStore
from tests.properties.test_waiting_runs import behaviours, both, scripts, simple
from tests.waiting import RUN_ID, World
from tests.waiting_laws import check
from tests.waiting_plans import Await, Script, Sleep


@pytest.fixture(autouse=True, scope="module")
def _nobody_looks_by_the_clock() -> Iterator[None]:
    """Letters are noticed when a stint begins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(letters, "POLL_SECONDS", 3600.0)
        yield


def world_of(scripts: Sequence[Script], state: MemoryState) -> World:
    """A world over ``state``."""
    return World(scripts, lambda clock: MemoryStore(state, clock))


async def drive_to_end(world: World) -> ArtifactId | None:
    """Bring what the run waits for, which is the same for the same wait, until it has completed."""
    for _ in range(100):
        if not world.is_driven:
            await world.drive(0)
        view = await read_view(world.stores, RUN_ID)
        if view.ended is not None:
            assert view.phase is RunPhase.COMPLETED
            await check(world, {})
            return view.ended.final_snapshot_id
        waits = [wait for attempt in view.open_attempts.values() for wait in view.waits_of(attempt)]
        await bring(world, view, min(waits, key=lambda wait: wait.key, default=None))
    raise AssertionError(f"the run does not end: {world.outcomes[-3:]}")


async def bring(world: World, view: RunView, wait: Wait | None) -> None:
    """What ends ``wait``, a signal if its time or its name says so; for a call that hangs, an answer."""
    await world.answer()
    if wait is not None and wait.effect is not None:
        told = ResolveLetter(wait.effect, True, {"receipt": wait.effect}, "ann", "on the statement")
        await world.send(0, told, f"{wait.key}")
    elif wait is not None and wait.signals and (wait.until_millis is None or crc32(wait.key.encode()) % 2):
        name = wait.signals[0]
        number = len(view.inbox.arrived.get(name, []))
        await world.send(0, SignalLetter(name, {"number": number}, "ann"), f"{name} {number}")
    else:
        due = world.clock.millis if wait is None else wait.until_millis or 0
        await world.advance(max(1, -(-(due - world.clock.millis) // 1000)))


# Of two waits at once, it depends on which was begun first what each of them comes to.
one_by_one = both.filter(lambda each: sum(isinstance(part, Await | Sleep) for part in each.actions) < 2)


@settings(max_examples=25)
@given(scripts(simple | one_by_one), st.lists(behaviours, max_size=4))
def test_a_history_cut_after_any_event_goes_on_to_the_same_end(drawn: list[Script], how: list[str]) -> None:
    """Nobody interferes: what is waited for comes, as it came before."""

    async def body() -> None:
        state = MemoryState()
        world = world_of(drawn, state)
        world.bank.behaviours.extend(how)
        expected = await drive_to_end(world)
        history = await world.events()
        for length in range(1, len(history)):
            note(f"cut after event {length}")
            cut = MemoryState()
            cut.blobs.update(state.blobs)
            cut.recipes.update(state.recipes)
            cut.streams[RUN_ID] = history[:length]
            again = world_of(drawn, cut)
            again.clock.millis = history[length - 1].ts_millis or 0
            begun = fold(history[:length]).effects.values()
            made = {effect.key for effect in begun if effect.outcome != NOT_APPLIED}
            again.bank.made.update({key: n for key, n in world.bank.made.items() if key in made})
            assert await drive_to_end(again) == expected
            assert (await again.events())[:length] == history[:length]

    asyncio.run(body())
