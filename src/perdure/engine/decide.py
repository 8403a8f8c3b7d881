"""What comes next: ``decide(view, plan, config, now) -> Step``. Pure.

A step is the events to append now and what to do after them. The loop stages the events, and makes them
durable before it does anything that can be seen from outside; so the events of several steps share one
commit where nothing lies between them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType

import msgspec

from perdure.arguments import expect
from perdure.engine.attempts import CONTINUED_IN_DOUBT, ORPHAN_ATTEMPT_RECOVERED, RUN_CANCELLED, OpenAttempt
from perdure.engine.history import RunView, doubts_in_words
from perdure.engine.joins import JoinGraph, Tips
from perdure.errors import ErrorCategory, ErrorInfo, InvalidPlanError
from perdure.ids import ArtifactId, RunId, StateId
from perdure.io.children import ClosePolicy, child_run_completed
from perdure.io.waits import NOTHING, Wait, answer_to
from perdure.model.config import RECOVERY_LIMIT_DEFAULT, FanOutJoin, RetryPolicy, RunConfig
from perdure.model.events import (
    RETRY_SCHEDULED,
    DomainEvent,
    Event,
    RunCompleted,
    RunStatus,
    StateCompleted,
    StateEntered,
    StateErrorInfo,
    StateFailed,
)
from perdure.model.meta import StateMeta
from perdure.model.plan import ExecutionPlan, StateNode, topological_order
from perdure.stores.ports import Blob
from perdure.stores.refusals import run_not_started


class PlannedRun(msgspec.Struct, frozen=True):
    """A plan made ready for deciding: its states in order, and by name."""

    order: list[StateNode]
    nodes: Mapping[StateId, StateNode]
    skipped: frozenset[StateId]
    """States that carry a tag which the configuration skips."""
    metas: Mapping[StateId, StateMeta]
    cleanup: list[StateNode] = []
    """States that run, in this order, when the run is cancelled, and else not."""

    run_retry_policy: RetryPolicy = RetryPolicy()
    joins: JoinGraph | None = None
    """Which states precede which, in a run whose states run side by side."""

    def retry_policy(self, state_id: StateId) -> RetryPolicy:
        """How often the state is tried: as it says itself, or else as the run does."""
        return self.metas[state_id].retry_policy or self.run_retry_policy

    @property
    def cleanup_ids(self) -> frozenset[StateId]:
        """The names of these."""
        return frozenset(node.id for node in self.cleanup)

    @classmethod
    def of(cls, plan: ExecutionPlan, config: RunConfig) -> PlannedRun:
        """Raises ``InvalidPlanError`` for a plan that has no order, or whose states contradict each other."""
        order = topological_order(plan)
        nodes = {node.id: node for node in order}
        metas = {node.id: node.state.meta() for node in order}
        for state_id, meta in metas.items():
            if not isinstance(meta, StateMeta):
                expect(meta, StateMeta, f"what meta() of {state_id} gives", "a StateMeta")
        skip_tags = frozenset(config.skip_tags)
        skipped: frozenset[StateId] = frozenset()
        if skip_tags:
            skipped = frozenset(each for each, meta in metas.items() if not skip_tags.isdisjoint(meta.tags))
        cleanup = [nodes[state_id] for state_id, meta in metas.items() if meta.on_cancel]
        if cleanup:
            order = [node for node in order if not metas[node.id].on_cancel]
        joins = None
        if isinstance(config.execution_mode, FanOutJoin):
            joins = JoinGraph(order, plan.graph.edges, nodes)
            joins.refuse_conflicts({state_id: meta.writes for state_id, meta in metas.items() if meta.writes})
        return cls(order, nodes, skipped, metas, cleanup, config.retry_policy, joins)


class Run(msgspec.Struct, frozen=True, gc=False):
    """Run the handler of the attempt that was just entered."""

    attempt: OpenAttempt


class Start(msgspec.Struct, frozen=True, gc=False):
    """Run the handlers of these open attempts, side by side with those that run already."""

    state_ids: tuple[StateId, ...]


class Merge(msgspec.Struct, frozen=True, gc=False):
    """Decide again when these contexts are known."""

    tips: tuple[Tips, ...]
    altered: tuple[StateId, ...] = ()
    """And what these states find, where values were set."""


class Pause(msgspec.Struct, frozen=True, gc=False):
    """Nothing is to be done before ``until_millis``, or before a letter comes; None: not without a letter."""

    until_millis: int | None
    waiting_for: str
    awaits: tuple[RunId, ...] = ()
    """Runs whose end ends it too."""
    awaits_all: bool = False
    """Whether it takes the end of all of them."""


class Go(msgspec.Struct, frozen=True, gc=False):
    """Decide again."""


class Stop(msgspec.Struct, frozen=True, gc=False):
    """The run has ended."""


class Step(msgspec.Struct, frozen=True, gc=False):
    """Events to append, then what to do."""

    events: tuple[Event, ...]
    then: Run | Start | Merge | Pause | Go | Stop
    place: int = 0
    """Where in the plan's order the step is: every state before it has completed."""
    blobs: tuple[Blob, ...] = ()
    """Artifacts that the events name."""


