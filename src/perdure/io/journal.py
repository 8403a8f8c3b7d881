"""Where an attempt's facts, effects and waits are kept: what IO needs of the engine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from perdure.ids import FactKey, StateId
from perdure.io.effects import Effect
from perdure.io.facts import Facts
from perdure.io.waits import Inbox, Wait
from perdure.model.events import Event
from perdure.stores.ports import Append, Blob


class Entry(NamedTuple):
    """What is written together: events, artifacts that they name, and the ids of letters they come from.

    ``begun`` are the first events of other runs.
    """

    events: Sequence[Event] = ()
    blobs: Sequence[Blob] = ()
    read: Sequence[str] = ()
    begun: Sequence[Append] = ()


class Journal(Protocol):
    """The history of the run that an attempt belongs to, and its only way to grow meanwhile."""

    @property
    def facts(self) -> Facts:
        """The run's durable facts."""

    @property
    def effects(self) -> Mapping[str, Effect]:
        """The run's effects, by key."""

    @property
    def waits(self) -> Mapping[str, Wait]:
        """The run's waits that have not ended, by key."""

    @property
    def inbox(self) -> Inbox:
        """The signals that have arrived."""

    async def record(self, key: FactKey, payload: Blob, request_id: str | None) -> None:
        """Bind ``key`` durably, together with what rides along. ``StorageError`` if it was not kept."""

    async def add(self, key: FactKey, entry: Entry) -> None:
        """Make ``entry``, which binds ``key``, durable, together with what rides along.

        Entries that are given at the same time share a commit; one that is refused fails alone. Raises
        ``StorageError``: ``fact_not_recorded``, retryable, if the store kept nothing; any other code means
        that the stint is over, unless what the entry begins was there.
        """

    async def append(self, make: Callable[[], Entry]) -> None:
        """Make durable what ``make`` gives, together with what rides along; nothing if it is empty.

        ``make`` is called when nothing else is being written, and sees the history as what it gives will
        follow it. What it raises is raised.
        """

    async def recorded_by(self, state_id: StateId) -> Collection[str]:
        """The keys of what is on record of a state that is being executed, as ``patches`` counts it."""

    async def news(self) -> None:
        """Wait until the history has grown."""

    def ride(self, key: FactKey, payload: Blob, request_id: str | None = None) -> Blob:
        """Bind ``key`` with the next durable write that must happen anyway; what it is bound to.

        That is another payload where one rides along already.
        """

    async def land(self) -> None:
        """Make durable what rides along. ``StorageError`` as :meth:`add`."""

    def keep(self, blob: Blob) -> None:
        """Keep ``blob`` with the next durable write."""

    def check_may_call(self) -> None:
        """Raise ``ConcurrencyError`` when the owner may no longer act for the run."""
