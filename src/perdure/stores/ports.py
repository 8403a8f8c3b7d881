"""What a store promises. Engines and wrappers rely on nothing else.

Stores take any bytes and any event: canonical form, secrets and the shape of facts are the engine's to
check, since a store must also hold what other engines, and attackers, wrote.
"""

from __future__ import annotations

import builtins
from collections.abc import Collection, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import msgspec

from perdure.canonical import artifact_id_for_bytes
from perdure.errors import Json
from perdure.ids import ArtifactId, RunId
from perdure.model.context import Snapshot
from perdure.model.events import ArtifactKind, Event, EventEnvelope
from perdure.model.rope import WHOLE_BYTES_MAX, Rope


class Blob:
    """Bytes to be kept, with the id that they must get."""

    def __init__(self, kind: ArtifactKind, data: bytes, artifact_id: ArtifactId | None = None) -> None:
        self.kind = kind
        self.data = data
        if artifact_id is not None:
            self.id = artifact_id

    @cached_property
    def id(self) -> ArtifactId:
        """The SHA-256 of the bytes; given where it is known already."""
        return artifact_id_for_bytes(self.data)

    @property
    def size(self) -> int:
        """The length of the whole, in bytes."""
        return len(self.data)


class RopeBlob(Blob):
    """A large artifact as a tree of parts. A store that knows nothing of ropes keeps its ``data``."""

    def __init__(self, kind: ArtifactKind, rope: Rope) -> None:
        self.kind = kind
        self.rope = rope

    @cached_property
    def data(self) -> bytes:  # type: ignore[override]  # made when it is asked for
        """The whole."""
        return self.rope.data

    @cached_property
    def id(self) -> ArtifactId:
        """The SHA-256 of the whole."""
        return self.rope.id


def snapshot_blob(snapshot: Snapshot) -> Blob:
    """A context as what is to be kept of it."""
    if snapshot.size > WHOLE_BYTES_MAX and (rope := snapshot.rope) is not None:
        return RopeBlob(ArtifactKind.CONTEXT_SNAPSHOT, rope)
    return Blob(ArtifactKind.CONTEXT_SNAPSHOT, snapshot.data, snapshot.id)


class RecipeBlob(Blob):
    """What is kept in place of a whole, under the whole's id."""

    def __init__(self, kind: ArtifactKind, artifact_id: ArtifactId, recipe: bytes, size: int) -> None:
        super().__init__(kind, recipe, artifact_id)
        self._size = size

    @property
    def size(self) -> int:
        """The length of the whole, in bytes."""
        return self._size


class Row(NamedTuple):
    """An artifact as it is kept: a whole, or the recipe of one."""

    is_recipe: bool
    data: bytes


class Append(NamedTuple):
    """Events to be added to a run's stream, if its head is still ``expected_seq``."""

    run_id: RunId
    expected_seq: int
    events: Sequence[Event]


class Committed(NamedTuple):
    """What a commit did: each artifact's id and each stream's new head, in the order asked for."""

    artifact_ids: list[ArtifactId]
    heads: list[int]


class Claim(msgspec.Struct, frozen=True):
    """The right to append to a run. Every owner after the first has a higher ``epoch``."""

    run_id: RunId
    owner: str
    epoch: int


class Release(NamedTuple):
    """That a run is given up, and when somebody is to take it up again.

    ``due_millis`` is the moment, by the clock of ``ts_millis``; 0 is at once, None not before something else
    makes it due. That is a letter, or the end of one of the runs that it ``awaits``; one that is not known
    may begin and end later.

    ``heir`` is the claim, as it was reserved, of the run as which this one goes on: it becomes durable in the
    same commit.
    """

    due_millis: int | None = 0
    awaits: tuple[RunId, ...] = ()
    heir: Claim | None = None


class Letter(msgspec.Struct, frozen=True):
    """What an outsider wants a run to know.

    ``id`` is unique in the run; ``body`` is JSON data; ``sent_millis`` is the store's time.
    """

    id: str
    body: Any
    sent_millis: int


class ScheduleRow(msgspec.Struct, frozen=True):
    """A schedule as a store keeps it: ``body`` is JSON data, of which the store knows nothing.

    It is due at ``due_millis``, None for never, by the clock of ``ts_millis``; and when the run that it
    ``awaits`` has ended or is not there any more. ``revision`` is 1 at first, and one more with every change.
    """

    id: str
    body: Any
    due_millis: int | None = None
    awaits: RunId | None = None
    revision: int = 1


class EventStore(Protocol):
    """Append-only streams of events, one a run, numbered from 1 without gaps."""

    async def head_seq(self, run_id: RunId) -> int:
        """The number of the last event, 0 for an unknown run."""

    async def append(
        self, run_id: RunId, expected_seq: int, events: Sequence[Event], claim: Claim | None = None
    ) -> int:
        """Add ``events`` and return the new head; all of them, durably, or none.

        A head other than ``expected_seq`` is a ``ConcurrencyError`` (``event_store_concurrency``); a
        claim that another owner has taken over is one too (``claim_lost``). Both change nothing. The
        store numbers the events and stamps ``ts_millis``.
        """

    async def read_range(
        self, run_id: RunId, from_seq: int, to_seq: int | None = None
    ) -> list[EventEnvelope]:
        """The events from ``from_seq`` to ``to_seq``, both included; none for an unknown run."""

    async def read_engine_events(self, run_id: RunId, from_seq: int, limit: int) -> list[EventEnvelope]:
        """The first ``limit`` kernel and engine events from ``from_seq`` on: what recovery reads."""

    async def list_runs(
        self, after: RunId | None = None, limit: int = 100, *, unfinished: bool = False
    ) -> list[RunId]:
        """Runs, the one begun last first, at most ``limit``.

        ``after`` is the last run of the page before; none follow one that is not known. ``unfinished``
        leaves out runs whose stream holds ``RunCompleted``.
        """