Ends = Mapping[RunId, RunCompleted | None]
"""How awaited runs ended; None for one that does not exist."""


def decide(
    view: RunView,
    plan: PlannedRun,
    config: RunConfig,
    now_millis: int,
    place: int = 0,
    ends: Ends = MappingProxyType({}),
) -> Step:
    """The next step of a run that nobody is executing at this moment: an open attempt is an orphan.

    ``place`` is that of an earlier step of this run, which spares looking at the states before it. ``ends``
    is what is known of the runs that it awaits.
    """
    if view.ended is not None:
        return Step((), Stop())
    if len(view.open_attempts) > 1:
        raise InvalidPlanError.of(
            "invalid_attempt_envelopes",
            "the history is broken: a sequential run has several open attempts",
            details={"states": sorted(view.open_attempts)},
        )
    if view.cancel is not None:
        return _cancel(view, plan, config, now_millis, ends)
    deadline = None if config.timeout is None else deadline_of(view, config)
    if deadline is not None and now_millis >= deadline:
        return _expire(view, ends)
    for attempt in view.open_attempts.values():
        return go_on(view, attempt, config, now_millis, deadline, place, ends)
    while place < len(plan.order) and plan.order[place].id in view.completed:
        place += 1
    if place == len(plan.order):
        return end_run(view, RunStatus.COMPLETED, ends)
    if view.is_paused:
        return Step((), Pause(deadline, "being unpaused"), place)
    state_id = plan.order[place].id
    if state_id in view.states and not may_try(view, state_id, plan.retry_policy(state_id)):
        in_doubt = view.holding_up(state_id)
        if in_doubt:
            return Step((), Pause(deadline, doubts_in_words(in_doubt)), place)
        if was_held_up(view, state_id):
            return enter(view, state_id, plan, now_millis, deadline, place)
        return end_run(view, RunStatus.FAILED, ends)
    return enter(view, state_id, plan, now_millis, deadline, place)


def enter(
    view: RunView,
    state_id: StateId,
    plan: PlannedRun,
    now_millis: int,
    deadline: int | None,
    place: int,
    first_base: ArtifactId | None = None,
) -> Step:
    """Begin the next attempt at a state, when it is due: the first from ``first_base``, or the checkpoint."""
    progress = view.states.get(state_id)
    if progress is None:
        attempt, base = 0, first_base or _checkpoint(view)
    elif progress.retry_due_millis is not None and now_millis < progress.retry_due_millis:
        return Step((), Pause(earliest(progress.retry_due_millis, deadline), "retry"), place)
    else:
        attempt, base = progress.last_attempt + 1, progress.base_snapshot_id
    entered = StateEntered(state_id, attempt, base)
    if state_id in plan.skipped:
        return Step((entered, StateCompleted(state_id, base)), Go(), place)
    return Step((entered,), Run(OpenAttempt(state_id, attempt, base, view.head_seq + 1)), place)


