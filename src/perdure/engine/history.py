"""What a run's events mean: ``fold(events) -> RunView``. Pure: no clock, no store, no plan.

The view is also advanced event by event, by the loop that appends them: folding a stream, and advancing
a view by the same events, give equal views.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from perdure.engine.attempts import (
    CONTINUED_IN_DOUBT,
    NOT_OWN_FAILURES,
    OpenAttempt,
    StateProgress,
    note_retry,
)
from perdure.engine.carrying import SetValues, copied
from perdure.engine.requests import Request, request_of
from perdure.errors import CorruptionError, ErrorInfo, InvalidPlanError, Json
from perdure.ids import ArtifactId, RunId, StateId
from perdure.io.children import Child, completed, spawned
from perdure.io.effects import Effect, intended, settled
from perdure.io.facts import FactBinding, fact_of, is_attempt_key
from perdure.io.waits import EFFECT_IN_DOUBT, SIGNAL_PREFIX, WAIT_PREFIX, Arrival, Inbox, Wait, wait_of
from perdure.model.events import (
    CHILD_RUN_COMPLETED,
    CHILD_RUN_SPAWNED,
    EFFECT_INTENDED,
    EFFECT_SETTLED,
    FACT_RECORDED,
    RETRY_SCHEDULED,
    RUN_CANCEL_REQUESTED,
    RUN_CONTINUED,
    RUN_FORKED,
    RUN_PAUSED,
    RUN_UNPAUSED,
    WAIT_STARTED,
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
from perdure.model.legs import next_run_of


class RunView(msgspec.Struct):
    """Where a run stands after the events so far."""

    head_seq: int = 0
    started: RunStarted | None = None
    completed: dict[StateId, ArtifactId] = {}
    """States that completed, in that order, each with its snapshot."""
    open_attempts: dict[StateId, OpenAttempt] = {}
    states: dict[StateId, StateProgress] = {}
    facts: dict[str, FactBinding] = {}
    effects: dict[str, Effect] = {}
    waits: dict[str, Wait] = {}
    """Waits that have not ended, by key."""
    inbox: Inbox = msgspec.field(default_factory=Inbox)
    cancel: Request | None = None
    pause: Request | None = None
    unpause: Request | None = None
    """What ended the last pause."""
    children: dict[RunId, Child] = {}
    """The child runs, in the order in which they were spawned."""
    executed_by: dict[StateId, RunId] = {}
    """Of a fork: the runs in which its states were executed that it has copied."""
    manifests: dict[RunId, ArtifactId] = {}
    """The manifests of these runs."""
    set_values: dict[StateId, SetValues] = {}
    """Of a fork: what was set, by the state at which it was; that of the forks that it comes from too."""
    started_millis: int | None = None
    """When the run began, by the store's clock; not known to a view that was made without envelopes."""
    checkpoint: ArtifactId | None = None
    ended: RunCompleted | None = None
    continued_as: RunId | None = None
    """The run as which this one goes on, of which it was the end."""

    @property
    def phase(self) -> RunPhase:
        """Running, or how the run ended."""
        return RunPhase.RUNNING if self.ended is None else RunPhase(self.ended.status.value)

    @property
    def is_paused(self) -> bool:
        """Whether the run stands still until it is unpaused; one that is being cancelled does not."""
        return self.pause is not None and self.cancel is None

    @property
    def in_doubt(self) -> list[Effect]:
        """The effects of which nobody knows what became."""
        return [effect for effect in self.effects.values() if effect.is_in_doubt]

    @property
    def waiting_for(self) -> str | None:
        """What an unfinished run waits for, in words; None if it waits for nothing that is known of."""
        if self.ended is not None:
            return None
        if self.is_paused:
            return "being unpaused"
        waits = [self.waits_of(attempt) for attempt in self.open_attempts.values()]
        if not all(waits):
            return None  # a handler runs, or its process has died
        retries = [
            state_id
            for state_id, progress in self.states.items()
            if progress.retry_due_millis is not None and state_id not in self.completed
        ]
        words = [str(wait) for several in waits for wait in several]
        if retries and self.cancel is None:
            words.append("retry")
        return ", ".join(words) or doubts_in_words(self._left_in_doubt()) or None

    @property
    def failure(self) -> tuple[StateId, ErrorInfo] | None:
        """The state that failed, of several the one that cannot be tried again, with its last error."""
        failed = [
            (
                (error.code not in NOT_OWN_FAILURES, not error.retryable, progress.own_failures, number),
                (state_id, error),
            )
            for number, (state_id, progress) in enumerate(self.states.items())
            if (error := progress.last_error) is not None and state_id not in self.completed
        ]
        return max(failed, key=lambda each: each[0])[1] if failed else None

    def waits_of(self, attempt: OpenAttempt) -> list[Wait]:
        """The waits that ``attempt`` has begun, or begun again, and that have not ended."""
        return [
            wait
            for wait in self.waits.values()
            if (wait.state_id, wait.attempt) == (attempt.state_id, attempt.attempt)
        ]

    def may_be_told_of(self, effect: Effect) -> bool:
        """Whether somebody outside can know what became of ``effect``: no handler may be making it now."""
        if not self.open_attempts or effect.key in self.awaited_effects:
            return True
        is_open = effect.state_id in self.open_attempts
        return not is_open and all(self.waits_of(attempt) for attempt in self.open_attempts.values())

    @property
    def awaited_effects(self) -> set[str | None]:
        """The keys of effects of which open attempts wait to be told what became."""
        return {wait.effect for attempt in self.open_attempts.values() for wait in self.waits_of(attempt)}

    def in_doubt_of(self, state_id: StateId) -> list[Effect]:
        """The state's own effects of which nobody knows what became."""
        return [effect for effect in self.in_doubt if effect.state_id == state_id]

    def holding_up(self, state_id: StateId) -> list[Effect]:
        """The effects in doubt before which the state, which has failed, is not to be given up.

        Its own; and all of the run's if it was to go on as a new run, which would not know of them.
        """
        error = self.states[state_id].last_error
        if error is not None and error.code == CONTINUED_IN_DOUBT:
            return self.in_doubt
        return self.in_doubt_of(state_id)

    def _left_in_doubt(self) -> list[Effect]:
        """Those of states that have failed and are not to be tried again before somebody has said it."""
        return [
            effect
            for state_id, progress in self.states.items()
            if progress.last_error is not None
            and progress.last_error.code not in NOT_OWN_FAILURES
            and not progress.was_told
            for effect in self.holding_up(state_id)
        ]

    def advance(self, event: Event, seq: int) -> None:
        """Take in the next event, whose number is ``seq``.

        Raises ``InvalidPlanError`` (``invalid_attempt_envelopes``) for an event that cannot follow, and
        ``CorruptionError`` for a fact that is malformed or contradicts another.
        """
        is_running = self.started is not None and self.ended is None
        if is_running and isinstance(event, StateEntered):
            self._enter(event, seq)
        elif is_running and isinstance(event, StateCompleted):
            self._complete(event, seq)
        elif isinstance(event, DomainEvent):
            self._advance_domain(event, seq)
        elif isinstance(event, RunStarted):
            if self.started is not None:
                raise _invalid("the run starts twice", seq)
            self.started = event
            self.checkpoint = event.initial_snapshot_id
        elif self.started is None:
            raise _invalid("an event stands before the run's start", seq)
        elif self.ended is not None:
            raise _invalid("an event follows the run's end", seq)
        elif isinstance(event, StateFailed):
            self._fail(event, seq)
        elif isinstance(event, RunCompleted):
            self.ended = event
        self.head_seq = seq

    def _complete(self, event: StateCompleted, seq: int) -> None:
        state_id = event.state_id
        attempt = self._close(state_id, seq)
        self.completed[state_id] = self.checkpoint = event.context_snapshot_id
        progress = self.states[state_id]
        progress.last_error, progress.completed_attempt = None, attempt.attempt

    def _fail(self, event: StateFailed, seq: int) -> None:
        self._close(event.state_id, seq)
        self.states[event.state_id].fail(event.error.info)

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
            event.state_id, event.attempt, event.base_snapshot_id, seq
        )

    def _close(self, state_id: StateId, seq: int) -> OpenAttempt:
        attempt = self.open_attempts.pop(state_id, None)
        if attempt is None:
            raise _invalid("a state ends that was not entered", seq, state_id)
        return attempt

    def _advance_domain(self, event: DomainEvent, seq: int) -> None:
        if event.name == FACT_RECORDED:
            key, binding = fact_of(event, seq)
            is_new = key not in self.facts
            bound = self.facts.setdefault(key, binding)
            if bound.payload_id != binding.payload_id:
                raise CorruptionError.of(
                    "fact_recorded_conflict",
                    "two recorded facts contradict each other",
                    details={"seq": seq, "key": str(key)},
                )
            if is_new and key.startswith(WAIT_PREFIX):
                self._end_wait(key, event.payload.get("meta"))
            elif is_new and key.startswith(SIGNAL_PREFIX):
                self._arrive(key, binding.payload_id, event.payload.get("meta"), seq)
            if not is_attempt_key(key):
                self._progressed()
        elif event.name == WAIT_STARTED:
            wait = wait_of(event, seq)
            self.waits[wait.key] = wait
            self._progressed()
        elif event.name == EFFECT_INTENDED:
            effect = intended(event, self.effects.get(str(event.payload.get("key"))), seq)
            self.effects[effect.key] = effect
            self._progressed()
        elif event.name == EFFECT_SETTLED:
            effect = settled(event, self.effects, seq)
            self.effects[effect.key] = effect
            if "letter" in event.payload and effect.state_id in self.states:
                self.states[StateId(effect.state_id)].was_told = True
            self._read(event.payload.get("letter"))
            self._progressed()
        elif event.name in (RUN_CANCEL_REQUESTED, RUN_PAUSED, RUN_UNPAUSED):
            self._request(event, seq)
        elif event.name == RUN_CONTINUED:
            self.continued_as = next_run_of(event)
        elif event.name == CHILD_RUN_SPAWNED:
            child = spawned(event, seq)
            self.children.setdefault(child.run_id, child)
        elif event.name == CHILD_RUN_COMPLETED:
            child_run_id = completed(event, seq)
            if child_run_id in self.children:
                ended = msgspec.structs.replace(self.children[child_run_id], has_ended=True)
                self.children[child_run_id] = ended
        elif event.name == RUN_FORKED:
            fork = copied(event, seq)
            self.executed_by |= fork.executed_by
            self.manifests |= fork.manifests
            self.checkpoint = fork.base_snapshot_id
            before = self.set_values.get(fork.state_id)
            keys = fork.set_keys if before is None else before.keys | fork.set_keys
            if keys:
                self.set_values[fork.state_id] = SetValues(fork.base_snapshot_id, keys)
        elif event.name == RETRY_SCHEDULED:
            note_retry(self.states, event, seq)

    def _progressed(self) -> None:
        for state_id in self.open_attempts:
            self.states[state_id].orphans = 0

    def _end_wait(self, key: str, meta: Json) -> None:
        self.waits.pop(key, None)
        name = meta.get("signal") if isinstance(meta, dict) else None
        if isinstance(name, str):
            self.inbox.taken[name] = self.inbox.taken.get(name, 0) + 1

    def _arrive(self, key: str, payload_id: ArtifactId, meta: Json, seq: int) -> None:
        name = key.removeprefix(SIGNAL_PREFIX).rpartition("|")[0]
        told = meta.get("letter") if isinstance(meta, dict) else None
        letter_id = told if isinstance(told, str) else None
        self.inbox.arrived.setdefault(name, []).append(Arrival(seq, payload_id, letter_id))
        self._read(letter_id)

    def _read(self, letter_id: Json) -> None:
        if isinstance(letter_id, str):
            self.inbox.letters.add(letter_id)

    def _request(self, event: DomainEvent, seq: int) -> None:
        request = request_of(event, seq, self.pause if event.name == RUN_UNPAUSED else None)
        self._read(event.payload.get("id"))
        if event.name == RUN_CANCEL_REQUESTED:
            self.cancel = request
        else:
            is_pause = event.name == RUN_PAUSED
            self.pause = (self.pause or request) if is_pause else None
            self.unpause = None if is_pause else request


def doubts_in_words(effects: Iterable[Effect]) -> str:
    """That the run waits until somebody says what became of ``effects``."""
    return ", ".join(f"{EFFECT_IN_DOUBT} {effect.key}" for effect in effects)


def fold(events: Iterable[EventEnvelope]) -> RunView:
    """The view of a run after ``events``, its stream from the start; domain events may be left out."""
    view = RunView()
    for envelope in events:
        if view.started is None:
            view.started_millis = envelope.ts_millis
        view.advance(envelope.event, envelope.seq)
    return view


def _invalid(problem: str, seq: int, state_id: StateId | None = None) -> InvalidPlanError:
    details: dict[str, Json] = {"seq": seq} | ({} if state_id is None else {"state_id": state_id})
    return InvalidPlanError.of(
        "invalid_attempt_envelopes", f"the history is broken: {problem}", details=details
    )
