"""Ropes: the same bytes and the same hash, from parts that are shared."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.canonical import canonical_json_bytes, encode
from perdure.errors import CorruptionError, NotFoundError
from perdure.ids import ArtifactId
from perdure.model.events import ArtifactKind
from perdure.model.rope import ENTRIES_MAX, WHOLE_BYTES_MAX, Rope
from perdure.model.rope_parts import decode_recipe
from perdure.stores.memory import MemoryState, MemoryStore
from perdure.stores.ports import RopeBlob, Row
from perdure.stores.sharing import SharedArtifacts
from perdure.testing.clock import FakeClock
from tests.small_parts import small_parts

KEYS = st.text(st.sampled_from("abcé￿𐀀"), min_size=1, max_size=4)
LEAVES = st.integers(-9, 9) | st.text(max_size=3) | st.integers(0, 9000).map(lambda size: "x" * size)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=30) | st.dictionaries(KEYS, inner, max_size=30)
)
CHANGES = st.lists(st.tuples(KEYS, st.none() | VALUES), max_size=12)


def words(count: int, seed: int = 7) -> list[str]:
    """Short texts that differ."""
    chance = random.Random(seed)
    return [f"{number} {chance.randbytes(30).hex()}" for number in range(count)]


class Place:
    """A shared store, and how many bytes it keeps."""

    def __init__(self) -> None:
        self.state = MemoryState()
        self.shared = SharedArtifacts(MemoryStore(self.state, FakeClock()))

    @property
    def size(self) -> int:
        return sum(len(data) for _, data in self.state.blobs.values())

    async def keep(self, rope: Rope) -> ArtifactId:
        return (await self.shared.commit([RopeBlob(ArtifactKind.CONTEXT_SNAPSHOT, rope)], ())).artifact_ids[0]


def rope_of(value: dict[str, Any]) -> Rope:
    """The rope of an object."""
    return Rope.of_members({key: encode(each) for key, each in value.items()})


@given(st.dictionaries(KEYS, VALUES, max_size=40), CHANGES, st.booleans())
async def test_whatever_changes_the_bytes_are_those_of_the_whole(
    start: dict[str, Any], changes: Any, is_cut_small: bool
) -> None:
    """Id, bytes and what comes back from a store, after every change of one key or several."""
    with small_parts() if is_cut_small else nullcontext():
        await follow(start, changes)


async def follow(start: dict[str, Any], changes: Any) -> None:
    """Make the changes, two at a time."""
    place, value = Place(), dict(start)
    rope = rope_of(value)
    for number in range(0, len(changes) + 1, 2):
        data = canonical_json_bytes(value, secrets=None)
        assert rope.data == data
        assert rope.id == hashlib.sha256(data).hexdigest()
        assert rope.size == len(data)
        assert await place.shared.get(await place.keep(rope)) == data
        some = dict(changes[number : number + 2])
        value = {key: each for key, each in (value | some).items() if each is not None}
        rope = rope.changed({key: encode(each) for key, each in value.items()}, some)


@given(VALUES)
async def test_any_json_is_kept_and_comes_back(value: Any) -> None:
    """Also what is no object."""
    place, data = Place(), encode(value)
    assert await place.shared.get(await place.shared.put(ArtifactKind.OUTPUT, data)) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{" * 9000,
        b'{"a":' + b" " * 5000 + b"1}",
        b'{"b":1,"a":"' + b"x" * 5000 + b'"}',
        b"\xff" * 5000,
        b'[1.50,"' + b"x" * 5000 + b'"]',
        b'{"a":1,"a":"' + b"x" * 5000 + b'"}',
        b"[" * 4100 + b"]" * 4100,
    ],
    ids=range(8),
)
async def test_other_bytes_come_back_as_they_were(data: bytes) -> None:
    """What is no JSON, or JSON in another form."""
    place = Place()
    assert await place.shared.get(await place.shared.put(ArtifactKind.OUTPUT, data)) == data


TEXTS = [random.Random(number).randbytes(5_000).hex() for number in range(200)]


def grown(shape: str, count: int) -> dict[str, Any]:
    """A context to which ``count`` times ten kilobytes were added."""
    members = {f"key{number:04}": text for number, text in enumerate(TEXTS[:count])}
    if shape == "keys":
        return members
    if shape == "list":
        return {"counter": count, "items": TEXTS[:count]}
    return {"all": {"counter": count, "items": members}}


@pytest.mark.parametrize("shape", ["keys", "list", "nested"])
async def test_what_is_kept_is_what_was_added(shape: str) -> None:
    """Two hundred times ten kilobytes, and little more."""
    place, rope = Place(), Rope.of_members({})
    known: dict[str, bytes] = {}
    for count in range(1, 201):
        value = grown(shape, count)
        changed = {"keys": [f"key{count - 1:04}"], "list": ["counter", "items"], "nested": ["all"]}[shape]
        known |= {key: encode(value[key]) for key in changed}
        rope = rope.changed(known, changed)
        await place.keep(rope)
    assert json.loads(await place.shared.get(rope.id)) == grown(shape, 200)
    assert place.size <= 1.15 * 10_000 * 200


async def test_small_additions_store_little() -> None:
    """Three thousand of two hundred bytes: a part, and the recipes above it."""
    place, parts = Place(), {f"k{number:05}": encode(text * 3) for number, text in enumerate(words(3000))}
    first = dict(list(parts.items())[:2900])
    rope = Rope.of_members(first)
    await place.keep(rope)
    before = place.size
    for key in list(parts)[2900:]:
        first[key] = parts[key]
        rope = rope.changed(first, [key])
        await place.keep(rope)
    assert place.size - before <= 100 * 8_000
    assert len(decode_recipe(rope.recipe)) <= 2 * ENTRIES_MAX + 1


async def test_runs_share_what_they_have_in_common() -> None:
    """A list that begins otherwise, in another order of growth, in another run."""
    place, items = Place(), words(2000)
    await place.shared.put(ArtifactKind.CONTEXT_SNAPSHOT, encode({"a": items}))
    before = place.size
    await place.shared.put(ArtifactKind.CONTEXT_SNAPSHOT, encode({"a": ["new", *items], "b": 7}))
    assert place.size - before <= 0.1 * before


async def test_what_is_small_is_kept_whole() -> None:
    """Under its own id, with nothing beside it."""
    place = Place()
    data = encode({"a": "x" * (WHOLE_BYTES_MAX - 8)})
    assert len(data) == WHOLE_BYTES_MAX
    artifact_id = await place.shared.put(ArtifactKind.OUTPUT, data)
    assert place.state.blobs == {artifact_id: (ArtifactKind.OUTPUT, data)}
    assert place.state.recipes == set()


@pytest.mark.parametrize("damage", ["lose", "change", "swap", "recipe"])
async def test_damage_is_found(damage: str) -> None:
    """In any part."""
    place = Place()
    artifact_id = await place.shared.put(ArtifactKind.OUTPUT, encode(grown("keys", 100)))
    assert artifact_id in place.state.recipes
    blobs = place.state.blobs
    parts = [each for each in blobs if each != artifact_id]
    for part in [artifact_id] if damage == "recipe" else parts[1:]:
        kind, kept = blobs.pop(part)
        if damage != "lose":
            other = {
                "change": kept[:-1] + bytes([kept[-1] ^ 1]),
                "swap": blobs[parts[0]][1],
                "recipe": b"\x93\1\2\3",
            }
            blobs[part] = (kind, other[damage])
        with pytest.raises(CorruptionError, match="artifact_corruption"):
            await place.shared.get(artifact_id)
        blobs[part] = (kind, kept)
    assert json.loads(await place.shared.get(artifact_id)) == grown("keys", 100)


class Reading(MemoryStore):
    """Counts the bytes that are read."""

    read_bytes = 0

    async def rows(self, artifact_ids: Sequence[ArtifactId]) -> dict[ArtifactId, Row]:
        found = await super().rows(artifact_ids)
        self.read_bytes += sum(len(row.data) for row in found.values())
        return found


@given(st.dictionaries(KEYS, VALUES, max_size=40), CHANGES)
async def test_two_are_compared_by_their_parts(start: dict[str, Any], changes: Any) -> None:
    """The keys in which they differ, whatever they share."""
    shared = SharedArtifacts(MemoryStore(MemoryState(), FakeClock()))
    end = {key: each for key, each in (start | dict(changes)).items() if each is not None}
    left, right = [await shared.put(ArtifactKind.OUTPUT, encode(each)) for each in (start, end)]
    absent = object()
    differing = {key for key in start | end if start.get(key, absent) != end.get(key, absent)}
    assert set(await shared.differing_keys(left, right)) == differing
    assert set(await shared.differing_keys(right, left)) == differing
    assert await shared.differing_keys(left, left) == []


@pytest.mark.parametrize("shape", ["keys", "list", "nested"])
async def test_comparing_reads_what_differs(shape: str) -> None:
    """Of two megabytes, little."""
    store = Reading(MemoryState(), FakeClock())
    shared = SharedArtifacts(store)
    ids = [await shared.put(ArtifactKind.OUTPUT, encode(grown(shape, count))) for count in (199, 200)]
    store.read_bytes = 0
    expected = {"keys": ["key0199"], "list": ["counter", "items"], "nested": ["all"]}[shape]
    assert await shared.differing_keys(*ids) == expected
    assert store.read_bytes <= 40_000


async def test_what_is_no_object_cannot_be_compared() -> None:
    """Nor what is not there."""
    place = Place()
    one, other = [await place.shared.put(ArtifactKind.OUTPUT, data) for data in (b"[1]", b"\xff")]
    with pytest.raises(CorruptionError):
        await place.shared.differing_keys(one, other)
    with pytest.raises(NotFoundError):
        await place.shared.differing_keys(one, ArtifactId("0" * 64))
