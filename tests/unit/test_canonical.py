"""Canonical bytes and ids, against vectors made elsewhere, a second implementation, and the slow walk."""

from __future__ import annotations

import enum
import json
import uuid
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from perdure import (
    CanonicalJsonError,
    EventEnvelope,
    RunId,
    RunManifest,
    StateId,
    artifact_id_for_bytes,
    artifact_id_for_json,
    canonical_json_bytes,
)
from perdure.canonical import _encode_slowly, decode, encode, join_object, split_object

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "canonical.json").read_text())


def refusal(value: Any) -> CanonicalJsonError:
    """The error of a value that has no canonical form."""
    with pytest.raises(CanonicalJsonError) as caught:
        canonical_json_bytes(value)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("vector", VECTORS["accepted"], ids=lambda vector: vector["name"])
def test_accepted(vector: dict[str, Any]) -> None:
    """Bytes and ids."""
    assert canonical_json_bytes(vector["value"]) == vector["canonical"].encode()
    assert artifact_id_for_json(vector["value"]) == vector["id"]
    assert decode(vector["canonical"].encode()) == vector["value"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])
def test_refused(vector: dict[str, Any]) -> None:
    """Code and pointer, and never the value."""
    error = refusal(json.loads(vector["json"]))
    assert (error.code, error.pointer) == (vector["code"], vector["pointer"])
    assert "hunter2" not in str(error)


def test_ids_of_bytes_children_and_shapes() -> None:
    """Manifests and envelopes come back with the id that they had."""
    for vector in VECTORS["bytes"]:
        assert artifact_id_for_bytes(vector["utf8"].encode()) == vector["id"]
    for vector in VECTORS["child_run_id"]:
        assert RunId(vector["parent"]).child(vector["fact_key"]) == vector["child"]
    for vector in VECTORS["accepted"]:
        if vector["name"].startswith("manifest"):
            assert artifact_id_for_json(RunManifest.from_json(vector["value"]).to_json()) == vector["id"]
        if vector["name"] == "envelope":
            assert artifact_id_for_json(EventEnvelope.from_json(vector["value"]).to_json()) == vector["id"]


def test_types_that_are_no_json() -> None:
    """Each is refused where it stands; tuples are arrays, our ids are strings."""

    class Colour(enum.StrEnum):
        RED = "red"

    class Number(enum.IntEnum):
        ONE = 1

    for value in (Colour.RED, Number.ONE, uuid.uuid4(), b"x", {1, 2}, object(), OrderedDict(a=1), 1j):
        assert (refusal({"a": [value]}).code, refusal({"a": [value]}).pointer) == ("value_not_json", "/a/0")
    for key in (1, None, True, Colour.RED):
        assert refusal([{key: 1}]).code == "value_not_json"
    assert canonical_json_bytes((1, [StateId("a.b.c")])) == b'[1,["a.b.c"]]'
    assert canonical_json_bytes({StateId("a.b.c"): 1}) == b'{"a.b.c":1}'


class Nowhere(tzinfo):
    """A zone whose own code fails."""

    def utcoffset(self, _at: datetime | None) -> timedelta:
        raise KeyError("nowhere")

    dst = utcoffset

    def tzname(self, _at: datetime | None) -> str:
        return "nowhere"


def test_the_failure_of_a_foreign_object_is_no_reason() -> None:
    """That it is no JSON is, whatever its code does when it is asked."""
    assert refusal([1, datetime(2024, 1, 1, tzinfo=Nowhere())]).pointer == "/1"


def test_depth() -> None:
    """512 levels are fine, also on reading; more are refused, however many, and so is a circle."""

    def nested(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = [value]
        return value

    assert decode(canonical_json_bytes(nested(400))) == nested(400)
    assert len(encode(nested(512))) == 2 * 512 + 1
    for value in (nested(513), {"a": nested(100_000)}):
        assert refusal(value).code == "value_too_deep"
    circle: list[Any] = []
    circle += [circle, circle]
    assert refusal(circle).code == "value_too_deep"
    circle[:] = [0, *[circle] * 100, 0]
    assert refusal([circle]).code == "value_too_deep"
    with pytest.raises(CanonicalJsonError, match="value_too_deep"):
        decode(b"[" * 100_000 + b"]" * 100_000)


def test_floats_of_every_kind_are_refused() -> None:
    """Also NaN and the infinities, which some encoders turn into null."""
    for value in (1.0, float("nan"), float("inf"), -0.0):
        assert refusal([value]).code == "float_not_allowed"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b'{"a":1.0}', "float_not_allowed"),
        (b'{"b":1, "a":1e2}', "float_not_allowed"),
        (b"[NaN]", "float_not_allowed"),
        (b'{"b":1,"a":2}', "not_canonical"),
        (b'{"a":1,"a":2}', "not_canonical"),
        (b"[1 ]", "not_canonical"),
        (b'["\\u0041"]', "not_canonical"),
        (b"[-0]", "not_canonical"),
        (b"[18446744073709551616]", "integer_out_of_range"),
        (b'["\\ud800"]', "value_not_json"),
        (b"[1", "value_not_json"),
        (b'["\xff"]', "value_not_json"),
        (b"", "value_not_json"),
    ],
)
def test_reading_refuses_what_is_not_canonical(data: bytes, code: str) -> None:
    """A float is told apart from another form."""
    with pytest.raises(CanonicalJsonError) as caught:
        decode(data)
    assert caught.value.code == code


