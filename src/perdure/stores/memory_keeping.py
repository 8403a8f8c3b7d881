"""Forgetting runs and sweeping artifacts in memory: the reference."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from perdure.clock import Clock
from perdure.ids import ArtifactId, RunId
from perdure.model.events import RunCompleted
from perdure.model.wire import encode_event
from perdure.stores.keeping import SPARED, Deleted, RunTrace, Swept, Tell
from perdure.stores.ports import Row
from perdure.stores.references import Reference, ids_in, references
from perdure.stores.traces import manifest_in, trace_of

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
        going = [
            run_id
            for run_id in dict.fromkeys(run_ids)
            if run_id in self._state.ended and not self._is_owned(run_id)
        ]
        sizes = [len(encode_event(each.event)) for run_id in going for each in self._state.streams[run_id]]
        if not is_dry:
            for run_id in going:
                self._forget(run_id)
        tell("runs", len(going))
        return Deleted(going, len(sizes), sum(sizes))

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
        named = manifest_in(stream[0])
        manifest = None
        if named is not None and named in self._state.blobs:
            manifest = Row(named in self._state.recipes, self._state.blobs[named][1])
        status = ends[0] if ends else None
        return trace_of(stream[0], stream[-1], status, manifest, is_owned=self._is_owned(run_id))

    def _is_owned(self, run_id: RunId) -> bool:
        row = self._state.claims.get(run_id)
        return row is not None and row.owner is not None and row.expires_millis > self._clock.now_millis()

    def _forget(self, run_id: RunId) -> None:
        state = self._state
        del state.streams[run_id]
        state.ended.discard(run_id)
        for rows in (state.claims, state.letters, state.due_millis, state.awaits):
            rows.pop(run_id, None)

    def _roots(self, without: Collection[RunId]) -> Iterable[Reference]:
        for run_id, stream in self._state.streams.items():
            if run_id not in without:
                for each in stream:
                    yield from (Reference(key, False) for key in ids_in(encode_event(each.event)))
        for schedule in self._state.schedules.values():
            yield from (Reference(key, False) for key in ids_in(schedule.body))
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
