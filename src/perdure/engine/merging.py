"""What states have written, and contexts put together from it. Pure.

A state has written the top-level keys in which its snapshot differs from its base: values, and deletions.
A value that was there already is none. Contexts are merged in plan order: of ordered states the later one
says what a key holds. Unordered states that write one key contradict each other, even with one value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from perdure.engine.joins import JoinGraph, Tips
from perdure.ids import StateId
from perdure.model.context import Snapshot
from perdure.stores.ports import Blob, snapshot_blob


class Conflict(NamedTuple):
    """A key that two states write of which neither precedes the other."""

    key: str
    first: StateId
    second: StateId


class Merged(NamedTuple):
    """A context, and the first contradiction in it by plan order and key, if there is one.

    ``is_new`` says that it is not the snapshot of a state.
    """

    snapshot: Snapshot
    conflict: Conflict | None = None
    is_new: bool = False

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """What is to be kept for it."""
        return (snapshot_blob(self.snapshot),) if self.is_new else ()


def written_keys(base: Snapshot, result: Snapshot) -> frozenset[str]:
    """The keys that a state has set to another value, or deleted."""
    if result is base:
        return frozenset()
    before, after = base.parts, result.parts
    # Parts that nobody wrote are the same objects.
    found = [key for key, data in after.items() if (old := before.get(key)) is not data and old != data]
    if len(before) + len(found) != len(after):  # else nothing can be missing
        found += [key for key in before if key not in after]
    return frozenset(found)


def merge(
    graph: JoinGraph,
    tips: Tips,
    results: Mapping[StateId, Snapshot],
    written: Mapping[StateId, Collection[str]],
    settled: Collection[str] = (),
) -> Merged:
    """The context that ``tips`` and all states before them leave; ``settled`` keys are no contradiction.

    ``results`` are the tips' snapshots, ``written`` the keys of the states that ``graph.differing(tips)``
    names. Nothing is encoded: values are the bytes that stand in the results.
    """
    last: dict[str, StateId] = {}
    conflict: Conflict | None = None
    for state_id in graph.differing(tips):
        for key in sorted(written[state_id]):
            first = last.get(key)
            if first is not None and conflict is None and not graph.precedes(first, state_id):
                conflict = None if key in settled else Conflict(key, first, state_id)
            last[key] = state_id
    seed = results[graph.largest(tips)]
    written_last: dict[str, bytes | None] = {}
    for key, state_id in last.items():
        # A tip that comes after the last writer of a key holds what it wrote.
        holder = (
            state_id if state_id in results else next(tip for tip in tips if graph.precedes(state_id, tip))
        )
        written_last[key] = results[holder].parts.get(key)
    return _changed(Merged(seed, conflict), written_last)


def altered(merged: Merged, values: Snapshot, keys: Collection[str]) -> Merged:
    """``merged`` with the values that ``keys`` have in another context."""
    return _changed(merged, {key: values.parts.get(key) for key in sorted(keys)})


def _changed(merged: Merged, changes: Mapping[str, bytes | None]) -> Merged:
    after = merged.snapshot.with_changes(changes)
    return merged if after is merged.snapshot else Merged(after, merged.conflict, True)
