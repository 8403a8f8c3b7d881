"""Artifacts that are kept in parts: what two of them have in common is there once."""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from perdure.canonical import artifact_id_for_bytes, utf16_order
from perdure.errors import CorruptionError, Json
from perdure.ids import ArtifactId
from perdure.model.events import ArtifactKind
from perdure.model.rope import WHOLE_BYTES_MAX, Rope
from perdure.model.rope_parts import MEMBERS, NODE, Entry, decode_recipe
from perdure.stores.ports import (
    Append,
    ArtifactRows,
    ArtifactStore,
    Blob,
    Claim,
    Committed,
    Committer,
    RecipeBlob,
    Release,
    RopeBlob,
)
from perdure.stores.refusals import artifact_corruption, artifact_not_found

_LEVELS_MAX = 64


class SharingStore(ArtifactStore, ArtifactRows, Committer, Protocol):
    """What :class:`SharedArtifacts` stands on."""


class SharedArtifacts:
    """Artifacts and commits over a store that keeps recipes.

    Ids stay those of the whole bytes, and ``get`` verifies them. Bytes that are JSON are cut where members
    and items meet; others are kept whole.
    """

    def __init__(self, store: SharingStore) -> None:
        self._store = store

    async def put(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        return (await self.commit((Blob(kind, data),), ())).artifact_ids[0]

    async def exists(self, artifact_id: ArtifactId) -> bool:
        return await self._store.exists(artifact_id)

    async def get(self, artifact_id: ArtifactId) -> bytes:
        row = (await self._store.rows([artifact_id])).get(artifact_id)
        if row is None:
            if await self._store.exists(artifact_id):
                raise artifact_corruption(artifact_id)
            raise artifact_not_found(artifact_id)
        data = row.data
        if row.is_recipe:
            try:
                data = await self._assembled(row.data)
            except (msgspec.DecodeError, ValueError):
                raise artifact_corruption(artifact_id) from None
        if artifact_id_for_bytes(data) != artifact_id:
            raise artifact_corruption(artifact_id)
        return data

    async def differing_keys(self, left: ArtifactId, right: ArtifactId) -> list[str]:
        """The top-level keys in which two objects differ, in order; what they share is not read.

        Raises as :meth:`get` does for what is read, and ``CorruptionError`` for what is no JSON object.
        """
        if left == right:
            return []
        sides = [await self._root(left), await self._root(right)]
        try:
            while True:
                shared = set.intersection(*(set(_references(side)) for side in sides))
                opened = [await self._step(side, shared) for side in sides]
                if opened == sides:
                    break
                sides = opened
            one, other = (_sketch(side) for side in sides)
            keys = [key for key in {**one, **other} if one.get(key, sides) != other.get(key, sides)]
            if any(key.startswith(_PLACEHOLDER) for key in keys):
                # A run of members that stands elsewhere in the other one: there is no way round reading.
                one, other = [_sketch([await self.get(each)]) for each in (left, right)]
                keys = [key for key in {**one, **other} if one.get(key, sides) != other.get(key, sides)]
        except (msgspec.DecodeError, ValueError):
            raise artifact_corruption(left) from None
        return sorted(keys, key=utf16_order)

    async def _root(self, artifact_id: ArtifactId) -> list[Entry]:
        row = (await self._store.rows([artifact_id])).get(artifact_id)
        if row is None or not row.is_recipe:
            return [await self.get(artifact_id)]
        return decode_recipe(row.data)

    def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Coroutine[Any, Any, Committed]:
        for blob in artifacts:
            if isinstance(blob, RopeBlob) or len(blob.data) > WHOLE_BYTES_MAX:
                return self._commit_parts(artifacts, appends, claim, release, read)
        return self._store.commit(artifacts, appends, claim, release=release, read=read)

    async def _commit_parts(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None,
        release: Release | None,
        read: Sequence[str],
    ) -> Committed:
        blobs: list[Blob] = []
        ropes: list[Rope] = []
        for blob in artifacts:
            rope = blob.rope if isinstance(blob, RopeBlob) else Rope.of_bytes(blob.data)
            if rope is None:
                blobs.append(blob)
                continue
            ropes.append(rope)
            blobs += [Blob(blob.kind, part.data, part.id) for part in rope.new_parts()]
            blobs.append(RecipeBlob(blob.kind, rope.id, rope.recipe, rope.size))
        committed = await self._store.commit(blobs, appends, claim, release=release, read=read)
        for blob, artifact_id in zip(blobs, committed.artifact_ids, strict=True):
            if blob.id != artifact_id:
                raise CorruptionError.of(
                    "artifact_put_id_mismatch",
                    "the store names an artifact by something else than its content",
                    details={"expected": str(blob.id), "got": str(artifact_id)},
                )
        for rope in ropes:
            rope.mark_kept()
        return Committed([blob.id for blob in artifacts], committed.heads)

    async def _assembled(self, recipe: bytes) -> bytes:
        """The whole of a recipe; ``ValueError`` if a part is missing or is not what it should be."""
        entries = decode_recipe(recipe)
        for _ in range(_LEVELS_MAX):
            opened = await self._step(entries, frozenset())
            if opened == entries:
                return b"".join(each for each in entries if isinstance(each, bytes))
            entries = opened
        raise ValueError("the recipe has too many levels")

    async def _step(self, entries: Sequence[Entry], closed: Collection[Entry]) -> list[Entry]:
        """``entries`` with everything one level further open, but for what is in ``closed``."""
        wanted = {each[1] for each in _references(entries) if each not in closed}
        if not wanted:
            return list(entries)
        rows = await self._store.rows([ArtifactId(each.hex()) for each in wanted])
        known = {bytes.fromhex(artifact_id): row.data for artifact_id, row in rows.items()}
        opened: list[Entry] = []
        for each in entries:
            if isinstance(each, bytes) or each in closed:
                opened.append(each)
            elif each[1] not in known:
                raise ValueError("a part is missing")
            else:
                opened += _opened(each, known[each[1]])
        return opened


def _references(entries: Iterable[Entry]) -> Iterator[tuple[int, bytes, int]]:
    return (each for each in entries if not isinstance(each, bytes))


_PLACEHOLDER = "\0"


def _sketch(entries: Iterable[Entry]) -> dict[str, Json]:
    """The object of which ``entries`` are the parts, with a name for what is closed."""
    pieces = []
    for each in entries:
        if isinstance(each, bytes):
            pieces.append(each)
        else:
            name = b'"\\u0000%b"' % each[1].hex().encode()
            pieces.append(name + b":0" if each[0] & MEMBERS else name)
    sketch: dict[str, Json] = msgspec.json.decode(b"".join(pieces), type=dict[str, Any])
    return sketch


def _opened(entry: tuple[int, bytes, int], data: bytes) -> list[Entry]:
    """What an entry stands for. Lengths are checked at every level, so that nothing grows without end."""
    form, _, size = entry
    inside: list[Entry] = decode_recipe(data) if form & NODE else [data]
    if sum(len(each) if isinstance(each, bytes) else each[2] for each in inside) != size:
        raise ValueError("a part has another length")
    return inside
