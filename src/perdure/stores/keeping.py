"""What a store promises that can forget: which runs there are, and how they and what only they need go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import timedelta
from typing import NamedTuple, Protocol

import msgspec

from perdure.ids import ArtifactId, RunId
from perdure.model.events import RunStatus

SPARED = timedelta(hours=1)
"""What was put or renewed so lately is never swept: somebody may be about to refer to it."""


class RunTrace(msgspec.Struct, frozen=True, gc=False):
    """What a store knows of a run without reading its history; ids are those that its first event names.

    ``status`` is None for a run that has not ended, ``last_millis`` the time of its last event. One that
    ``is_owned`` has a live owner. ``may_replay`` is False if the manifest surely names no run to be replayed.
    Where the first event is no ``RunStarted``, what that would say is None.
    """

    run_id: RunId
    op_id: str | None
    parent: RunId | None
    manifest_id: ArtifactId | None
    status: RunStatus | None
    last_millis: int
    is_owned: bool
    may_replay: bool = False
    first_leg: RunId | None = None
    """The first run of the chain, for one as which another goes on."""


class Deleted(NamedTuple):
    """Runs that are no more, with the number of their events and of these events' bytes."""

    run_ids: list[RunId]
    events: int
    event_bytes: int


class Swept(NamedTuple):
    """Artifacts that are no more, and the bytes that they took. Parts of others count as artifacts do."""

    artifacts: int
    artifact_bytes: int


Tell = Callable[[str, int], None]
"""Called now and then in the course of long work with its stage, and how much of that is done."""


class Keeping(Protocol):
    """Forgets what nobody needs any more, beside writers of any process, who wait milliseconds at most.

    Whoever is killed meanwhile leaves what a later call takes away, and nothing that refers to what is not
    there. With ``is_dry`` nothing changes, and the answer says what would.
    """

    def traces(self) -> AsyncIterator[list[RunTrace]]:
        """All runs, the one begun last first, page by page. One that begins meanwhile may be missing."""

    async def delete(
        self, run_ids: Sequence[RunId], *, is_dry: bool = False, tell: Tell = lambda *_: None
    ) -> Deleted:
        """Forget runs, each at once and whole: stream, claim, letters, and what it awaits.

        One that has not ended, has a live owner, or is not known, is passed over. Its id is free again.
        """

    async def sweep(
        self, without: Collection[RunId] = (), *, is_dry: bool = False, tell: Tell = lambda *_: None
    ) -> Swept:
        """Take away the artifacts that no run, letter or schedule leads to, but those of the last hour.

        What an event, a letter, a schedule or an artifact names by its id in its text is led to, and so are
        the parts of recipes. With ``without`` these runs lead to nothing. ``CorruptionError``
        (``artifact_corruption``), before anything is taken away, if the parts of an artifact cannot be told.

        A writer may refer to an artifact that its own run leads to, or that it put, or renewed, within the
        hour before; to no other.
        """

    async def compact(self) -> None:
        """Give room that is free inside the store back to the disk. Writers wait until it is done."""
