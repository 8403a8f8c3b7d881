"""The contexts of a run whose states run side by side: kept while they are needed, read again otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

from perdure.engine.history import RunView
from perdure.engine.joins import JoinGraph, Tips
from perdure.engine.merging import Merged, altered, merge, written_keys
from perdure.ids import ArtifactId, StateId
from perdure.model.context import Snapshot


class Contexts:
    """What the owner of a run knows of its contexts.

    A snapshot is kept until every state that begins with it, or with a merge of it, has been entered.
    """

    def __init__(
        self, graph: JoinGraph, view: RunView, read: Callable[[ArtifactId], Awaitable[Snapshot]]
    ) -> None:
        self.merged: dict[Tips, Merged] = {}
        self.altered: dict[StateId, Merged] = {}
        """What states find at which a fork has set values."""
        self._graph = graph
        self._view = view
        self._read = read
        self._results: dict[StateId, Snapshot] = {}
        self._written: dict[StateId, frozenset[str]] = {}
        self._initial: Snapshot | None = None
        self._forked: Snapshot | None = None
        """What a fork begins with, which may not be written yet."""
        self._cleaned: Snapshot | None = None
        """What the last state left that cleaned up."""
        self._done_with: list[Tips] = []
        self._to_enter = Counter(graph.tips)
        self._uses: Counter[StateId] = Counter()
        self._uses.update(graph.tips_of(graph.index))  # the end of the run is a merge too
        for tips in self._to_enter:
            self._uses.update(tips)
        # Of a plan that never joins nobody asks who wrote what.
        self._joins = len(graph.tips_of(graph.index)) > 1 or any(len(tips) > 1 for tips in self._to_enter)
        self.enter(view.states)

    def know(self, snapshot: Snapshot) -> None:
        """Spare reading the snapshot with which the run begins."""
        self._initial = snapshot
        self._forked = snapshot if self._view.set_values else None

    def enter(self, state_ids: Iterable[StateId]) -> None:
        """Take note of states that are entered for the first time: nobody asks for their base again."""
        for state_id in state_ids:
            if state_id in self._graph.index:
                tips = self._graph.tips[self._graph.index[state_id]]
                self._to_enter[tips] -= 1
                if not self._to_enter[tips]:
                    self._done_with.append(tips)

    def let_go(self) -> None:
        """Forget what nobody asks for again. What is staged must be durable: it may have to be read now."""
        for tips in self._done_with:
            self.merged.pop(tips, None)
            if not tips:
                self._initial = None
            for each in tips:
                self._uses[each] -= 1
                if not self._uses[each]:
                    self._results.pop(each, None)
        self._done_with.clear()
        self._forked = None
        self.altered.clear()

    def complete(self, state_id: StateId, base: Snapshot, result: Snapshot) -> None:
        """Take note of what a state has come to."""
        if state_id not in self._graph.index:
            self._cleaned = result
            return
        self._results[state_id] = result
        if self._joins:
            self._written[state_id] = self._written_by(state_id, base, result)

    def forget(self, state_id: StateId) -> None:
        """Take back that a state has completed."""
        self._results.pop(state_id, None)
        self._written.pop(state_id, None)

    async def alter(self, state_id: StateId, completed: Mapping[StateId, ArtifactId]) -> Merged:
        """Find out what a state finds at which values were set: what precedes it leaves the rest."""
        tips = self._graph.tips[self._graph.index[state_id]]
        at = self._view.set_values[state_id]
        if len(tips) > 1:
            merged = await self._merge(tips, completed, at.keys)
        elif tips:
            merged = Merged(self._results.get(tips[0]) or await self._read(completed[tips[0]]))
        else:
            assert self._view.started is not None, "nothing is altered before the run's start"
            merged = Merged(await self._read(self._view.started.initial_snapshot_id))
        values = self._forked
        if values is None or values.id != at.base_snapshot_id:
            values = await self._read(at.base_snapshot_id)
        self.altered[state_id] = found = altered(merged, values, at.keys)
        return found

    async def merge(self, tips: Tips, completed: Mapping[StateId, ArtifactId]) -> Merged:
        """The context that ``tips`` leave, in a run in which these states have ``completed``."""
        if tips not in self.merged:
            self.merged[tips] = await self._merge(tips, completed)
        return self.merged[tips]

    async def _merge(
        self, tips: Tips, completed: Mapping[StateId, ArtifactId], settled: Collection[str] = ()
    ) -> Merged:
        read: dict[ArtifactId, Snapshot] = {}

        async def snapshot(snapshot_id: ArtifactId) -> Snapshot:
            if snapshot_id not in read:
                read[snapshot_id] = await self._read(snapshot_id)
            return read[snapshot_id]

        for state_id in self._graph.differing(tips):
            if state_id not in self._written:
                base = await snapshot(self._view.states[state_id].base_snapshot_id)
                result = await snapshot(completed[state_id])
                self._written[state_id] = self._written_by(state_id, base, result)
        results = {each: self._results.get(each) or await snapshot(completed[each]) for each in tips}
        return merge(self._graph, tips, results, self._written, settled)

    async def base(self, state_id: StateId, snapshot_id: ArtifactId) -> Snapshot:
        """The snapshot from which a state is tried."""
        tips = self._graph.tips[self._graph.index[state_id]] if state_id in self._graph.index else None
        known = self._results.get(tips[0]) if tips is not None and len(tips) == 1 else self._initial
        # What a state cleans up in is a merge too, and may not be written yet; nor may a fork's first one.
        candidates = [
            known,
            self._initial,
            self._cleaned,
            *(merged.snapshot for merged in (*self.merged.values(), *self.altered.values())),
        ]
        found = next((each for each in candidates if each is not None and each.id == snapshot_id), None)
        if found is None:
            found = await self._read(snapshot_id)
            if tips == ():
                self._initial = found
        return found

    def _written_by(self, state_id: StateId, base: Snapshot, result: Snapshot) -> frozenset[str]:
        """What a state has written; where a run was forked, also what was set there."""
        keys, at = written_keys(base, result), self._view.set_values.get(state_id)
        return keys if at is None else keys | at.keys