keys = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\ue000\uffff\U0001f600"), max_size=6
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: st.lists(children) | st.dictionaries(keys, children),
    max_leaves=20,
)


@given(values)
def test_agrees_with_a_second_implementation_and_reads_back(value: Any) -> None:
    """RFC 8785, as another author reads it; integers beyond 2^53 are ours alone."""
    data = encode(value)
    assert decode(data) == value
    try:
        assert data == rfc8785.dumps(value)
    except rfc8785.IntegerDomainError:
        assert json.loads(data) == value


@given(st.dictionaries(keys, values))
def test_an_object_is_its_parts(value: dict[str, Any]) -> None:
    """Joining the parts gives the whole, and splitting the whole gives the parts."""
    parts = {key: encode(each) for key, each in value.items()}
    assert join_object(parts) == encode(value)
    assert split_object(encode(value)) == parts


class _Id(str):
    __slots__ = ()


class _Count(int):
    __slots__ = ()


class _Level(enum.IntEnum):
    LOW = 1


class _Pair(msgspec.Struct, array_like=True, gc=False):
    first: int


STRANGE = [
    *(_Count(1), _Level.LOW, _Pair(1), msgspec.Raw(b"1"), Decimal(1), uuid.UUID(int=1), {1}, frozenset()),
    *(1.0, float("nan"), b"", b"i\0\0\0\0", bytearray(4), memoryview(b"iiii"), 1j, ..., object()),
    *(datetime(2024, 1, 1, tzinfo=UTC), "\ud800", 2**64, -(2**63) - 1, OrderedDict(a=1), {1: 2}),
]
PLAIN: list[Any] = [
    *(True, None, "", "i", _Id("i"), 2**31, -(2**31) - 1, 2**64 - 1, -(2**63)),
    *([], (), {}, [1] * 64, {"a": [2] * 70}),
]
FRAMES: list[Any] = [
    lambda row: row,
    lambda row: {"shape": [1, 2], "rows": [row, row], "text": "x" * 5000},
    lambda row: [[number] * 300 for number in range(10, 20)] + [row],
    lambda row: [[10] * 500, [1, [row], *[22] * 500, [row], 3]],
    lambda row: [tuple(row), *["words"] * 500],
]


def outcome(encoder: Any, value: Any) -> tuple[Any, ...]:
    """The bytes, or why there are none and where."""
    try:
        return (encoder(value),)
    except CanonicalJsonError as error:
        return error.code, error.pointer


@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20),
    st.lists(st.tuples(st.integers(0, 500), st.sampled_from(PLAIN + STRANGE)), max_size=2),
    st.sampled_from(FRAMES),
)
def test_what_hides_among_many_integers_is_seen(
    numbers: list[int], hidden: list[tuple[int, Any]], frame: Any
) -> None:
    """The fast path gives what the slow walk gives, or leaves it to the latter."""
    row: list[Any] = [*numbers, *range(1000, 1400)]
    for place, item in hidden:
        row.insert(place, item)
    assert outcome(encode, frame(row)) == outcome(_encode_slowly, frame(row))


@pytest.mark.parametrize("place", [0, 200, 201, 202, 203, 400])
def test_every_kind_is_seen_among_many_integers(place: int) -> None:
    """In each frame, and wherever in the bytes the digits stand."""
    for item in PLAIN + STRANGE:
        row: list[Any] = list(range(1000, 1400))
        row.insert(place, item)
        for frame in FRAMES:
            assert outcome(encode, frame(row)) == outcome(_encode_slowly, frame(row)), item