@runtime_checkable
class KnowsLegs(Protocol):
    """What an event store offers that follows a chain of runs without reading its legs."""

    async def newest_leg(self, run_id: RunId) -> RunId:
        """The run as which an ended one goes on in the end, by what first events say; itself if as none.

        One indexed read, however long the chain is.
        """


class ArtifactStore(Protocol):
    """Immutable bytes, named by their SHA-256."""

    async def put(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        """Keep ``data`` durably. Putting what is there already is fine and renews it."""

    async def get(self, artifact_id: ArtifactId) -> bytes:
        """The bytes, verified.

        ``NotFoundError`` (``artifact_not_found``), or ``CorruptionError`` (``artifact_corruption``) when
        what is stored does not have this id.
        """

    async def exists(self, artifact_id: ArtifactId) -> bool:
        """Whether the artifact is kept here."""


class ArtifactRows(Protocol):
    """What a store offers that keeps recipes; its ``commit`` keeps each ``RecipeBlob`` under its id."""

    async def rows(self, artifact_ids: Sequence[ArtifactId]) -> dict[ArtifactId, Row]:
        """What is kept under these ids, unverified; what is not there is left out."""


class ClaimStore(Protocol):
    """Who may append to a run.

    ``acquire`` reserves the run for this process at once, and the claim becomes durable with the first
    commit that carries it; ``commit(…, release=Release())`` gives it up in the same transaction as the last
    events. A local owner also holds a lock of the operating system, so that a killed process's runs are
    free at once; ``ttl`` is for owners on other machines.
    """

    async def acquire(self, run_id: RunId, owner: str, ttl: timedelta) -> Claim:
        """Reserve the run. ``ConcurrencyError`` (``run_already_active``) while a live owner has it."""

    def renew(self, claims: Sequence[Claim], ttl: timedelta) -> list[Claim]:
        """Prolong durable claims in one commit; returns those that were lost. Blocks; for a thread."""

    async def release(self, claim: Claim) -> None:
        """Give the run up. Nothing happens if another owner has it."""


class Mailbox(Protocol):
    """Letters to runs. Outsiders post them; who owns the run reads them, and its commit takes them away."""

    async def post(self, run_id: RunId, letter_id: str, body: Json) -> bool:
        """Keep a letter, durably, and make the run due at once. False if one of this id waits already.

        A letter to a run that goes on as another is one to the newest of them. ``NotFoundError``
        (``run_not_found``) for a run without events, ``ConcurrencyError`` (``run_already_terminal``) for one
        that has ended.
        """

    async def unread(self, run_id: RunId) -> list[Letter]:
        """The letters that nobody has taken away, in the order in which they were posted."""

    async def addressed(self, run_ids: Collection[RunId]) -> set[RunId]:
        """Which of these runs have unread letters. One indexed read."""


class Agenda(Protocol):
    """Which runs nobody drives though they have not ended, and when they are due."""

    async def due_runs(
        self, limit: int, *, within_millis: int = 0, among: Collection[RunId] | None = None
    ) -> list[RunId]:
        """Unfinished runs that have no live owner and are due now, or so soon; those longest due first.

        A run whose owner died is due at once. With ``among`` only these runs are looked at. One indexed read.
        """

    async def next_due_millis(self) -> int | None:
        """When the next unfinished run without an owner is due; None if none ever is. One indexed read."""


class Schedules(Protocol):
    """What is to be started when. Who changes a schedule says which revision has been looked at."""

    async def create(self, row: ScheduleRow) -> ScheduleRow:
        """Keep a schedule, durably, as its first revision.

        ``ConcurrencyError`` (``schedule_exists``) if there is one of this id.
        """

    async def get(self, schedule_id: str) -> ScheduleRow:
        """The schedule; ``NotFoundError`` (``schedule_not_found``), ``CorruptionError`` for a damaged one."""

    async def list(self, after: str | None = None, limit: int = 100) -> list[str]:
        """Ids in the order of their code points, at most ``limit``; those behind ``after``."""

    async def update(self, row: ScheduleRow) -> ScheduleRow:
        """Put ``row`` in the place of its revision, durably; returns it with the next revision.

        ``ConcurrencyError`` (``schedule_changed``) if the schedule has another revision by now or is gone;
        nothing is changed then.
        """

    async def delete(self, schedule_id: str) -> None:
        """Forget the schedule, durably; its runs are left as they are. ``NotFoundError`` as ``get``."""

    async def due(self, now_millis: int, limit: int) -> builtins.list[str]:
        """Ids of the schedules that are due, those longest due first. One indexed read.

        Those that await a run that has ended come last.
        """

    async def next_due_millis(self) -> int | None:
        """When the next schedule is due; None if none ever is. One indexed read.

        It is 0 if a schedule awaits a run that has ended.
        """


class Committer(Protocol):
    """Writes artifacts and events together."""

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        """Keep all of it durably, or none of it.

        Once begun it goes on to its end: a caller that is cancelled meanwhile is told so afterwards.
        One stale run refuses the whole commit. ``claim`` is checked for its own run. ``RunCompleted`` makes
        the runs due at once that await its run. If ``run_continued`` stands before it, and names a run that
        is there then, they await that one instead, and the letters that were not read are letters to it.

        With ``release`` the claim's run is given up; what it waited for before is forgotten. Whatever
        ``release`` says, it is due at once if letters are left unread or if one of the runs that it awaits
        has ended, and never once it has ended itself. ``read`` are the ids of letters of the claim's run
        that are taken away. Errors are those of ``append`` and ``put``.
        """
