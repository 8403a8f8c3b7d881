"""Patches, in a live attempt: what the handler is told where its code has changed."""

from __future__ import annotations

from perdure.canonical import encode
from perdure.errors import StorageError
from perdure.ids import FactKey
from perdure.io.journal import Journal
from perdure.io.patches import is_beyond, patch_key
from perdure.io.scope import AttemptScope
from perdure.io.storing import read_recorded
from perdure.model.events import ArtifactKind
from perdure.stores.ports import ArtifactStore, Blob


class LivePatches:
    """The patches of one attempt."""

    def __init__(self, scope: AttemptScope, artifacts: ArtifactStore, journal: Journal) -> None:
        self._scope = scope
        self._artifacts = artifacts
        self._journal = journal
        self._told: dict[FactKey, bool] = {}
        """What the handler was told; the facts ride with the next durable write, before all that follows."""

    async def answer(self, name: str) -> bool:
        """Whether the handler goes the new way at this patch."""
        key = patch_key(self._scope.state_id, name)
        if key in self._told:
            return self._told[key]
        bound = self._journal.facts.get(key)
        if bound is not None:
            value, _ = await read_recorded(self._scope, self._artifacts, bound.payload_id)
            return bool(value)
        try:
            recorded = await self._journal.recorded_by(self._scope.state_id)
        except StorageError as error:
            self._scope.fatal = error
            raise
        if key not in self._told:  # another branch of the handler may have asked meanwhile
            is_new = self._told[key] = not is_beyond(recorded, self._scope.reached or ())
            self._journal.ride(key, Blob(ArtifactKind.FACT_PAYLOAD, encode(is_new)))
        return self._told[key]
