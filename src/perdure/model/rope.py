"""Canonical bytes as a tree of parts, so that what did not change is neither hashed nor stored again.

The bytes of an object or array are cut between members or items: large ones stand alone, neighbours that are
small form runs. Where a run ends depends on what it holds and not on what stands before it, so a change stays
local. Runs are gathered into groups in the same way, as deep as it takes for a recipe to stay short.
"""

from __future__ import annotations

import hashlib
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, count
from operator import is_not
from typing import Any

import msgspec

from perdure.canonical import encode_string, utf16_order
from perdure.ids import ArtifactId
from perdure.model.rope_parts import ITEMS, MEMBERS, Group, Run, Segment, encode_recipe

WHOLE_BYTES_MAX = 4096
"""What is no longer than this is kept whole."""
ENTRIES_MAX = 48
"""A recipe with more entries gets another level."""
NESTED_LEVELS_MAX = 12
"""What is nested deeper is not cut."""

_ALONE_BYTES = 2048
_RUN_BYTES_MIN, _RUN_BYTES_MAX = 1024, 4096
_INLINE_BYTES_MAX = 256
_GROUP_ENTRIES_MIN = 8
_MARK_BYTES = 1 << 14

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])


class _Cutter:
    """Forms runs of the members or items that it is fed. Those that ``before`` has as well are taken over."""

    def __init__(self, level: int = 0, before: Group | None = None) -> None:
        self.runs: list[Run] = []
        self._level = level
        self._elements: list[bytes] = []
        self._keys: list[str] = []
        self._size = 0
        self._old = [] if before is None else list(before.runs())
        self._old_by_key = {run.keys[0]: run for run in self._old if run.keys}

    @property
    def is_open(self) -> bool:
        """Whether what comes next may belong to the last run."""
        return bool(self._elements)

    def feed(self, key: str | None, head: bytes, data: bytes) -> None:
        """Take the next member or item: ``head`` is the key with its colon."""
        if len(data) > _ALONE_BYTES:
            self.close()
            old = self._old_run(key)
            piece = old.pieces[-1] if old is not None else None
            if old is not None and isinstance(piece, Segment) and piece.data == data:
                self.runs.append(old)
                return
            cut = _cut(data, self._level + 1, piece if isinstance(piece, Group) else None)
            ends = zlib.crc32(data[-64:]) & 7 == 0
            self.runs.append(Run(() if key is None else (key,), (head, cut) if head else (cut,), ends))
            return
        element = head + data
        self._elements.append(element)
        if key is not None:
            self._keys.append(key)
        self._size += len(element) + 1
        if self._size >= _RUN_BYTES_MIN:
            check = zlib.crc32(element)
            if check & 7 == 0 or self._size >= _RUN_BYTES_MAX:
                self._flush(check & 56 == 0)

    def close(self) -> None:
        """End the last run where it is."""
        if self._elements:
            self._flush(False)

    def _flush(self, ends: bool) -> None:
        data = b",".join(self._elements)
        old = self._old_run(self._keys[0] if self._keys else None)
        piece = old.pieces[0] if old is not None else None
        if old is not None and isinstance(piece, Segment) and piece.data == data and old.ends == ends:
            self.runs.append(old)
        else:
            shape = MEMBERS if self._keys else ITEMS
            kept = data if len(data) <= _INLINE_BYTES_MAX else Segment(data, shape)
            self.runs.append(Run(tuple(self._keys), (kept,), ends))
        self._elements, self._keys, self._size = [], [], 0

    def _old_run(self, key: str | None) -> Run | None:
        """The run that may be the next one: of the same first key, or of the same place among items."""
        if key is not None:
            return self._old_by_key.get(key)
        return self._old[len(self.runs)] if len(self.runs) < len(self._old) else None


def _cut(data: bytes, level: int, before: Group | None = None) -> bytes | Segment | Group:
    """One value in parts."""
    if len(data) <= _INLINE_BYTES_MAX:
        return data
    if len(data) <= _ALONE_BYTES or data[:1] not in (b"{", b"[") or level > NESTED_LEVELS_MAX:
        return Segment(data)
    return gathered(_runs_of(data, level, before), data[:1], data[-1:], before)


def _runs_of(data: bytes, level: int, before: Group | None = None) -> list[Run]:
    cutter = _Cutter(level, before)
    if data[:1] == b"{":
        for key, raw in _OBJECT.decode(data).items():
            cutter.feed(key, encode_string(key) + b":", bytes(raw))
    else:
        for raw in _ARRAY.decode(data):
            cutter.feed(None, b"", bytes(raw))
    cutter.close()
    return cutter.runs


def gathered(
    units: Sequence[Run | Group], opening: bytes, closing: bytes, before: Group | None = None
) -> Group:
    """Units under as many levels of groups as it takes; those of ``before`` that hold the same are shared."""
    known: dict[int, Group] = {}
    level: Sequence[Run | Group] = () if before is None else before.children
    while level and isinstance(level[0], Group):
        groups = [each for each in level if isinstance(each, Group)]
        known |= {id(each.children[0]): each for each in groups}
        level = [child for each in groups for child in each.children]
    while sum([each.entry_count for each in units]) > ENTRIES_MAX:
        units = _grouped(units, known)
    return Group(units, opening, closing)


