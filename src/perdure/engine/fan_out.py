"""What comes next in a run whose states run side by side: ``decide_side_by_side``. Pure.

Every state that is ready is entered as soon as there is a place for it, from the merge of what its ancestors
have written. So what a state sees depends on the plan and never on the timing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from perdure.engine.attempt import presentable
from perdure.engine.attempts import OpenAttempt
from perdure.engine.decide import (
    Ends,
    Go,
    Merge,
    Pause,
    PlannedRun,
    Start,
    Step,
    Stop,
    cancelled,
    close_orphan,
    deadline_of,
    earliest,
    end_run,
    enter,
    expired,
    first_answer,
    go_on,
    may_try,
    terminated,
    was_held_up,
)
from perdure.engine.history import RunView, doubts_in_words
from perdure.engine.joins import Frontier, JoinGraph, Tips, context_write_conflict
from perdure.engine.merging import Conflict, Merged
from perdure.errors import ErrorCategory, ErrorInfo
from perdure.ids import ArtifactId, RunId, StateId
from perdure.io.waits import NOTHING, Wait
from perdure.model.config import FanOutJoin, RunConfig
from perdure.model.events import (
    RunCompleted,
    RunStatus,
    StateCompleted,
    StateEntered,
    StateErrorInfo,
    StateFailed,
)
from perdure.stores.ports import Blob


class Standing(msgspec.Struct, frozen=True):
    """What is known of a run besides its history.

    ``running`` are the states whose handlers run at this moment. ``merged`` are contexts by the states that
    they come from, ``altered`` those that states find where values were set. ``ready`` are the numbers of the
    states that are ready, which spares finding them.
    """

    running: Collection[StateId] = ()
    ends: Ends = MappingProxyType({})
    merged: Mapping[Tips, Merged] = MappingProxyType({})
    ready: Sequence[int] | None = None
    altered: Mapping[StateId, Merged] = MappingProxyType({})


class _Base(NamedTuple):
    snapshot_id: ArtifactId
    conflict: Conflict | None = None
    blobs: tuple[Blob, ...] = ()


def decide_side_by_side(
    view: RunView, plan: PlannedRun, config: RunConfig, now_millis: int, standing: Standing
) -> Step:
    """The next step. An open attempt that does not run, and does not wait, is an orphan.

    A ``Pause`` is until something that runs has ended too. A ``Merge`` asks to be decided anew with these
    contexts in ``standing.merged``.
    """
    if view.ended is not None:
        return Step((), Stop())
    if view.cancel is not None:
        return _cancel(view, plan, config, now_millis, standing)
    deadline = deadline_of(view, config)
    if deadline is not None and now_millis >= deadline:
        return _expire(view, plan, standing)
    waits = _waits_by_attempt(view)
    orphans = [
        attempt
        for attempt in view.open_attempts.values()
        if attempt.state_id not in standing.running and (attempt.state_id, attempt.attempt) not in waits
    ]
    if orphans:
        return Step(tuple(close_orphan(view, each, config) for each in orphans), Go())
    graph = _graph_of(plan)
    ready = Frontier(graph).advance(view.completed) if standing.ready is None else standing.ready
    if view.is_paused and (ready or view.open_attempts):
        return Step((), Pause(deadline, "being unpaused"))
    return _Turn(view, plan, config, now_millis, deadline, standing, waits, graph).step(ready)


class _Turn:
    """One look at all states that are ready."""

    def __init__(
        self,
        view: RunView,
        plan: PlannedRun,
        config: RunConfig,
        now_millis: int,
        deadline: int | None,
        standing: Standing,
        waits: Mapping[tuple[StateId, int], Sequence[Wait]],
        graph: JoinGraph,
    ) -> None:
        self._view, self._plan, self._standing = view, plan, standing
        self._waits, self._graph, self._now_millis = waits, graph, now_millis
        self._due = [deadline]
        self._reasons: dict[str, None] = {}
        self._doubts: dict[str, None] = {}
        self._awaits: list[RunId] = []
        self._places = _places(config) - len(standing.running)
        self._entered: list[StateEntered] = []
        self._blobs: dict[ArtifactId, tuple[Blob, ...]] = {}
        self._missing: dict[Tips, None] = {}
        self._to_alter: list[StateId] = []

    def step(self, ready: Sequence[int]) -> Step:
        """What is to be done, with as many states entered as there are places."""
        view = self._view
        idle = [
            state_id
            for state_id in [self._graph.ids[index] for index in ready]
            if state_id not in self._standing.running
        ]
        has_failed = any(self._has_failed(state_id) for state_id in idle)
        for state_id in idle:
            if not self._places:
                break
            attempt = view.open_attempts.get(state_id)
            if attempt is not None:
                step = self._go_on(attempt)
            elif self._is_in_doubt(state_id) or has_failed:
                continue
            else:
                step = self._enter(state_id)
            if step is not None:
                if not self._entered:
                    return step
                break  # it changes what the others find: first those that do not depend on it
        if self._entered:
            blobs = [blob for each in self._blobs.values() for blob in each]
            started = Start(tuple(each.state_id for each in self._entered))
            return Step(tuple(self._entered), started, blobs=tuple(blobs))
        if self._missing or self._to_alter:
            return Step((), Merge(tuple(self._missing), tuple(self._to_alter)))
        if has_failed and not view.open_attempts and not self._doubts:
            return _end(view, RunStatus.FAILED, self._graph, self._standing)
        if idle or view.open_attempts:
            due, reasons = earliest(*self._due), ", ".join([*self._reasons, *self._doubts])
            return Step((), Pause(due, reasons, tuple(self._awaits)))
        return _end(view, RunStatus.COMPLETED, self._graph, self._standing)

    def _has_failed(self, state_id: StateId) -> bool:
        """Whether a state has failed for good: not while one of its effects is in doubt."""
        if state_id not in self._view.states or state_id in self._view.open_attempts:
            return False
        return not self._may_try(state_id) and not self._view.holding_up(state_id)

    def _may_try(self, state_id: StateId) -> bool:
        if may_try(self._view, state_id, self._plan.retry_policy(state_id)):
            return True
        return was_held_up(self._view, state_id) and not self._view.holding_up(state_id)

    def _is_in_doubt(self, state_id: StateId) -> bool:
        if self._may_try(state_id):
            return False
        in_doubt = self._view.holding_up(state_id)
        if in_doubt:
            self._doubts[doubts_in_words(in_doubt)] = None
        return bool(in_doubt)

    def _go_on(self, attempt: OpenAttempt) -> Step | None:
        """Take up an attempt whose wait is over."""
        waits = self._waits[attempt.state_id, attempt.attempt]
        answer = first_answer(self._view, waits, self._now_millis, self._standing.ends)
        if answer is not None:
            return Step((answer,), Start((attempt.state_id,)), blobs=(NOTHING,))
        for wait in waits:
            self._due.append(wait.until_millis)
            self._reasons[str(wait)] = None
            if wait.child_run_id is not None:
                self._awaits.append(wait.child_run_id)
        return None

    def _enter(self, state_id: StateId) -> Step | None:
        """Begin the next attempt at a state if it is due; a step if that is not all."""
        progress = self._view.states.get(state_id)
        if progress is not None:
            if progress.retry_due_millis is not None and self._now_millis < progress.retry_due_millis:
                self._due.append(progress.retry_due_millis)
                self._reasons["retry"] = None
                return None
            attempt, base = progress.last_attempt + 1, _Base(progress.base_snapshot_id)
        else:
            found = self._first_base(state_id)
            if found is None:
                self._places -= 1  # it will take one
                return None
            attempt, base = 0, found
            self._blobs[base.snapshot_id] = base.blobs
        entered = StateEntered(state_id, attempt, base.snapshot_id)
        if base.conflict is not None:
            return Step((entered, write_conflict(state_id, base.conflict)), Go(), blobs=base.blobs)
        if state_id in self._plan.skipped:
            return self._skip(entered, base.blobs)
        self._entered.append(entered)
        self._places -= 1
        return None

    def _first_base(self, state_id: StateId) -> _Base | None:
        """What the state finds; None if it is to be merged first."""
        if state_id in self._view.set_values:
            found = self._standing.altered.get(state_id)
            if found is None:
                self._to_alter.append(state_id)
            return None if found is None else _Base(found.snapshot.id, found.conflict, found.blobs)
        tips = self._graph.tips[self._graph.index[state_id]]
        base = _base_of(self._view, tips, self._standing)
        if base is None:
            self._missing[tips] = None
        return base

    def _skip(self, entered: StateEntered, blobs: tuple[Blob, ...]) -> Step:
        done = StateCompleted(entered.state_id, entered.base_snapshot_id)
        if len(self._view.completed) + 1 == len(self._graph.ids):
            # The last state to end answers for the merge of all, to which it adds nothing.
            tips = self._graph.tips_of(self._view.completed)
            final = _base_of(self._view, tips, self._standing)
            if final is None:
                return Step((), Merge((tips,)))
            if final.conflict is not None:
                failed = write_conflict(entered.state_id, final.conflict)
                return Step((entered, failed), Go(), blobs=blobs)
        return Step((entered, done), Go(), blobs=blobs)


def write_conflict(
    state_id: StateId, conflict: Conflict, failure_snapshot_id: ArtifactId | None = None
) -> StateFailed:
    """The end of an attempt at the state in which a contradiction comes to light."""
    info = ErrorInfo(
        "context_write_conflict",
        ErrorCategory.CONTEXT,
        False,
        presentable(context_write_conflict(*conflict)),
        {"key": conflict.key, "states": [conflict.first, conflict.second]},
    )
    return StateFailed(state_id, StateErrorInfo(state_id, info), failure_snapshot_id)


def _base_of(view: RunView, tips: Tips, standing: Standing) -> _Base | None:
    """The context that ``tips`` leave; None if it is to be merged first."""
    if not tips:
        assert view.started is not None, "nothing is decided before the run's start"
        return _Base(view.started.initial_snapshot_id)
    if len(tips) == 1:
        return _Base(view.completed[tips[0]])
    merged = standing.merged.get(tips)
    return None if merged is None else _Base(merged.snapshot.id, merged.conflict, merged.blobs)


def _cancel(view: RunView, plan: PlannedRun, config: RunConfig, now_millis: int, standing: Standing) -> Step:
    """Close what is open, clean up however long it takes, and end."""
    assert view.cancel is not None
    idle = [each for each in view.open_attempts.values() if each.state_id not in standing.running]
    others = [each for each in idle if each.state_id not in plan.cleanup_ids]
    if others:
        return Step(tuple(map(cancelled, others)), Go())
    if standing.running:
        return Step((), Pause(None, "what runs to end"))
    graph = _graph_of(plan)
    if not view.cancel.terminates:
        for node in plan.cleanup:
            if (waiting := view.open_attempts.get(node.id)) is not None:
                return go_on(view, waiting, config, now_millis, None, 0, standing.ends)
            if node.id not in view.completed and may_try(view, node.id, plan.retry_policy(node.id)):
                base = _final_of(view, graph, standing)
                if isinstance(base, Step):
                    return base
                step = enter(view, node.id, plan, now_millis, None, 0, base.snapshot_id)
                return msgspec.structs.replace(step, blobs=base.blobs if step.events else ())
    if idle:
        return Step(tuple(map(terminated, idle)), Go())
    if not view.cancel.terminates:
        return _end(view, RunStatus.CANCELLED, graph, standing)
    base = _final_of(view, graph, standing)
    if isinstance(base, Step):
        return base
    return Step((RunCompleted(RunStatus.CANCELLED, base.snapshot_id),), Stop(), blobs=base.blobs)


def _expire(view: RunView, plan: PlannedRun, standing: Standing) -> Step:
    idle = [each for each in view.open_attempts.values() if each.state_id not in standing.running]
    if idle:
        return Step(tuple(map(expired, idle)), Go())
    if standing.running:
        return Step((), Pause(None, "what runs to end"))
    return _end(view, RunStatus.FAILED, _graph_of(plan), standing)


def _end(view: RunView, status: RunStatus, graph: JoinGraph, standing: Standing) -> Step:
    """End the run with the merge of all that has completed."""
    final = _final_of(view, graph, standing)
    if isinstance(final, Step):
        return final
    if status is RunStatus.COMPLETED and final.conflict is not None:
        # Another engine let the last attempt complete all the same.
        status = RunStatus.FAILED
    step = end_run(view, status, standing.ends, final.snapshot_id)
    return msgspec.structs.replace(step, blobs=final.blobs) if isinstance(step.then, Stop) else step


def _final_of(view: RunView, graph: JoinGraph, standing: Standing) -> _Base | Step:
    """The context that all states which have completed leave, or the step that asks for it."""
    last = next(reversed(view.completed), None)
    if last is not None and last not in graph.index:  # it cleaned up, over the merge of all
        return _Base(view.completed[last])
    tips = graph.tips_of(view.completed)
    return _base_of(view, tips, standing) or Step((), Merge((tips,)))


def _waits_by_attempt(view: RunView) -> dict[tuple[StateId, int], list[Wait]]:
    found: dict[tuple[StateId, int], list[Wait]] = {}
    for wait in view.waits.values():
        found.setdefault((wait.state_id, wait.attempt), []).append(wait)
    return found


def _graph_of(plan: PlannedRun) -> JoinGraph:
    assert plan.joins is not None, "the run's states run one at a time"
    return plan.joins


def _places(config: RunConfig) -> int:
    assert isinstance(config.execution_mode, FanOutJoin)
    return config.execution_mode.max_concurrency
