"""Forgetting runs and sweeping artifacts in memory: the reference."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from perdure.clock import Clock
from perdure.ids import ArtifactId, RunId
from perdure.model.events import ContinuedRun, RunCompleted
from perdure.model.legs import continued_by
from perdure.model.wire import encode_event
from perdure.stores.ports import SPARED, Deleted, RunTrace, Swept, Tell
from perdure.stores.references import Reference, ids_in, references
from perdure.stores.traces import trace_of

if TYPE_CHECKING:
    from perdure.stores.memory import MemoryState

_PAGE = 500


class MemoryKeeping:
    """``Keeping`` over one state. Nothing else happens while a call runs, so nobody waits."""

    _state: MemoryState
    _clock: Clock

    async def traces(self) -> AsyncIterator[list[RunTrace]]:
        run_ids = list(reversed(self._state.streams))
        for begin in range(0, len(run_ids), _PAGE):
            page = run_ids[begin : begin + _PAGE]
            yield [self._trace(run_id) for run_id in page if run_id in self._state.streams]

    async def delete(
        self, run_ids: Sequence[RunId], *, is_dry: bool = False, tell: Tell = lambda *_: None
    ) -> Deleted:
        deleted = Deleted([], 0, 0)
        for run_id in dict.fromkeys(run_ids):
            if run_id not in self._state.ended or self._is_owned(run_id):
                continue
            stream = self._state.streams[run_id]
            size = sum(len(encode_event(each.event)) for each in stream)
            deleted = Deleted([*deleted.run_ids, run_id], deleted.events + len(stream), deleted.bytes + size)
            if not is_dry:
                self._forget(run_id)
        tell("runs", len(deleted.run_ids))
        return deleted

    async def sweep(
        self, without: Collection[RunId] = (), *, is_dry: bool = False, tell: Tell = lambda *_: None
    ) -> Swept:
        before = self._clock.now_millis() - SPARED // timedelta(milliseconds=1)
        marked = self._marked(self._roots(frozenset(without)))
        garbage = [
            artifact_id
            for artifact_id in self._state.blobs
            if artifact_id not in marked and self._state.put_millis.get(artifact_id, 0) < before
        ]
        size = sum(len(self._state.blobs[artifact_id][1]) for artifact_id in garbage)
        if not is_dry:
            for artifact_id in garbage:
                del self._state.blobs[artifact_id]
                self._state.put_millis.pop(artifact_id, None)
                self._state.recipes.discard(artifact_id)
        tell("garbage", len(garbage))
        return Swept(len(garbage), size)

    async def compact(self) -> None:
        """Nothing is free in here."""

    def _trace(self, run_id: RunId) -> RunTrace:
        stream = self._state.streams[run_id]
        ends = [each.event.status for each in stream if isinstance(each.event, RunCompleted)]
        return trace_of(stream[0], stream[-1], ends[0] if ends else None, is_owned=self._is_owned(run_id))

    def _is_owned(self, run_id: RunId) -> bool:
        row = self._state.claims.get(run_id)
        return row is not None and row.owner is not None and row.expires_millis > self._clock.now_millis()

    def _forget(self, run_id: RunId) -> None:
        state = self._state
        del state.streams[run_id]
        state.ended.discard(run_id)
        for rows in (state.claims, state.letters, state.due_millis, state.awaits):
            rows.pop(run_id, None)
        first = state.first_legs.pop(run_id, None)
        if first is not None and state.newest_legs[first][1] == run_id:
            left = (each for each, chain in state.first_legs.items() if chain == first)
            legs = [(continued.leg, each) for each in left if (continued := self._continued(each))]
            if legs:
                state.newest_legs[first] = max(legs)
            else:
                del state.newest_legs[first]

    def _continued(self, run_id: RunId) -> ContinuedRun | None:
        return continued_by(self._state.streams[run_id][0].event)

    def _roots(self, without: Collection[RunId]) -> Iterable[Reference]:
        for run_id, stream in self._state.streams.items():
            if run_id not in without:
                for each in stream:
                    yield from (Reference(key, False) for key in ids_in(encode_event(each.event)))
        for letters in self._state.letters.values():
            for row in letters.values():
                yield from (Reference(key, False) for key in ids_in(row.body))

    def _marked(self, roots: Iterable[Reference]) -> set[ArtifactId]:
        left = list(roots)
        seen = set(left)
        while left:
            key, is_node = left.pop()
            artifact_id = ArtifactId.trusted(key.hex())
            if artifact_id in self._state.blobs:
                data, is_recipe = self._state.blobs[artifact_id][1], artifact_id in self._state.recipes
                new = set(references(artifact_id, data, is_recipe=is_recipe or is_node)) - seen
                seen |= new
                left += new
        return {ArtifactId.trusted(key.hex()) for key, _ in seen}