def _grouped(units: Sequence[Run | Group], known: Mapping[int, Group]) -> list[Run | Group]:
    groups: list[Run | Group] = []
    place = 0
    while place < len(units):
        old = known.get(id(units[place]))
        if old is not None and units[place : place + len(old.children)] == old.children:
            # The end of the whole is no natural end of a group: more may belong to it now.
            stop = place + len(old.children)
            if stop == len(units) or _may_end(old.child_entries, old.children[-1]):
                groups.append(old)
                place = stop
                continue
        stop, entries = place, 0
        while stop < len(units):
            entries += units[stop].entry_count
            stop += 1
            if _may_end(entries, units[stop - 1]):
                break
        groups.append(Group(units[place:stop]))
        place = stop
    return groups


def _may_end(entry_count: int, last: Run | Group) -> bool:
    return entry_count >= ENTRIES_MAX or (entry_count >= _GROUP_ENTRIES_MIN and last.ends)


class Rope:
    """The bytes of an artifact as a tree. Immutable; ropes share what is alike.

    ``id`` is the artifact id of the whole, ``recipe`` how to put it together.
    """

    __slots__ = ("_flat", "_marks", "id", "root", "runs")

    def __init__(self, root: Group, runs: Sequence[Run], before: Rope | None = None) -> None:
        self.root = root
        self.runs = runs
        self._flat: list[bytes] = []
        root.flat(self._flat)
        self._marks: list[tuple[int, Any]] = []
        self.id = self._hash(before)

    @classmethod
    def of_bytes(cls, data: bytes) -> Rope | None:
        """The rope of canonical bytes; None for what is short, or no object or array of JSON."""
        if len(data) <= WHOLE_BYTES_MAX or data[:1] not in (b"{", b"["):
            return None
        try:
            runs = _runs_of(data, 0)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        rope = cls(gathered(runs, data[:1], data[-1:]), runs)
        # What is JSON, and not canonical, would come back in another form.
        return rope if rope.data == data else None

    @classmethod
    def of_members(cls, parts: Mapping[str, bytes]) -> Rope:
        """The rope of an object whose values' canonical bytes are at hand."""
        return _of_runs(_runs_of_members(sorted(parts, key=utf16_order), parts))

    def changed(self, parts: Mapping[str, bytes], keys: Iterable[str]) -> Rope:
        """The rope of the object that has changed in ``keys``, and now is ``parts``."""
        changed = sorted(keys, key=utf16_order)
        if not self.runs or not changed:
            return Rope.of_members(parts)
        begin = self._place_of(changed[0])
        end = self._place_of(changed[-1]) + 1
        members = {key for run in self.runs[begin:end] for key in run.keys}.union(changed)
        cutter = _Cutter(before=Group(self.runs[begin:end]))
        _feed(cutter, sorted((key for key in members if key in parts), key=utf16_order), parts)
        while cutter.is_open and end < len(self.runs):
            _feed(cutter, self.runs[end].keys, parts)
            end += 1
        cutter.close()
        return _of_runs([*self.runs[:begin], *cutter.runs, *self.runs[end:]], self)

    @property
    def data(self) -> bytes:
        """The whole."""
        return b"".join(self._flat)

    @property
    def size(self) -> int:
        """The length of the whole, in bytes."""
        return self.root.size

    @property
    def recipe(self) -> bytes:
        """How to put the whole together."""
        return encode_recipe(self.root.entries())

    def new_parts(self) -> Iterator[Segment]:
        """What the recipe refers to and is not kept yet, each before what refers to it."""
        for child in self.root.children:
            yield from child.new_parts()

    def mark_kept(self) -> None:
        """Say that all of it is kept."""
        self.root.mark_kept()

    def _place_of(self, key: str) -> int:
        return max(0, bisect_right(self.runs, utf16_order(key), key=lambda run: run.first) - 1)

    def _hash(self, before: Rope | None) -> ArtifactId:
        """The hash of the whole, from the last mark on up to which it is as ``before``."""
        start, digest = 0, hashlib.sha256()
        if before is not None:
            same = _common(self._flat, before._flat)
            self._marks = before._marks[: bisect_right(before._marks, same, key=lambda mark: mark[0])]
            if self._marks:
                start, digest = self._marks[-1][0], self._marks[-1][1].copy()
        unmarked = 0
        for place in range(start, len(self._flat)):
            piece = self._flat[place]
            if unmarked >= _MARK_BYTES or (place > start and len(piece) >= _MARK_BYTES):
                self._marks.append((place, digest.copy()))
                unmarked = 0
            digest.update(piece)
            unmarked += len(piece)
        return ArtifactId.trusted(digest.hexdigest())


def _common(left: Sequence[bytes], right: Sequence[bytes]) -> int:
    """How many pieces are the same from the start; one that is only alike is taken for another."""
    return next(compress(count(), map(is_not, left, right)), min(len(left), len(right)))


def _of_runs(runs: Sequence[Run], before: Rope | None = None) -> Rope:
    root = gathered(runs, b"{", b"}", None if before is None else before.root)
    return Rope(root, runs, before)


def _runs_of_members(keys: Iterable[str], parts: Mapping[str, bytes]) -> list[Run]:
    cutter = _Cutter()
    _feed(cutter, keys, parts)
    cutter.close()
    return cutter.runs


def _feed(cutter: _Cutter, keys: Iterable[str], parts: Mapping[str, bytes]) -> None:
    for key in keys:
        cutter.feed(key, encode_string(key) + b":", parts[key])
