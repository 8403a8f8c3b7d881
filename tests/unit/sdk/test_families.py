"""Families as they are read: also from stores that were damaged, copied in part, or written by others."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import NotFoundError, RunId, RunPhase, RunStatus, Stores
from perdure.clock import SystemClock
from perdure.engine.recovery import read_view
from perdure.model.events import DomainEvent, ParentRun, RunCompleted
from perdure.sdk.families import FamilyReader, Member, members
from perdure.sdk.kin import hearers_of, parent_of, phases_of
from perdure.sdk.reading import list_summaries, status_of
from perdure.stores.memory import MemoryState, MemoryStore
from perdure.stores.ports import Append
from tests.families import failed, waits_for_signal, write_run

ROOT = RunId.for_invocation("root")
A, B, C = (ROOT.child(name) for name in "abc")
GRANDCHILD = A.child("grandchild")


def shape(member: Member) -> Any:
    """A family's ids, nested."""
    return {member.run_id: [shape(child) for child in member.children]} if member.children else member.run_id


async def family_of(stores: Stores, run_id: RunId) -> Member:
    """The family, read once."""
    return await FamilyReader(stores, run_id).read()


async def three_generations(stores: Stores) -> None:
    """A root with three children, the first of which has one too."""
    await write_run(stores, ROOT, children=[A, B, C])
    await write_run(stores, A, parent=ParentRun(ROOT, 1), children=[GRANDCHILD], end=RunStatus.COMPLETED)
    await write_run(stores, B, parent=ParentRun(ROOT, 1), after=[failed("no_luck")], end=RunStatus.FAILED)
    await write_run(stores, C, parent=ParentRun(ROOT, 1), after=[waits_for_signal("go")])
    await write_run(stores, GRANDCHILD, parent=ParentRun(A, 2), end=RunStatus.COMPLETED)


async def test_every_member_knows_the_whole_family() -> None:
    """With how each stands, its depth, and the parent under which it stands."""
    stores = Stores.in_memory()
    await three_generations(stores)
    for asked in (A, B, C, GRANDCHILD, ROOT):
        assert shape(await family_of(stores, asked)) == {ROOT: [{A: [GRANDCHILD]}, B, C]}
    root = await family_of(stores, GRANDCHILD)
    told = [each.to_json() for each in members(root)]
    assert [(each["depth"], each["close_policy"]) for each in told] == [
        (0, None),
        (1, "await"),
        (2, "await"),
        (1, "await"),
        (1, "await"),
    ]
    assert told[4] == {
        "run_id": C,
        "op_id": "job",
        "op_version": "1",
        "phase": "Running",
        "parent_run_id": ROOT,
        "depth": 1,
        "close_policy": "await",
        "waiting_for": "signal go",
        "error": None,
    }
    assert root.children[1].standing.failure == "no_luck"


async def test_members_that_are_not_there_are_members() -> None:
    """Below, and above: an ancestor that is missing ends the way up."""
    stores = Stores.in_memory()
    await write_run(stores, A, parent=ParentRun(ROOT, 4), children=[GRANDCHILD])
    root = await family_of(stores, A)
    assert shape(root) == {ROOT: [{A: [GRANDCHILD]}]}
    codes = [each.standing.error for each in members(root)]
    assert codes == ["run_not_found", None, "run_not_found"]
    assert [each.depth for each in members(root)] == [3, 4, 5]
    assert not root.children[0].is_unlinked  # nobody can know
    with pytest.raises(NotFoundError) as caught:
        await family_of(stores, RunId.random())
    assert caught.value.code == "run_not_found"


async def test_members_that_cannot_be_read_are_members() -> None:
    """Their error's code stands where they do."""
    stores = Stores.in_memory()
    await write_run(stores, ROOT, children=[A, B], close="cancel")
    await stores.events.append(A, 0, [RunCompleted(RunStatus.COMPLETED)])
    await stores.events.append(B, 0, [DomainEvent("strange")])
    root = await family_of(stores, ROOT)
    assert [(each.standing.phase, each.standing.error) for each in root.children] == [
        (None, "invalid_attempt_envelopes"),
        (None, "run_not_found"),
    ]
    assert [each.to_json()["close_policy"] for each in root.children] == ["cancel", "cancel"]


