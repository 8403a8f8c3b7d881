"""Families of runs: a run, whoever spawned it, and all that were spawned in turn, as a tree.

A child knows its parent from its first event, a parent its children from its links. Either may be missing
or wrong: stores are damaged, copied in part, and written by others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import msgspec

from perdure.engine.history import fold
from perdure.errors import CorruptionError, Json, PerdureError
from perdure.ids import ArtifactId, RunId
from perdure.io.children import Child, ClosePolicy
from perdure.model.events import ParentRun, RunPhase
from perdure.sdk.legs import chain_of, first_leg, leg_number
from perdure.sdk.pending import due_millis_of, waits_of
from perdure.sdk.refusals import run_failure
from perdure.stores.bundle import Stores
from perdure.stores.reading import read_bytes, read_engine_events
from perdure.stores.refusals import run_not_found

_BATCH = 200
"""How many runs are asked for at once."""


class Standing(msgspec.Struct, frozen=True):
    """How one run stands, by its newest leg, ``run_id``, if it goes on as others.

    ``error`` is the code for which its history cannot be read, ``chain`` the first leg of its chain.
    ``failure`` is the code of the error that ended it. Moments are milliseconds since 1970-01-01 UTC; waits
    are as ``waits_of`` gives them.
    """

    phase: RunPhase | None
    op_id: str | None = None
    op_version: str | None = None
    parent: ParentRun | None = None
    children: tuple[Child, ...] = ()
    waiting_for: str | None = None
    due_millis: int | None = None
    waits: Sequence[Json] = ()
    started_millis: int | None = None
    ended_millis: int | None = None
    failure: str | None = None
    error: str | None = None
    head_seq: int = 0
    run_id: RunId | None = None
    leg: int = 1
    chain: RunId | None = None


class Member(msgspec.Struct):
    """A run in its family. ``close_policy`` is None where no parent says it.

    One that is ``adopted`` was begun by somebody else, one that is ``unlinked`` is not known to the parent
    that it names, and one that ``stands_above`` is a child of two: its children are shown once.
    """

    run_id: RunId
    standing: Standing
    depth: int
    parent_run_id: RunId | None = None
    close_policy: ClosePolicy | None = None
    is_adopted: bool = False
    is_unlinked: bool = False
    stands_above: bool = False
    children: list[Member] = []

    def to_json(self) -> dict[str, Json]:
        """The fields by name, but for ``children``; the phase by its wire name; ``leg`` if it is not 1."""
        leg: dict[str, Json] = {} if self.standing.leg == 1 else {"leg": self.standing.leg}
        return leg | {
            "run_id": self.run_id,
            "op_id": self.standing.op_id,
            "op_version": self.standing.op_version,
            "phase": None if self.standing.phase is None else self.standing.phase.value,
            "parent_run_id": self.parent_run_id,
            "depth": self.depth,
            "close_policy": None if self.close_policy is None else self.close_policy.value,
            "waiting_for": self.standing.waiting_for,
            "error": self.standing.error,
        }


def members(root: Member) -> Iterator[Member]:
    """All members, each after its parent and before its younger siblings; families may be very deep."""
    left = [root]
    while left:
        member = left.pop()
        yield member
        left.extend(reversed(member.children))


class FamilyReader:
    """Reads the family of one run, again and again: what has ended is read once."""

    def __init__(self, stores: Stores, run_id: RunId) -> None:
        self._stores = stores
        self._run_id = run_id
        self._known: dict[RunId, Standing] = {}

    async def read(self) -> Member:
        """The oldest ancestor that is known of, with all that descend from it.

        Raises ``NotFoundError`` (``run_not_found``) for a run that nobody began.
        """
        root, heirs = await self._climb()
        placed, level = {root.run_id}, [root]
        while level:
            level = await self._descend(level, heirs, placed)
        return root

    async def _climb(self) -> tuple[Member, dict[RunId, RunId]]:
        """The root, and for each ancestor the child through which it was found."""
        run_id, heirs = self._run_id, dict[RunId, RunId]()
        standing = await self._standing(run_id)
        run_id = standing.run_id or run_id
        if not standing.head_seq and standing.error == "run_not_found":
            raise run_not_found(run_id)
        depth, passed = 0, {run_id}
        while (parent := standing.parent) is not None and parent.run_id not in passed:
            child_id, depth = standing.chain or run_id, max(0, parent.depth - 1)
            passed.add(parent.run_id)
            standing = await self._standing(parent.run_id)
            run_id = standing.run_id or parent.run_id
            heirs[run_id] = child_id
        return Member(run_id, standing, depth if standing.parent is None else standing.parent.depth), heirs

    async def _descend(
        self, level: Sequence[Member], heirs: dict[RunId, RunId], placed: set[RunId]
    ) -> list[Member]:
        """Give all of one level their children; those of them that may have children in turn."""
        links = [
            (parent, child_id, policy)
            for parent in level
            for child_id, policy in _links(parent, heirs.get(parent.run_id))
        ]
        new = list(dict.fromkeys(child_id for _, child_id, _ in links if child_id not in placed))
        for start in range(0, len(new), _BATCH):
            await asyncio.gather(*map(self._standing, new[start : start + _BATCH]))
        below = []
        for parent, child_id, policy in links:
            standing = self._known[child_id]
            child = Member(
                standing.run_id or child_id,
                standing,
                parent.depth + 1,
                parent.run_id,
                policy,
                is_adopted=standing.phase is not None and not await self._is_named(parent, standing.parent),
                is_unlinked=policy is None and parent.standing.phase is not None,
                stands_above=child_id in placed,
            )
            parent.children.append(child)
            if child_id not in placed:
                placed.add(child_id)
                below.append(child)
        return below

    async def _is_named(self, parent: Member, named: ParentRun | None) -> bool:
        """Whether a child names ``parent``, or a run that goes on as that."""
        if named is None or named.run_id in (parent.run_id, parent.standing.chain):
            return named is not None
        return parent.standing.leg > 1 and await chain_of(self._stores, named.run_id) == parent.standing.chain

    async def _standing(self, run_id: RunId) -> Standing:
        known = self._known.get(run_id)
        if known is not None and known.phase not in (RunPhase.RUNNING, None):
            return known
        try:
            newest = run_id if known is None else known.run_id or run_id
            if known is None or await self._stores.events.head_seq(newest) != known.head_seq:
                known = await _read_standing(self._stores, run_id)
        except PerdureError as error:
            known = Standing(None, error=error.code)
        self._known[run_id] = known
        return known


def _links(parent: Member, heir: RunId | None) -> Iterator[tuple[RunId, ClosePolicy | None]]:
    """The children that a parent names, and the one that names it without being named."""
    for child in parent.standing.children:
        yield child.run_id, child.close_policy
    if heir is not None and all(child.run_id != heir for child in parent.standing.children):
        yield heir, None


class _Version(msgspec.Struct):
    op_version: str


async def _read_standing(stores: Stores, run_id: RunId) -> Standing:
    # Asked first: what is appended while the events are read makes them be read again.
    head = await stores.events.head_seq(run_id)
    events = await read_engine_events(stores.events, run_id)
    if not events:
        raise run_not_found(run_id)
    view = fold(events)
    if view.started is None:
        raise CorruptionError.of("missing_run_started", "the history has no RunStarted event")
    if view.continued_as is not None and (newest := await stores.newest_leg(run_id)) != run_id:
        return await _read_standing(stores, newest)
    failure = None
    if view.phase is RunPhase.FAILED:
        failure = run_failure(run_id, view).info.details["code"]
    return Standing(
        view.phase,
        view.started.op_id,
        await _version(stores, view.started.manifest_id),
        view.started.parent,
        tuple(view.children.values()),
        view.waiting_for,
        due_millis_of(view),
        waits_of(view),
        view.started_millis,
        None if view.ended is None else events[-1].ts_millis,
        failure,
        head_seq=head,
        run_id=run_id,
        leg=leg_number(view),
        chain=first_leg(view, run_id),
    )


async def _version(stores: Stores, manifest_id: ArtifactId) -> str | None:
    """The version in a manifest; of thousands of manifests nothing else is looked at."""
    try:
        return msgspec.json.decode(await read_bytes(stores.artifacts, manifest_id), type=_Version).op_version
    except (PerdureError, msgspec.DecodeError, UnicodeDecodeError):
        return None