def go_on(
    view: RunView,
    attempt: OpenAttempt,
    config: RunConfig,
    now_millis: int,
    deadline: int | None,
    place: int,
    ends: Ends,
) -> Step:
    """Take up an open attempt: it waits, what it waited for is there, or its process died."""
    waits = view.waits_of(attempt)
    if not waits:
        return Step((close_orphan(view, attempt, config),), Go(), place)
    if view.is_paused:
        return Step((), Pause(deadline, "being unpaused"), place)
    answer = first_answer(view, waits, now_millis, ends)
    if answer is not None:
        return Step((answer,), Run(attempt), place, (NOTHING,))
    due = earliest(*(wait.until_millis for wait in waits), deadline)
    awaits = tuple(wait.child_run_id for wait in waits if wait.child_run_id is not None)
    return Step((), Pause(due, ", ".join(map(str, waits)), awaits), place)


def first_answer(view: RunView, waits: Sequence[Wait], now_millis: int, ends: Ends) -> DomainEvent | None:
    """What ends the first of these waits that is over."""
    answers = (answer_to(wait, view.inbox, view.effects, now_millis, ends) for wait in waits)
    return next((answer for answer in answers if answer is not None), None)


def end_run(view: RunView, status: RunStatus, ends: Ends, final: ArtifactId | None = None) -> Step:
    """End the run, with ``final`` or the checkpoint, after its children that it has to end after."""
    events: list[Event] = []
    awaited: list[RunId] = []
    for child in view.children.values():
        if child.has_ended or child.close_policy is not ClosePolicy.AWAIT:
            continue
        if child.run_id not in ends:
            awaited.append(child.run_id)
        elif (end := ends[child.run_id]) is not None:
            events.append(child_run_completed(child.run_id, end))
    if awaited:
        waiting_for = ", ".join(f"child {run_id}" for run_id in awaited)
        return Step(tuple(events), Pause(None, waiting_for, tuple(awaited), awaits_all=True))
    return Step((*events, RunCompleted(status, final or _checkpoint(view))), Stop())


def _cancel(view: RunView, plan: PlannedRun, config: RunConfig, now_millis: int, ends: Ends) -> Step:
    """Close what is open, clean up however long it takes, and end."""
    for attempt in view.open_attempts.values():
        if attempt.state_id not in plan.cleanup_ids:
            return Step((cancelled(attempt),), Go())
    if view.cancel is not None and not view.cancel.terminates:
        for node in plan.cleanup:
            waiting = [each for each in view.open_attempts.values() if each.state_id == node.id]
            if waiting:
                return go_on(view, waiting[0], config, now_millis, None, 0, ends)
            if node.id not in view.completed and may_try(view, node.id, plan.retry_policy(node.id)):
                return enter(view, node.id, plan, now_millis, None, 0)
    for attempt in view.open_attempts.values():
        return Step((terminated(attempt),), Go())
    if view.cancel is not None and view.cancel.terminates:
        return Step((RunCompleted(RunStatus.CANCELLED, _checkpoint(view)),), Stop())
    return end_run(view, RunStatus.CANCELLED, ends)


def _expire(view: RunView, ends: Ends) -> Step:
    for attempt in view.open_attempts.values():
        return Step((expired(attempt),), Go())
    return end_run(view, RunStatus.FAILED, ends)


def cancelled(attempt: OpenAttempt) -> StateFailed:
    """The end of an attempt whose run is to end, and that does not clean up."""
    return _closed(attempt, RUN_CANCELLED, "the run was cancelled")


def terminated(attempt: OpenAttempt) -> StateFailed:
    """The end of any attempt whose run is to end at once."""
    return _closed(attempt, RUN_CANCELLED, "the run was terminated")