async def test_links_that_one_side_alone_knows() -> None:
    """A run that was adopted names no parent; one whose link is missing is found through its own."""
    stores = Stores.in_memory()
    await write_run(stores, ROOT, children=[A])
    await write_run(stores, A, end=RunStatus.COMPLETED)
    await write_run(stores, B, parent=ParentRun(ROOT, 1))
    adopted, unlinked = (await family_of(stores, B)).children
    assert (adopted.run_id, adopted.is_adopted, adopted.is_unlinked) == (A, True, False)
    assert (unlinked.run_id, unlinked.is_adopted, unlinked.is_unlinked) == (B, False, True)
    assert shape(await family_of(stores, A)) == A


async def test_circles_are_followed_once() -> None:
    """Whichever way they go, and if a run is its own child."""
    stores = Stores.in_memory()
    await write_run(stores, ROOT, parent=ParentRun(B, 2), children=[A, ROOT])
    await write_run(stores, A, parent=ParentRun(ROOT, 1), children=[B, A])
    await write_run(stores, B, parent=ParentRun(A, 2), children=[ROOT])
    root = await family_of(stores, ROOT)
    assert shape(root) == {A: [{B: [{ROOT: [A, ROOT]}]}, A]}
    repeated = [each.run_id for each in members(root) if each.stands_above]
    assert sorted(repeated) == sorted([A, ROOT, A])


async def test_a_family_may_be_deep() -> None:
    """Deeper than Python's stack."""
    stores = Stores.in_memory()
    ids = [ROOT]
    for depth in range(1500):
        ids.append(ids[-1].child("next"))
        parent = ParentRun(ids[-3], depth) if depth else None
        await write_run(stores, ids[-2], parent=parent, children=[ids[-1]])
    root = await family_of(stores, ids[700])
    assert [each.run_id for each in members(root)] == ids


class CountingStore(MemoryStore):
    """Knows whose histories were asked for."""

    def __init__(self) -> None:
        super().__init__(MemoryState(), SystemClock())
        self.read: list[RunId] = []

    async def read_engine_events(self, run_id: RunId, from_seq: int, limit: int) -> Any:
        self.read.append(run_id)
        return await super().read_engine_events(run_id, from_seq, limit)


async def test_what_has_not_changed_is_not_read_again() -> None:
    """A family of thousands can be followed; whoever goes on is seen to."""
    store = CountingStore()
    stores = Stores(store, store, store, store, mailbox=store, agenda=store)
    await three_generations(stores)
    reader = FamilyReader(stores, GRANDCHILD)
    await reader.read()
    assert sorted(store.read) == sorted([ROOT, A, B, C, GRANDCHILD])
    store.read.clear()
    await reader.read()
    assert store.read == []
    await stores.commit([], [Append(C, 3, [RunCompleted(RunStatus.CANCELLED)])])
    root = await reader.read()
    assert store.read == [C]
    assert root.children[2].standing.phase is RunPhase.CANCELLED


async def test_a_status_counts_children_and_names_the_parent() -> None:
    """Also those that are missing; what the parent has taken note of is not looked up."""
    stores, ended = Stores.in_memory(), ROOT.child("ended")
    await three_generations(stores)
    other = RunId.for_invocation("other")
    noted = DomainEvent(
        "child_run_completed", {"child_run_id": ended, "status": "Cancelled", "final_snapshot_id": None}
    )
    await write_run(stores, other, children=[A, B, C, RunId.random(), ended], after=[noted])
    status = await status_of(stores, other)
    assert status["children"] == {"Completed": 1, "Failed": 1, "Running": 1, "Missing": 1, "Cancelled": 1}
    assert (status["parent_run_id"], (await status_of(stores, A))["parent_run_id"]) == (None, ROOT)
    roots = await list_summaries(stores, labels={}, limit=10, roots=True)
    assert [each.run_id for each in roots] == [other, ROOT]
    assert await hearers_of(stores, (await read_view(stores, other)).children.values()) == 1
    assert await parent_of(stores, RunId.random()) is None


async def test_abandoned_children_hear_nothing() -> None:
    """Nor do those that have ended, though their parent does not know yet."""
    stores = Stores.in_memory()
    await write_run(stores, ROOT, children=[A], close="abandon")
    await write_run(stores, A, parent=ParentRun(ROOT, 1))
    assert await hearers_of(stores, (await read_view(stores, ROOT)).children.values()) == 0
    assert await phases_of(stores, [A], []) == {"Running": 1}
