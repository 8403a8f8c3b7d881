"""The one place from which a run's stream grows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence

from perdure.engine.history import RunView
from perdure.engine.ownership import HeldClaim
from perdure.errors import ConcurrencyError, StorageError
from perdure.failpoints import Failpoints
from perdure.ids import FactKey, RunId, StateId
from perdure.io.effects import Effect
from perdure.io.facts import Facts, fact_event
from perdure.io.journal import Entry
from perdure.io.patches import recorded_by
from perdure.io.waits import Inbox, Wait
from perdure.model.events import Event
from perdure.stores.bundle import Stores
from perdure.stores.ports import Append, Blob, Release
from perdure.stores.reading import read_engine_events
from perdure.stores.refusals import run_already_active
from perdure.stores.uninterrupted import uninterrupted

Observer = Callable[[RunId, Sequence[tuple[int, Event]]], None]
"""Called after every durable write with the run and its new events, each with its number."""


class _Waiting:
    """An entry that is to be written, and why it was not."""

    __slots__ = ("entry", "error")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.error: StorageError | None = None


class Turn:
    """A time in which one writes alone; ``flushes`` unless what it stages can wait for the next flush."""

    __slots__ = ("flushes",)

    def __init__(self) -> None:
        self.flushes = True


class RunWriter:
    """Stages events, makes them durable, and keeps the view in step.

    What is staged is in the view at once and in the store with the next flush. A failed flush leaves the
    view ahead of the store: the stint is over then. Facts are different: one that could not be recorded
    leaves no trace, and the handler may try again.
    """

    def __init__(
        self,
        stores: Stores,
        run_id: RunId,
        view: RunView,
        held: HeldClaim,
        failpoints: Failpoints,
        observer: Observer | None,
    ) -> None:
        self.view = view
        self.is_released = False
        """Whether the run was given up by the last durable write."""
        self._stores = stores
        self._run_id = run_id
        self._held = held
        self._failpoints = failpoints
        self._observer = observer
        self._staged: list[Event] = []
        self._staged_blobs: list[Blob] = []
        self._riding: dict[FactKey, tuple[Event, Blob]] = {}
        self._kept: list[Blob] = []
        self._staged_read: list[str] = []
        self._required: Sequence[Append] = ()
        self._lock = asyncio.Lock()
        self._waiting: dict[_Waiting, None] = {}
        self._news: asyncio.Event | None = None

    @property
    def facts(self) -> Facts:
        """The run's durable facts."""
        return self.view.facts

    @property
    def effects(self) -> Mapping[str, Effect]:
        """The run's effects, by key."""
        return self.view.effects

    @property
    def waits(self) -> Mapping[str, Wait]:
        """The run's waits that have not ended, by key."""
        return self.view.waits

    @property
    def inbox(self) -> Inbox:
        """The signals that have arrived."""
        return self.view.inbox

    def stage(self, events: Sequence[Event], blobs: Sequence[Blob] = (), read: Sequence[str] = ()) -> None:
        """Take ``events`` into the view, and keep them and ``blobs`` with the next flush.

        It takes the letters ``read`` away.
        """
        view = self.view
        for event in events:
            view.advance(event, view.head_seq + 1)
        self._staged += events
        if blobs:
            self._staged_blobs += blobs
        if read:
            self._staged_read += read

    def stage_riding(self) -> None:
        """Stage what rides along; called when the attempt ends, before its closing event."""
        if not self._riding and not self._kept:
            return
        riding, self._riding = self._riding.values(), {}
        self.stage([event for event, _ in riding], [*self._kept, *(blob for _, blob in riding)])
        self._kept = []

    def ride(self, key: FactKey, payload: Blob, request_id: str | None = None) -> Blob:
        """As ``Journal.ride``."""
        return self._riding.setdefault(key, (fact_event(key, payload.id, request_id), payload))[1]

    def keep(self, blob: Blob) -> None:
        """Keep ``blob`` with the next durable write."""
        self._kept.append(blob)

    async def record(self, key: FactKey, payload: Blob, request_id: str | None) -> None:
        """Bind ``key`` durably, with everything that rides along; raises as :meth:`add`."""
        await self.add(key, Entry([fact_event(key, payload.id, request_id)], [payload]))

    async def add(self, key: FactKey, entry: Entry) -> None:
        """As ``Journal.add``."""
        mine = _Waiting(entry)
        self._waiting[mine] = None
        try:
            async with self._lock:
                if mine in self._waiting:
                    await self._write_waiting()
        finally:
            self._waiting.pop(mine, None)
        error = mine.error
        if isinstance(error, ConcurrencyError):
            raise error
        if error is not None:
            raise _not_recorded(error, key) from error

    async def land(self) -> None:
        """As ``Journal.land``."""
        async with self._lock:
            if self._riding:
                try:
                    await self._write([])
                except ConcurrencyError:
                    raise
                except StorageError as error:
                    raise _not_recorded(error) from error

    async def append(self, make: Callable[[], Entry]) -> None:
        """As ``Journal.append``."""
        async with self._lock:
            entry = make()
            if any(entry):
                await self._write([_Waiting(entry)])

    async def recorded_by(self, state_id: StateId) -> Collection[str]:
        """As ``Journal.recorded_by``."""
        attempt = self.view.open_attempts[state_id]
        # Only the first attempt has no other before it.
        from_seq = 1 if attempt.attempt else attempt.entered_seq
        events = await read_engine_events(self._stores.events, self._run_id, from_seq)
        return recorded_by(events, state_id, attempt.attempt)

    async def _write_waiting(self) -> None:
        """Write all entries that wait, in one commit; if it is refused, each in its own."""
        batch = list(self._waiting)
        try:
            await self._write(batch)
        except StorageError as error:
            if len(batch) > 1 and isinstance(error, ConcurrencyError):
                for each in batch:
                    try:
                        await self._write([each])
                    except StorageError as alone:
                        self._refuse([each], alone)
            else:
                self._refuse(batch, error)

    def _refuse(self, batch: Sequence[_Waiting], error: StorageError) -> None:
        for each in batch:
            each.error = error
            self._waiting.pop(each, None)

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        """Write entries and what rides along; the caller has the lock."""
        carried, kept = list(self._riding), len(self._kept)
        new = [event for event, _ in self._riding.values()]
        blobs = [*self._kept, *(blob for _, blob in self._riding.values())]
        read: list[str] = []
        begun: list[Append] = []
        for each in batch:
            new += each.entry.events
            blobs += each.entry.blobs
            read += each.entry.read
            begun += each.entry.begun
        head = self.view.head_seq

        def landed() -> None:
            # Not after the commit: whoever made it may have been cancelled meanwhile.
            for each in batch:
                self._waiting.pop(each, None)
            for key in carried:
                del self._riding[key]
            del self._kept[:kept]
            for seq, event in enumerate(new, head + 1):
                self.view.advance(event, seq)
            self._tell()

        await self._commit(head, new, blobs, read, landed, begun=begun)

    @property
    def is_writing(self) -> bool:
        """Whether something is being written."""
        return self._lock.locked()

    async def quiet(self) -> None:
        """Wait until nothing is being written."""
        async with self._lock:
            pass

    async def news(self) -> None:
        """Wait until the run's history has grown."""
        if self._news is None:
            self._news = asyncio.Event()
        await self._news.wait()

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None

    def require(self, streams: Sequence[Append]) -> None:
        """Have the next flush refused (``event_store_concurrency``) unless streams end where these say."""
        self._required = streams

    async def flush(self, *, release: Release | None = None, begun: Sequence[Append] = ()) -> None:
        """Make everything staged durable, in one commit; with ``release`` the run is given up in it.

        ``begun`` are the first events of other runs.
        """
        # By hand: for each state of each run, entering a context takes two coroutines more.
        await self._lock.acquire()
        try:
            if self._staged or self._staged_read or release is not None:
                await self._commit_staged(release, begun)
        finally:
            self._lock.release()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """While it is entered nobody else writes; what is staged in it is durable when it is left.

        Where handlers run, events may be staged in a turn alone: those of others would get their numbers.
        """
        async with self._lock:
            turn = Turn()
            yield turn
            if turn.flushes:
                if self._staged or self._staged_read:
                    await self._commit_staged(None)
                self._tell()

    def _commit_staged(self, release: Release | None, begun: Sequence[Append] = ()) -> Awaitable[None]:
        if self._required:
            begun, self._required = (*self._required, *begun), ()
        staged, self._staged = self._staged, []
        blobs: Sequence[Blob] = ()
        if self._staged_blobs:
            blobs, self._staged_blobs = self._staged_blobs, []
        read: Sequence[str] = ()
        if self._staged_read:
            read, self._staged_read = self._staged_read, []
        head = self.view.head_seq - len(staged)
        return self._commit(head, staged, blobs, read, release=release, begun=begun)

    def check_may_call(self) -> None:
        """Raise ``ConcurrencyError`` when the run may no longer be ours."""
        self._held.check()

    async def _commit(
        self,
        head: int,
        events: Sequence[Event],
        blobs: Sequence[Blob],
        read: Sequence[str],
        landed: Callable[[], None] | None = None,
        *,
        release: Release | None = None,
        begun: Sequence[Append] = (),
    ) -> None:
        self._failpoints.hit("commit.before")
        # Where a commit is no transaction, a child without a link is better than a link without a child.
        appends = [*begun, Append(self._run_id, head, events)] if events else []
        try:
            await self._stores.commit(blobs, appends, self._held.claim, release=release, read=read)
        except ConcurrencyError as error:
            if error.code == "claim_lost" and not self._held.durable:
                # Nothing was had that could be lost: somebody else found the run free too, and was first.
                raise run_already_active(self._run_id) from error
            raise
        except StorageError:
            if not await self._has_landed(head, events):
                raise
        except asyncio.CancelledError:
            # A handler may be stopped while its fact is written; the stint goes on with what is there.
            with contextlib.suppress(StorageError):
                await uninterrupted(self._look_what_landed(head, events, landed, release, begun))
            raise
        self._held.durable = True
        self._held.given_up = release is not None
        self._failpoints.hit("commit.after")
        self.is_released = release is not None
        if landed is not None:
            landed()
        if self._observer is not None:
            self._observe_all(head, events, begun)

    async def _look_what_landed(
        self,
        head: int,
        events: Sequence[Event],
        landed: Callable[[], None] | None,
        release: Release | None,
        begun: Sequence[Append],
    ) -> None:
        if await self._has_landed(head, events):
            self.is_released = release is not None
            if landed is not None:
                landed()
            self._observe_all(head, events, begun)

    def _observe_all(self, head: int, events: Sequence[Event], begun: Sequence[Append]) -> None:
        self._observe(self._run_id, head, events)
        for each in begun:
            self._observe(each.run_id, 0, each.events)

    def _observe(self, run_id: RunId, head: int, events: Sequence[Event]) -> None:
        if self._observer is not None and events:
            try:
                self._observer(run_id, list(enumerate(events, head + 1)))
            except Exception:
                logging.getLogger("perdure").exception("an observer of run %s failed", run_id)

    async def _has_landed(self, head: int, events: Sequence[Event]) -> bool:
        """Whether a commit whose end was not seen was kept: its outcome is unknown until one looks."""
        if await self._stores.events.head_seq(self._run_id) != head + len(events) or not events:
            return False
        stored = await self._stores.events.read_range(self._run_id, head + 1)
        return [envelope.event for envelope in stored] == list(events)


def _not_recorded(error: StorageError, key: str | None = None) -> StorageError:
    return StorageError.of(
        "fact_not_recorded",
        f"the store could not keep {'facts' if key is None else 'a fact'}: {error.code}",
        retryable=True,
        details=None if key is None else {"key": str(key)},
        hint=error.hint,
    )