def expired(attempt: OpenAttempt) -> StateFailed:
    """The end of an attempt at the run's deadline."""
    return _closed(attempt, "run_timeout", "the run took longer than it may")


def _closed(attempt: OpenAttempt, code: str, message: str) -> StateFailed:
    info = ErrorInfo(code, ErrorCategory.UNKNOWN, False, message)
    return StateFailed(attempt.state_id, StateErrorInfo(attempt.state_id, info), None)


def deadline_of(view: RunView, config: RunConfig) -> int | None:
    """When the run has taken too long, if it has a limit."""
    if config.timeout is None or view.started_millis is None:
        return None
    return view.started_millis + config.timeout // timedelta(milliseconds=1)


def earliest(*moments: int | None) -> int | None:
    return min((each for each in moments if each is not None), default=None)


def close_orphan(view: RunView, orphan: OpenAttempt, config: RunConfig) -> StateFailed:
    limit = RECOVERY_LIMIT_DEFAULT if config.recovery_limit is None else config.recovery_limit
    # A child that ends its process again and again has a limit of its own; its parent dies along with it.
    has_children = any(
        not child.has_ended and child.close_policy is not ClosePolicy.ABANDON
        for child in view.children.values()
    )
    if view.states[orphan.state_id].orphans + 1 > limit and not has_children:
        info = ErrorInfo(
            "recovery_limit_exceeded",
            ErrorCategory.UNKNOWN,
            False,
            f"the state's attempts ended with their process more than {limit} times without progress",
        )
    else:
        info = ErrorInfo(
            ORPHAN_ATTEMPT_RECOVERED,
            ErrorCategory.UNKNOWN,
            True,
            "the attempt ended with its process; the next one starts from the same snapshot",
        )
    return StateFailed(orphan.state_id, StateErrorInfo(orphan.state_id, info), None)


def fail(
    view: RunView,
    attempt: OpenAttempt,
    info: ErrorInfo,
    failure_snapshot_id: ArtifactId | None,
    policy: RetryPolicy,
    now_millis: int,
    delay_min: timedelta = timedelta(),
) -> tuple[Event, ...]:
    """The events that close ``attempt`` as failed: with a delay before its retry, the due time too.

    ``delay_min`` is what the world asked for: the retry waits for it if the policy's delay is shorter.
    """
    failed = StateFailed(attempt.state_id, StateErrorInfo(attempt.state_id, info), failure_snapshot_id)
    own_failures = view.states[attempt.state_id].own_failures + 1
    if not (info.retryable and own_failures < policy.max_attempts):
        return (failed,)
    delay = max(policy.backoff.before_retry(own_failures), delay_min)
    if not delay:
        return (failed,)
    # Rounded up: a retry is never early.
    due_millis = now_millis + math.ceil(delay / timedelta(milliseconds=1))
    payload = {"state_id": attempt.state_id, "attempt": attempt.attempt + 1, "due_millis": due_millis}
    return (failed, DomainEvent(RETRY_SCHEDULED, payload))


def may_try(view: RunView, state_id: StateId, policy: RetryPolicy) -> bool:
    """Whether a state that has not completed is to be tried, or tried again.

    Once more when somebody has said what became of an effect of it: it may have failed for not knowing.
    """
    progress = view.states.get(state_id)
    error = None if progress is None else progress.last_error
    if progress is None or error is None:
        return True
    return progress.was_told or (error.retryable and progress.own_failures < policy.max_attempts)


def was_held_up(view: RunView, state_id: StateId) -> bool:
    """Whether the state has failed for nothing but effects of the run that were in doubt then."""
    error = view.states[state_id].last_error
    return error is not None and error.code == CONTINUED_IN_DOUBT


def _checkpoint(view: RunView) -> ArtifactId:
    if view.checkpoint is None:
        raise run_not_started()
    return view.checkpoint
