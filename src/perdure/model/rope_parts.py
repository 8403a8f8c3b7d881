"""What ropes are made of: segments, which are kept, runs of neighbours, groups of runs; and their recipes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from perdure.canonical import utf16_order
from perdure.ids import ArtifactId

_RECIPE = msgspec.msgpack.Encoder()

Entry = bytes | tuple[int, bytes, int]
"""Of a recipe: bytes that stand there as they are; or form, hash and length of what is kept apart.

The form says what that is, a value, a run of items or a run of members, and whether its bytes are kept or its
recipe.
"""
VALUE, ITEMS, MEMBERS = 0, 2, 4
NODE = 1


class Segment:
    """Bytes that are kept apart, under their hash."""

    __slots__ = ("_id", "data", "is_kept", "shape")

    def __init__(self, data: bytes, shape: int = VALUE) -> None:
        self.data = data
        self.shape = shape
        self.is_kept = False
        self._id: ArtifactId | None = None

    @property
    def id(self) -> ArtifactId:
        """The hash of the bytes."""
        if self._id is None:
            self._id = ArtifactId.trusted(hashlib.sha256(self.data).hexdigest())
        return self._id

    @property
    def size(self) -> int:
        """The number of bytes."""
        return len(self.data)

    @property
    def entry(self) -> Entry:
        """The entry in a recipe."""
        return (self.shape, bytes.fromhex(self.id), len(self.data))

    def new_parts(self) -> Iterator[Segment]:
        """Itself, unless it is kept already."""
        if not self.is_kept:
            yield self

    def flat(self, into: list[bytes]) -> None:
        """Add the bytes."""
        into.append(self.data)


class Group:
    """Neighbours whose entries form a recipe of their own; with brackets, a container inside another."""

    __slots__ = ("_flat", "_node", "child_entries", "children", "closing", "is_kept", "opening", "size")
    entry_count = 1
    """How many entries it adds to the recipe above."""

    def __init__(self, children: Sequence[Run | Group], opening: bytes = b"", closing: bytes = b"") -> None:
        self.children = children
        self.child_entries = sum([each.entry_count for each in children])
        self.opening, self.closing = opening, closing
        self.size: int = (
            sum(each.size for each in children) + max(0, len(children) - 1) + len(opening) + len(closing)
        )
        self.is_kept = False
        self._node: Segment | None = None
        self._flat: list[bytes] | None = None

    @property
    def node(self) -> Segment:
        """Its recipe, as what is kept apart."""
        if self._node is None:
            self._node = Segment(encode_recipe(self.entries()))
        return self._node

    @property
    def entry(self) -> Entry:
        """The entry in the recipe above."""
        return (self.shape | NODE, bytes.fromhex(self.node.id), self.size)

    @property
    def shape(self) -> int:
        """What it is to the recipe above."""
        return VALUE if self.opening else self.children[0].shape

    @property
    def ends(self) -> bool:
        """Whether a group of groups may end here."""
        return bytes.fromhex(self.node.id[:2])[0] & 7 == 0

    def add_entries(self, into: list[Entry]) -> None:
        """Add what stands for it in the recipe above."""
        into.append(self.entry)

    def entries(self) -> list[Entry]:
        """The entries of its own recipe."""
        found: list[Entry] = [self.opening]
        for number, child in enumerate(self.children):
            if number:
                found.append(b",")
            child.add_entries(found)
        found.append(self.closing)
        return found

    def runs(self) -> Iterator[Run]:
        """The runs below, in order."""
        for child in self.children:
            if isinstance(child, Run):
                yield child
            else:
                yield from child.runs()

    def new_parts(self) -> Iterator[Segment]:
        """All that is not kept yet, itself last."""
        if self.is_kept:
            return
        for child in self.children:
            yield from child.new_parts()
        if not self.node.is_kept:
            yield self.node

    def mark_kept(self) -> None:
        """Say that everything of it is kept."""
        if not self.is_kept:
            self.is_kept = True
            for child in self.children:
                child.mark_kept()

    def flat(self, into: list[bytes]) -> None:
        """Add the bytes, in pieces; these are remembered, since most groups live on in the next tree."""
        if self._flat is None:
            self._flat = [self.opening] if self.opening else []
            for number, child in enumerate(self.children):
                if number:
                    self._flat.append(b",")
                child.flat(self._flat)
            if self.closing:
                self._flat.append(self.closing)
        into.extend(self._flat)


class Run:
    """Neighbouring members or items that are cut no further, or one that is cut by itself.

    ``keys`` are the members', of which ``first`` is the order; both are empty for items.
    """

    __slots__ = ("_entries", "ends", "entry_count", "first", "is_kept", "keys", "pieces", "size")

    def __init__(self, keys: Sequence[str], pieces: Sequence[bytes | Segment | Group], ends: bool) -> None:
        self.keys = keys
        self.first = utf16_order(keys[0]) if keys else b""
        self.pieces = pieces
        self.entry_count = len(pieces)
        self.ends = ends
        self.size = sum(
            len(each)
            if isinstance(each, bytes)
            else len(each.data)
            if isinstance(each, Segment)
            else each.size
            for each in pieces
        )
        self.is_kept = False
        self._entries: list[Entry] | None = None

    @property
    def shape(self) -> int:
        """What it is to a recipe."""
        return MEMBERS if self.keys else ITEMS

    def add_entries(self, into: list[Entry]) -> None:
        """Add what stands for it in the recipe above."""
        if self._entries is None:
            self._entries = [each if isinstance(each, bytes) else each.entry for each in self.pieces]
        into.extend(self._entries)

    def new_parts(self) -> Iterator[Segment]:
        """All that is not kept yet."""
        if not self.is_kept:
            for each in self.pieces:
                if not isinstance(each, bytes):
                    yield from each.new_parts()

    def mark_kept(self) -> None:
        """Say that everything of it is kept."""
        if not self.is_kept:
            self.is_kept = True
            for each in self.pieces:
                if isinstance(each, Segment):
                    each.is_kept = True
                elif isinstance(each, Group):
                    each.mark_kept()

    def flat(self, into: list[bytes]) -> None:
        """Add the bytes, in pieces."""
        for each in self.pieces:
            if isinstance(each, bytes):
                into.append(each)
            else:
                each.flat(into)


def encode_recipe(entries: Iterable[Entry]) -> bytes:
    """Entries as they are kept: neighbouring bytes as one."""
    merged: list[Entry] = []
    literal: list[bytes] = []
    for entry in entries:
        if isinstance(entry, bytes):
            literal.append(entry)
            continue
        if literal:
            merged.append(b"".join(literal))
            literal = []
        merged.append(entry)
    if literal:
        merged.append(b"".join(literal))
    return _RECIPE.encode(merged)


def decode_recipe(data: bytes) -> list[Entry]:
    """The entries of a recipe; ``ValueError`` for what is none."""
    entries: list[Entry] = msgspec.msgpack.decode(data, type=list[bytes | tuple[int, bytes, int]])
    return entries
