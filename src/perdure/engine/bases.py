"""What states that completed should have found, where they run side by side: as the plan says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from perdure.engine.contexts import Contexts
from perdure.engine.history import RunView
from perdure.engine.joins import JoinGraph, Tips
from perdure.ids import ArtifactId, StateId
from perdure.model.context import Snapshot


class BasesSideBySide:
    """What states should have found where they run side by side: the merge of their ancestors."""

    def __init__(
        self, graph: JoinGraph, view: RunView, read: Callable[[ArtifactId], Awaitable[Snapshot]]
    ) -> None:
        self._graph, self._view = graph, view
        self._contexts = Contexts(graph, view, read)

    async def of(self, state_id: StateId, before: dict[StateId, ArtifactId]) -> ArtifactId | None:
        """The context for a state; None if one that precedes it is not among those completed ``before``."""
        last = next(reversed(before), None)
        if state_id in self._graph.index:
            tips = self._graph.tips[self._graph.index[state_id]]
        elif last is not None and last not in self._graph.index:
            return before[last]
        else:
            tips = self._graph.tips_of(before)  # it cleans up, over the merge of all
        if not all(each in before for each in tips):
            return None
        if state_id in self._view.set_values:
            return (await self._contexts.alter(state_id, before)).snapshot.id
        return await self._left_by(tips, before)

    async def left(self, completed: dict[StateId, ArtifactId]) -> ArtifactId:
        """The context that the run should end with in which these states have ``completed``."""
        return await self._left_by(self._graph.tips_of(completed), completed)

    async def _left_by(self, tips: Tips, before: dict[StateId, ArtifactId]) -> ArtifactId:
        if len(tips) > 1:
            return (await self._contexts.merge(tips, before)).snapshot.id
        assert self._view.started is not None, "nothing completes before the run's start"
        return before[tips[0]] if tips else self._view.started.initial_snapshot_id
