"""What a fork takes over of another run's history. Everything here is pure.

A fork's stream begins with a copy of what the other run went through before it first entered a state; then
``run_forked`` says where the copy ends, and in which runs the copied states were executed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from perdure.errors import CorruptionError, InvalidPlanError, Json
from perdure.ids import ArtifactId, InvalidIdError, RunId, StateId
from perdure.io.facts import state_of_fact
from perdure.model.events import (
    CHILD_RUN_COMPLETED,
    CHILD_RUN_SPAWNED,
    EFFECT_INTENDED,
    EFFECT_SETTLED,
    FACT_RECORDED,
    RETRY_SCHEDULED,
    RUN_CANCEL_REQUESTED,
    RUN_FORKED,
    RUN_PAUSED,
    RUN_UNPAUSED,
    WAIT_STARTED,
    DomainEvent,
    Event,
    EventEnvelope,
    RunStarted,
    StateCompleted,
    StateEntered,
    StateFailed,
)
from perdure.model.forks import ForkedFrom

_OF_THE_RUN_ALONE = frozenset(
    {CHILD_RUN_SPAWNED, CHILD_RUN_COMPLETED, RUN_CANCEL_REQUESTED, RUN_PAUSED, RUN_UNPAUSED}
)
"""What one run was told, and its children: a fork was told nothing, and is nobody's parent yet."""


class Carried(NamedTuple):
    """What a fork takes over: what happened before event ``seq``, which entered the state for the first time.

    ``states`` are those that had completed by then, in that order, and ``events`` what is copied, without the
    first. ``base_snapshot_id`` is the context that the state found.
    """

    seq: int
    base_snapshot_id: ArtifactId
    states: tuple[StateId, ...]
    events: tuple[Event, ...]


class SetValues(NamedTuple):
    """The keys that were set where runs were forked at a state, and a context that holds their values."""

    base_snapshot_id: ArtifactId
    keys: frozenset[str]


class Copied(NamedTuple):
    """What a ``run_forked`` event says: where, who executed each copied state, and those runs' manifests."""

    state_id: StateId
    base_snapshot_id: ArtifactId
    set_keys: frozenset[str]
    executed_by: Mapping[StateId, RunId]
    manifests: Mapping[RunId, ArtifactId]


def entered_states(events: Iterable[EventEnvelope]) -> list[StateId]:
    """The states that a run has entered, in the order in which it did so first."""
    entered = (each.event.state_id for each in events if isinstance(each.event, StateEntered))
    return list(dict.fromkeys(entered))


def carried_before(events: Sequence[EventEnvelope], state_id: StateId) -> Carried:
    """What a fork at ``state_id``, which the run has entered, takes over of ``events``, the run's stream.

    Of states that had been entered by then and had not completed, nothing is: they are executed anew.
    """
    entry, base = next(
        (each.seq, each.event.base_snapshot_id)
        for each in events
        if isinstance(each.event, StateEntered) and each.event.state_id == state_id
    )
    before = [each.event for each in events if each.seq < entry]
    completed = tuple(dict.fromkeys(event.state_id for event in before if isinstance(event, StateCompleted)))
    return Carried(entry, base, completed, tuple(_copied(before, frozenset(completed))))


def _copied(before: Iterable[Event], completed: Collection[StateId]) -> Iterable[Event]:
    effects: dict[tuple[str, Json], str] = {}
    """The state of each effect, by the effect's key and by that of its answer's fact."""
    for event in before:
        if isinstance(event, RunStarted):
            continue
        if isinstance(event, DomainEvent):
            if event.name in _OF_THE_RUN_ALONE:
                continue
            if event.name == EFFECT_INTENDED:
                for name in ("key", "fact_key"):
                    effects[name, event.payload[name]] = event.payload["state_id"]
        state_id = _state_of(event, effects)
        if state_id is None or state_id in completed:
            yield event


def _state_of(event: Event, effects: Mapping[tuple[str, Json], str]) -> str | None:
    """The state that an event belongs to alone; None for one of the run, or that cannot be told."""
    if isinstance(event, StateEntered | StateCompleted | StateFailed):
        return event.state_id
    if not isinstance(event, DomainEvent):
        return None
    payload = event.payload
    if event.name in (RETRY_SCHEDULED, WAIT_STARTED, EFFECT_INTENDED):
        state_id: str = payload["state_id"]
        return state_id
    if event.name == EFFECT_SETTLED:
        return effects.get(("key", payload["key"]))
    if event.name == FACT_RECORDED:
        return effects.get(("fact_key", payload["key"])) or state_of_fact(payload["key"])
    return None


def executed_by(
    carried: Iterable[StateId], origin: RunId, before: Mapping[StateId, RunId]
) -> dict[StateId, RunId]:
    """In which run each carried state was executed: ``before`` says it of those that ``origin`` copied."""
    return {state_id: before.get(state_id, origin) for state_id in carried}


def run_forked(
    origin: ForkedFrom, executed: Mapping[StateId, RunId], manifests: Mapping[RunId, ArtifactId]
) -> DomainEvent:
    """The event after which a fork goes its own way. ``manifests`` are at least those of the runs named."""
    states: dict[str, list[str]] = {}
    for state_id, run_id in executed.items():
        states.setdefault(run_id, []).append(state_id)
    return DomainEvent(
        RUN_FORKED,
        {
            "run_id": origin.run_id,
            "state_id": origin.state_id,
            "seq": origin.seq,
            "base_snapshot_id": origin.base_snapshot_id,
            # A fork of this fork copies the event, and is to know of it too.
            "set_keys": list(origin.set_keys),
            "executed_by": dict(states),
            "manifests": {run_id: manifests[RunId(run_id)] for run_id in states},
        },
    )


def copied(event: DomainEvent, seq: int) -> Copied:
    """What a ``run_forked`` event says; ``CorruptionError`` (``run_forked_malformed``)."""
    try:
        states: dict[str, list[str]] = event.payload["executed_by"]
        executed = {StateId(state_id): RunId(run_id) for run_id, ids in states.items() for state_id in ids}
        manifests = {RunId(key): ArtifactId(value) for key, value in event.payload["manifests"].items()}
        base = ArtifactId(event.payload["base_snapshot_id"])
        set_keys = frozenset(map(str, event.payload["set_keys"]))
        return Copied(StateId(event.payload["state_id"]), base, set_keys, executed, manifests)
    except (TypeError, KeyError, AttributeError, InvalidIdError):
        raise CorruptionError.of(
            "run_forked_malformed", "where a fork begins cannot be read", details={"seq": seq}
        ) from None


def refuse_other_plan(
    carried: Collection[StateId],
    state_id: StateId,
    known: Collection[StateId],
    edges: Iterable[tuple[StateId, StateId]],
) -> None:
    """Refuse a plan that has no place for what is carried.

    ``InvalidPlanError``: ``fork_states_not_in_plan``, or ``fork_order_changed`` where a carried state comes
    after one that is not, so that it has not seen what it should have.
    """
    gone = [each for each in (*carried, state_id) if each not in known]
    if gone:
        raise InvalidPlanError.of(
            "fork_states_not_in_plan",
            f"the plan has no {', '.join(gone)}",
            details={"states": [*gone]},
        )
    done = frozenset(carried)
    early = sorted({after for before, after in edges if after in done and before not in done})
    if early:
        raise InvalidPlanError.of(
            "fork_order_changed",
            f"in this plan {', '.join(early)} comes after states that the run has not completed before "
            f"{state_id}",
            details={"states": [*early]},
        )
