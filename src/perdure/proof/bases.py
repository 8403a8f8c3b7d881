"""The contexts that a run's states should have found, by its plan and by what its states came to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from perdure.engine.bases import BasesSideBySide
from perdure.engine.carrying import copied
from perdure.engine.history import RunView
from perdure.engine.joins import JoinGraph
from perdure.engine.merging import Merged, altered
from perdure.errors import ErrorCategory, ErrorInfo
from perdure.ids import ArtifactId, StateId
from perdure.model.context import Snapshot
from perdure.model.events import (
    RUN_FORKED,
    DomainEvent,
    EventEnvelope,
    RunStarted,
    RunStatus,
    StateCompleted,
    StateEntered,
)

Read = Callable[[ArtifactId], Awaitable[Snapshot]]


def _entered_with(events: Iterable[EventEnvelope]) -> dict[StateId, list[ArtifactId]]:
    """The contexts with which a run's attempts were entered, by state."""
    found: dict[StateId, list[ArtifactId]] = {}
    for envelope in events:
        if isinstance(envelope.event, StateEntered):
            found.setdefault(envelope.event.state_id, []).append(envelope.event.base_snapshot_id)
    return found


async def _in_sequence(events: Iterable[EventEnvelope], read: Read) -> dict[StateId, ArtifactId]:
    """What each state should have found where they run one at a time: what the one before it left."""
    bases: dict[StateId, ArtifactId] = {}
    left: ArtifactId | None = None
    for envelope in events:
        event = envelope.event
        if isinstance(event, RunStarted):
            left = event.initial_snapshot_id
        elif isinstance(event, StateCompleted):
            left = event.context_snapshot_id
        elif left is not None and isinstance(event, StateEntered):
            bases.setdefault(event.state_id, left)
        elif left is not None and isinstance(event, DomainEvent) and event.name == RUN_FORKED:
            fork = copied(event, envelope.seq)
            if fork.base_snapshot_id != left:
                merged = Merged(await read(left))
                left = altered(merged, await read(fork.base_snapshot_id), fork.set_keys).snapshot.id
    return bases


class Bases:
    """What the states of a run should have found. Asked for them in the order in which they completed."""

    def __init__(self, view: RunView, events: Iterable[EventEnvelope], read: Read) -> None:
        self._view, self._read = view, read
        self._events = list(events)
        self._recorded = _entered_with(self._events)
        self._in_sequence: Mapping[StateId, ArtifactId] | None = None
        self._side_by_side: dict[int, BasesSideBySide] = {}
        self._before: dict[StateId, ArtifactId] = {}

    async def mismatch(self, state_id: StateId, graph: JoinGraph | None) -> ErrorInfo | None:
        """That an attempt at the state began with another context; ``graph`` if they run side by side."""
        if graph is None:
            if self._in_sequence is None:
                self._in_sequence = await _in_sequence(self._events, self._read)
            expected = self._in_sequence.get(state_id)
        else:
            expected = await self._merging(graph).of(state_id, self._before)
        self._before[state_id] = self._view.completed[state_id]
        wrong = next((each for each in self._recorded[state_id] if each != expected), None)
        if wrong is None:
            return None
        return ErrorInfo(
            "base_snapshot_mismatch",
            ErrorCategory.CONTEXT,
            False,
            f"{state_id} was entered with another context than what precedes it in the plan has left",
            {"recorded": wrong, "expected": expected},
        )

    async def final_mismatch(self, graph: JoinGraph | None) -> ErrorInfo | None:
        """That a run which completed has ended with another context than its states have left."""
        ended, completed = self._view.ended, self._view.completed
        if ended is None or ended.status is not RunStatus.COMPLETED or not completed:
            return None
        left = (
            completed[next(reversed(completed))]
            if graph is None
            else await self._merging(graph).left(completed)
        )
        if ended.final_snapshot_id == left:
            return None
        return ErrorInfo(
            "final_snapshot_mismatch",
            ErrorCategory.CONTEXT,
            False,
            "the run has ended with another context than its states have left",
            {"recorded": ended.final_snapshot_id, "expected": left},
        )

    def _merging(self, graph: JoinGraph) -> BasesSideBySide:
        if id(graph) not in self._side_by_side:
            self._side_by_side[id(graph)] = BasesSideBySide(graph, self._view, self._read)
        return self._side_by_side[id(graph)]
