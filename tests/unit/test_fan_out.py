"""``decide_side_by_side`` by hand: no loop, no clock, no store."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from perdure import (
    ErrorCategory,
    ErrorInfo,
    FanOutJoin,
    RunCompleted,
    RunConfig,
    RunStarted,
    RunStatus,
    StateCompleted,
    StateEntered,
    StateErrorInfo,
    StateFailed,
)
from perdure.engine.attempts import ORPHAN_ATTEMPT_RECOVERED
from perdure.engine.decide import Go, Merge, Pause, PlannedRun, Start, Step, Stop
from perdure.engine.fan_out import Standing, decide_side_by_side
from perdure.engine.history import RunView
from perdure.engine.joins import Tips
from perdure.engine.merging import Merged
from perdure.ids import ArtifactId, OpId
from perdure.model.context import Snapshot
from perdure.model.events import Event
from tests.support import Scripted, plan_of, state_id

CONFIG = RunConfig(execution_mode=FanOutJoin(2))
INITIAL, LEFT, RIGHT = (ArtifactId(digit * 64) for digit in "012")
BOTH = (state_id("left"), state_id("right"))


async def _nothing(*_: object) -> None:
    """Do nothing."""


def planned(*names: str, edges: Sequence[tuple[str, str]] = ()) -> PlannedRun:
    return PlannedRun.of(plan_of(*[(name, Scripted(_nothing)) for name in names], edges=edges), CONFIG)


JOINED = planned("left", "right", "join", edges=[("left", "join"), ("right", "join")])


def view_of(*events: Event) -> RunView:
    view, numbers = RunView(), count(1)
    for event in (RunStarted(OpId("op"), INITIAL, INITIAL), *events):
        view.advance(event, next(numbers))
    return view


def entered(name: str, attempt: int = 0, base: ArtifactId = INITIAL) -> StateEntered:
    return StateEntered(state_id(name), attempt, base)


def failed(name: str, *, retryable: bool) -> StateFailed:
    info = ErrorInfo("broken", ErrorCategory.UNKNOWN, retryable)
    return StateFailed(state_id(name), StateErrorInfo(state_id(name), info), None)


def decided(view: RunView, plan: PlannedRun = JOINED, running: Sequence[str] = (), **known: Merged) -> Step:
    merged: dict[Tips, Merged] = {BOTH: known["both"]} if known else {}
    standing = Standing([state_id(name) for name in running], merged=merged)
    return decide_side_by_side(view, plan, CONFIG, 0, standing)


def test_all_that_are_ready_are_entered_at_once() -> None:
    """As many as there are places, from their own bases."""
    step = decided(view_of())
    assert (step.events, step.then) == ((entered("left"), entered("right")), Start(BOTH))
    three = planned("a", "b", "c")
    assert decided(view_of(), three).then == Start((state_id("a"), state_id("b")))
    view = view_of(entered("a"), entered("b"), StateCompleted(state_id("a"), LEFT))
    assert decided(view, three, ["b"]).events == (entered("c"),)


def test_what_runs_is_no_orphan() -> None:
    """What does not is closed, all at once."""
    view = view_of(entered("left"), entered("right"))
    assert isinstance(decided(view, running=["left", "right"]).then, Pause)
    step = decided(view, running=["left"])
    assert [(type(each), step.then) for each in step.events] == [(StateFailed, Go())]
    codes = [each.error.info.code for each in decided(view).events if isinstance(each, StateFailed)]
    assert codes == [ORPHAN_ATTEMPT_RECOVERED] * 2


def test_a_join_asks_for_its_merge_first() -> None:
    """And is entered with it, once it is known."""
    ends = StateCompleted(BOTH[0], LEFT), StateCompleted(BOTH[1], RIGHT)
    view = view_of(entered("left"), entered("right"), *ends)
    assert decided(view).then == Merge((BOTH,))
    merged = Merged(Snapshot.of_values({"x": 1}), None, True)
    step = decided(view, both=merged)
    assert step.events == (entered("join", base=merged.snapshot.id),)
    assert [blob.id for blob in step.blobs] == [merged.snapshot.id]


def test_after_a_failure_for_good_nothing_is_entered() -> None:
    """The run ends when what is open has ended, with what has completed."""
    plan = planned("bad", "open", "other")
    view = view_of(entered("bad"), entered("open"), failed("bad", retryable=False))
    step = decided(view, plan, ["open"])
    assert (step.events, type(step.then)) == ((), Pause)
    view.advance(StateCompleted(state_id("open"), RIGHT), view.head_seq + 1)
    step = decided(view, plan)
    assert (step.events, step.then) == ((RunCompleted(RunStatus.FAILED, RIGHT),), Stop())


def test_a_retry_starts_from_the_base_of_the_first_attempt() -> None:
    """Whatever has completed since."""
    view = view_of(
        entered("left"), entered("right"), StateCompleted(BOTH[1], RIGHT), failed("left", retryable=True)
    )
    assert decided(view).events == (entered("left", 1),)
