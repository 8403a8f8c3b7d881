"""What a run's events mean: ``fold(events) -> RunView``. Pure: no clock, no store, no plan.

The view is also advanced event by event, by the loop that appends them: folding a stream, and advancing
a view by the same events, give equal views.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from perdure.errors import CorruptionError, ErrorInfo, InvalidPlanError, Json
from perdure.ids import ArtifactId, StateId
from perdure.io.facts import FactBinding, fact_of, is_attempt_key
from perdure.model.events import (
    FACT_RECORDED,
    RETRY_SCHEDULED,
    DomainEvent,
    Event,
    EventEnvelope,
    RunCompleted,
    RunPhase,
    RunStarted,
    StateCompleted,
    StateEntered,
    StateFailed,
)

ORPHAN_ATTEMPT_RECOVERED = "orphan_attempt_recovered"
ATTEMPT_INTERRUPTED = "attempt_interrupted"
_NOT_OWN_FAILURES = frozenset({ORPHAN_ATTEMPT_RECOVERED, ATTEMPT_INTERRUPTED})


class OpenAttempt(msgspec.Struct, frozen=True, gc=False):
    """An attempt that was entered and has not ended."""

    state_id: StateId
    attempt: int
    base_snapshot_id: ArtifactId


class StateProgress(msgspec.Struct, gc=False):
    """What is known of one state."""

    last_attempt: int
    base_snapshot_id: ArtifactId
    own_failures: int = 0
    orphans: int = 0
    """Consecutive attempts that ended as orphans, without progress of the run between them."""
    last_error: ErrorInfo | None = None
    """The error of the last attempt, if it failed."""
    retry_due_millis: int | None = None
    completed_attempt: int | None = None


class RunView(msgspec.Struct):
    """Where a run stands after the events so far."""

    head_seq: int = 0
    started: RunStarted | None = None
    completed: dict[StateId, ArtifactId] = {}
    """States that completed, in that order, each with its snapshot."""
    open_attempts: dict[StateId, OpenAttempt] = {}
    states: dict[StateId, StateProgress] = {}
    facts: dict[str, FactBinding] = {}
    checkpoint: ArtifactId | None = None
    ended: RunCompleted | None = None

    @property
    def phase(self) -> RunPhase:
        """Running, or how the run ended."""
        return RunPhase.RUNNING if self.ended is None else RunPhase(self.ended.status.value)

    def advance(self, event: Event, seq: int) -> None:
        """Take in the next event, whose number is ``seq``.

        Raises ``InvalidPlanError`` (``invalid_attempt_envelopes``) for an event that cannot follow, and
        ``CorruptionError`` for a fact that is malformed or contradicts another.
        """
        if isinstance(event, (StateEntered, StateCompleted)) and self.started and not self.ended:
            self._advance_kernel(event, seq)  # first, since most events are one of these
        elif isinstance(event, DomainEvent):
            self._advance_domain(event, seq)
        elif isinstance(event, RunStarted):
            if self.started is not None:
                raise _invalid("the run starts twice", seq)
            self.started = event
            self.checkpoint = event.initial_snapshot_id
        else:
            if self.started is None:
                raise _invalid("an event stands before the run's start", seq)
            if self.ended is not None:
                raise _invalid("an event follows the run's end", seq)
            self._advance_kernel(event, seq)
        self.head_seq = seq

    def _advance_kernel(
        self, event: StateEntered | StateCompleted | StateFailed | RunCompleted, seq: int
    ) -> None:
        if isinstance(event, StateEntered):
            self._enter(event, seq)
        elif isinstance(event, StateCompleted):
            attempt = self._close(event.state_id, seq)
            self.completed[event.state_id] = self.checkpoint = event.context_snapshot_id
            progress = self.states[event.state_id]
            progress.last_error, progress.completed_attempt = None, attempt.attempt
        elif isinstance(event, StateFailed):
            self._close(event.state_id, seq)
            progress = self.states[event.state_id]
            progress.last_error = event.error.info
            progress.own_failures += event.error.info.code not in _NOT_OWN_FAILURES
            if event.error.info.code != ORPHAN_ATTEMPT_RECOVERED:
                progress.orphans = 0
            else:
                progress.orphans += 1
        else:
            self.ended = event

    def _enter(self, event: StateEntered, seq: int) -> None:
        progress = self.states.get(event.state_id)
        if event.state_id in self.completed:
            raise _invalid("a completed state is entered again", seq, event.state_id)
        if progress is None:
            self.states[event.state_id] = StateProgress(event.attempt, event.base_snapshot_id)
        else:
            if event.attempt <= progress.last_attempt:
                raise _invalid("an attempt's number does not grow", seq, event.state_id)
            if event.state_id in self.open_attempts:
                # Other engines leave an orphan unclosed and enter the next attempt at once.
                progress.orphans += 1
            progress.last_attempt = event.attempt
            progress.base_snapshot_id = event.base_snapshot_id
            progress.retry_due_millis = None
        self.open_attempts[event.state_id] = OpenAttempt(
            event.state_id, event.attempt, event.base_snapshot_id
        )

    def _close(self, state_id: StateId, seq: int) -> OpenAttempt:
        attempt = self.open_attempts.pop(state_id, None)
        if attempt is None:
            raise _invalid("a state ends that was not entered", seq, state_id)
        return attempt

    def _advance_domain(self, event: DomainEvent, seq: int) -> None:
        if event.name == FACT_RECORDED:
            key, binding = fact_of(event, seq)
            bound = self.facts.setdefault(key, binding)
            if bound.payload_id != binding.payload_id:
                raise CorruptionError.of(
                    "fact_recorded_conflict",
                    "two recorded facts contradict each other",
                    details={"seq": seq, "key": str(key)},
                )
            if not is_attempt_key(key):
                for state_id in self.open_attempts:
                    self.states[state_id].orphans = 0
        elif event.name == RETRY_SCHEDULED:
            try:
                self.states[event.payload["state_id"]].retry_due_millis = int(event.payload["due_millis"])
            except (TypeError, KeyError, ValueError):
                raise CorruptionError.of(
                    "retry_scheduled_malformed", "a scheduled retry cannot be read", details={"seq": seq}
                ) from None


def fold(events: Iterable[EventEnvelope]) -> RunView:
    """The view of a run after ``events``, its stream from the start; domain events may be left out."""
    view = RunView()
    for envelope in events:
        view.advance(envelope.event, envelope.seq)
    return view


def _invalid(problem: str, seq: int, state_id: StateId | None = None) -> InvalidPlanError:
    details: dict[str, Json] = {"seq": seq} | ({} if state_id is None else {"state_id": state_id})
    return InvalidPlanError.of(
        "invalid_attempt_envelopes", f"the history is broken: {problem}", details=details
    )
