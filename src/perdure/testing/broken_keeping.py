"""Stores that forget wrongly, in one way each: they show that the conformance suite would notice."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence

from perdure.ids import ArtifactId, RunId
from perdure.model.events import is_engine_event
from perdure.model.wire import encode_event
from perdure.stores.keeping import Deleted, Swept, Tell
from perdure.stores.memory import MemoryStore
from perdure.stores.ports import Append, Blob, Claim, Committed, Release
from perdure.stores.references import Reference, ids_in, references


class SweepsTooEarly(MemoryStore):
    """Spares nothing, however fresh it is."""

    async def sweep(
        self, without: Collection[RunId] = (), *, is_dry: bool = False, tell: Tell = lambda *_: None
    ) -> Swept:
        self._state.put_millis.clear()
        return await super().sweep(without, is_dry=is_dry, tell=tell)


class ForgetsRenewals(MemoryStore):
    """Counts the hour from when an artifact was put first."""

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        before = dict(self._state.put_millis)
        done = await super().commit(artifacts, appends, claim, release=release, read=read)
        self._state.put_millis.update(before)
        return done


class NeverSweeps(MemoryStore):
    """Says that it has swept."""

    async def sweep(
        self, without: Collection[RunId] = (), *, is_dry: bool = False, tell: Tell = lambda *_: None
    ) -> Swept:
        return await super().sweep(without, is_dry=True, tell=tell)


class SweepsWhenDry(MemoryStore):
    """Does what it was only asked to find out."""

    async def sweep(
        self, without: Collection[RunId] = (), *, is_dry: bool = False, tell: Tell = lambda *_: None
    ) -> Swept:
        return await super().sweep(without, is_dry=False, tell=tell)


class SweepsInSilence(MemoryStore):
    """Tells nobody how far it has come."""

    async def sweep(
        self, without: Collection[RunId] = (), *, is_dry: bool = False, tell: Tell = lambda *_: None
    ) -> Swept:
        return await super().sweep(without, is_dry=is_dry)


class ExcludesNobody(MemoryStore):
    """Lets runs lead to artifacts that are to be thought away."""

    async def sweep(
        self, without: Collection[RunId] = (), *, is_dry: bool = False, tell: Tell = lambda *_: None
    ) -> Swept:
        return await super().sweep((), is_dry=is_dry, tell=tell)


class FollowsEngineEvents(MemoryStore):
    """Takes nothing for needed that only a domain event names."""

    def _roots(self, without: Collection[RunId]) -> Iterable[Reference]:
        for run_id, stream in self._state.streams.items():
            if run_id not in without:
                for each in stream:
                    if is_engine_event(each.event):
                        yield from (Reference(key, False) for key in ids_in(encode_event(each.event)))


class FollowsEvents(MemoryStore):
    """Does not look into letters."""

    def _roots(self, without: Collection[RunId]) -> Iterable[Reference]:
        letters, self._state.letters = self._state.letters, {}
        yield from super()._roots(without)
        self._state.letters = letters


class LooksIntoNothing(MemoryStore):
    """Keeps what events name, and not what that names."""

    def _marked(self, roots: Iterable[Reference]) -> set[ArtifactId]:
        return {ArtifactId.trusted(key.hex()) for key, _ in roots}


class IgnoresRecipes(MemoryStore):
    """Takes a recipe for a text."""

    def _marked(self, roots: Iterable[Reference]) -> set[ArtifactId]:
        recipes, self._state.recipes = self._state.recipes, set()
        marked = super()._marked(roots)
        self._state.recipes = recipes
        return marked


class IgnoresInnerRecipes(MemoryStore):
    """Follows a recipe, and not those that it refers to."""

    def _marked(self, roots: Iterable[Reference]) -> set[ArtifactId]:
        marked = set[ArtifactId]()
        left = [ArtifactId.trusted(key.hex()) for key, _ in roots]
        while left:
            artifact_id = left.pop()
            if artifact_id in self._state.blobs and artifact_id not in marked:
                marked.add(artifact_id)
                data, is_recipe = self._state.blobs[artifact_id][1], artifact_id in self._state.recipes
                found = references(artifact_id, data, is_recipe=is_recipe)
                left += [ArtifactId.trusted(key.hex()) for key, _ in found]
        return marked


class IgnoresNamesInRecipes(MemoryStore):
    """Follows the parts of recipes, and not what stands in a recipe as text."""

    def _marked(self, roots: Iterable[Reference]) -> set[ArtifactId]:
        left = list(roots)
        seen = set(left)
        while left:
            key, is_node = left.pop()
            artifact_id = ArtifactId.trusted(key.hex())
            if artifact_id in self._state.blobs and (is_node or artifact_id in self._state.recipes):
                data = self._state.blobs[artifact_id][1]
                texts = set(ids_in(data))
                found = references(artifact_id, data, is_recipe=True)
                new = {each for each in found if each.key not in texts} - seen
                seen |= new
                left += new
        return {ArtifactId.trusted(key.hex()) for key, _ in seen}


class DeletesHalfAStream(MemoryStore):
    """Leaves the first events of what it deletes."""

    def _forget(self, run_id: RunId) -> None:
        stream = self._state.streams[run_id]
        super()._forget(run_id)
        self._state.streams[run_id] = stream[: len(stream) // 2]


class DeletesInSteps(MemoryStore):
    """Lets others look while a stream goes, event by event."""

    async def delete(
        self, run_ids: Sequence[RunId], *, is_dry: bool = False, tell: Tell = lambda *_: None
    ) -> Deleted:
        going = await super().delete(run_ids, is_dry=True)
        if not is_dry:
            for run_id in going.run_ids:
                while len(self._state.streams[run_id]) > 1:
                    self._state.streams[run_id].pop()
                    await asyncio.sleep(0)
                self._forget(run_id)
        tell("runs", len(going.run_ids))
        return going


class DeletesWhenDry(MemoryStore):
    """Does what it was only asked to find out."""

    async def delete(
        self, run_ids: Sequence[RunId], *, is_dry: bool = False, tell: Tell = lambda *_: None
    ) -> Deleted:
        return await super().delete(run_ids, tell=tell)


class KeepsLettersOfTheDeleted(MemoryStore):
    """Has a new run read what was written to an old one."""

    def _forget(self, run_id: RunId) -> None:
        letters = self._state.letters.get(run_id, {})
        super()._forget(run_id)
        self._state.letters[run_id] = letters


class DeletesTheUnfinished(MemoryStore):
    """Asks nobody whether a run has ended."""

    async def delete(
        self, run_ids: Sequence[RunId], *, is_dry: bool = False, tell: Tell = lambda *_: None
    ) -> Deleted:
        self._state.ended.update(run_id for run_id in run_ids if run_id in self._state.streams)
        return await super().delete(run_ids, is_dry=is_dry, tell=tell)


class DeletesTheOwned(MemoryStore):
    """Takes a run away from whoever has it."""

    def _is_owned(self, run_id: RunId) -> bool:
        return False


BROKEN: Sequence[type[MemoryStore]] = (
    SweepsTooEarly,
    ForgetsRenewals,
    NeverSweeps,
    SweepsWhenDry,
    SweepsInSilence,
    ExcludesNobody,
    FollowsEngineEvents,
    FollowsEvents,
    LooksIntoNothing,
    DeletesHalfAStream,
    DeletesInSteps,
    DeletesWhenDry,
    KeepsLettersOfTheDeleted,
    DeletesTheUnfinished,
    DeletesTheOwned,
)
BROKEN_IN_PARTS: Sequence[type[MemoryStore]] = (IgnoresRecipes, IgnoresInnerRecipes, IgnoresNamesInRecipes)
"""What is wrong with these shows only in artifacts that are kept in parts."""
