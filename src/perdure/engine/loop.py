"""The one loop behind start and resume: decide, stage, flush, act."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from perdure.engine.attempt import Completed
from perdure.engine.attempts import ATTEMPT_INTERRUPTED, OpenAttempt
from perdure.engine.decide import Pause, Run, Step, Stop, decide, fail
from perdure.engine.executing import AttemptRun, Hands
from perdure.engine.legs import Legs
from perdure.engine.letters import LetterWatch, receive
from perdure.engine.starting import Beginning
from perdure.errors import ErrorCategory, ErrorInfo, StorageError
from perdure.failpoints import FailpointStop
from perdure.ids import RunId, StateId
from perdure.io.journal import Entry
from perdure.io.scope import AttemptScope, Stopped
from perdure.model.context import Snapshot
from perdure.model.events import RunCompleted
from perdure.stores.ports import Letter, Release


class Stint:
    """One owner's work on one run, from its claim to the end of the run or of the owner."""

    def __init__(self, hands: Hands, letters: LetterWatch) -> None:
        self._hands = hands
        self._children = hands.children
        self.legs: Legs = hands.legs
        self._ends: dict[RunId, RunCompleted | None] = {}
        self._stores = hands.world.stores
        self._run_id = hands.run_id
        self._writer = hands.writer
        self._view = hands.writer.view
        self._plan = hands.plan
        self._config = hands.config
        self._clock = hands.world.clock
        self._letters = letters
        self._park_after_millis = hands.world.park_after // timedelta(milliseconds=1)
        self._task: asyncio.Task[Any] | None = None
        self._mail: asyncio.Future[None] | None = None
        self._has_mail = False
        self._reading: asyncio.Task[None] | None = None
        self._scope: AttemptScope | None = None
        self.waiting: Pause | None = None
        """What the run waits for, once it is parked."""
        self._snapshot: Snapshot | None = None
        self._current: AttemptRun | None = None
        """The attempt that has more to say than is staged."""

    def begin(self, beginning: Beginning) -> None:
        """Stage the first events of a new run, and its context."""
        self._writer.require(beginning.requires)
        self._writer.stage((beginning.started, *beginning.events), beginning.blobs)
        self._snapshot = beginning.snapshot

    def know(self, snapshot: Snapshot) -> None:
        """Spare reading ``snapshot`` if it is where the run stands."""
        self._snapshot = snapshot

    async def leave(self) -> None:
        """Write what is staged and give the run up to whoever resumes it."""
        await self._writer.flush(release=Release())

    def take_up(self, *, runs_handlers: bool, has_mail: bool) -> None:
        """Have the current task drive the run, and told of letters to it."""
        self._has_mail = has_mail
        self._task = asyncio.current_task()
        self._children.runs_handlers = runs_handlers
        self._letters.watch(self._run_id, self._told_of_mail)

    def lay_down(self) -> None:
        """Be told of letters no more."""
        self._letters.leave(self._run_id)

    async def take_steps(self, *, runs_handlers: bool) -> None:
        """Drive the run until it ends or is parked; without ``runs_handlers`` only as far as those."""
        place = 0
        while True:
            if self._has_mail:
                self._has_mail = False
                letters = await self._stores.mailbox.unread(self._run_id)
                heard = receive(self._view, letters)
                self._writer.stage(heard.events, heard.blobs, heard.read)
                place = 0
            if self._children.has_news:
                await self._writer.flush()
                await self._children.pass_down()
            now = self._clock.now_millis()
            step = decide(self._view, self._plan, self._config, now, place, self._ends)
            place = step.place
            if isinstance(step.then, Run) and not runs_handlers:
                await self.leave()
                return
            if isinstance(step.then, Stop):
                await self._end(step)
                return
            self._writer.stage(step.events, step.blobs)
            if isinstance(step.then, Pause):
                if await self._pause(step.then, runs_handlers=runs_handlers):
                    return
            elif isinstance(step.then, Run):
                await self._writer.flush()
                await self._attempt(step.then.attempt)
                if self.legs.next is not None:
                    return

    async def _end(self, step: Step) -> None:
        """Write that the run has ended, and give it up."""
        if self._children.to_part_from:
            # They are not told of an end that a crash could take back.
            await self._writer.flush()
            await self._children.part()
        self._writer.stage(step.events, step.blobs)
        await self._writer.flush(release=Release())

    async def _pause(self, pause: Pause, *, runs_handlers: bool) -> bool:
        """Wait for what is near, or park the run; whether it is parked."""
        until = pause.until_millis
        if pause.awaits and await self._look_after(pause):
            return False
        if not runs_handlers or until is None or until - self._clock.now_millis() > self._park_after_millis:
            self.waiting = pause
            await self._writer.flush(release=Release(until, pause.awaits))
            return True
        await self._writer.flush()
        await self._until_due_or_mail(until)
        return False

    def _told_of_mail(self) -> None:
        self._has_mail = True
        if self._reading is None and self._scope is not None:
            self._reading = asyncio.create_task(self._hear(self._scope))
        self._wake()

    def _wake(self) -> None:
        """Have what waits for letters look again."""
        if self._mail is not None and not self._mail.done():
            self._mail.set_result(None)

    async def _hear(self, scope: AttemptScope) -> None:
        """Turn letters into events while a handler runs, and stop it if that is what they ask for."""
        self._has_mail = False
        try:
            letters = await self._stores.mailbox.unread(self._run_id)
            await self._writer.append(lambda: self._heard(letters))
            # First the handler, so that it spawns no more children that nobody would tell.
            if (why := self._stop_for(scope.state_id)) is not None:
                scope.stop(why)
            await self._children.pass_down()
        except (Exception, FailpointStop) as error:  # noqa: BLE001 — it ends the stint, where it is raised
            # Whatever the handler is doing, it may no longer act for the run.
            scope.fatal = error
            scope.stop(Stopped.TERMINATED)
        finally:
            self._reading = None

    def _stop_for(self, state_id: StateId) -> Stopped | None:
        """Why the handler of a state is to be stopped, if the run was told to end."""
        cancel = self._view.cancel
        if cancel is None:
            return None
        if cancel.terminates:
            return Stopped.TERMINATED
        return None if state_id in self._plan.cleanup_ids else Stopped.CANCELLED

    def _heard(self, letters: Sequence[Letter]) -> Entry:
        entry = receive(self._view, letters, while_running=True)
        # What cannot be said yet is read again when the handler has ended.
        self._has_mail = self._has_mail or len(entry.read) < len(letters)
        return entry

    async def _look_after(self, pause: Pause) -> bool:
        """Have the runs driven that are awaited; whether there is anything new to decide upon."""
        ends = await self._children.ends_of(pause.awaits)
        if not ends:
            await self._writer.flush()
            following = asyncio.ensure_future(
                self._children.follow_many(pause.awaits, until_all=pause.awaits_all)
            )
            await self._until_due_or_mail(pause.until_millis, following)
            if self._has_mail:
                return True
            ends = await self._children.ends_of(pause.awaits)
        self._ends |= ends
        return bool(ends)

    async def _until_due_or_mail(
        self, due_millis: int | None, other: asyncio.Future[bool] | None = None
    ) -> None:
        """Wait until a moment, or until a letter comes, or ``other`` is done, which ends with the waiting."""
        self._mail = asyncio.get_running_loop().create_future()
        waiting: list[asyncio.Future[Any]] = [self._mail]
        if due_millis is not None:
            waiting.append(asyncio.ensure_future(self._clock.sleep_until(due_millis)))
        if other is not None:
            waiting.append(other)
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._mail = None
            for each in waiting:
                each.cancel()

    async def _attempt(self, attempt: OpenAttempt) -> None:
        base = self._snapshot
        if base is None or base.id != attempt.base_snapshot_id:
            base = self._snapshot = await self._hands.read_snapshot(attempt.base_snapshot_id)
        ran_before = self._view.head_seq > attempt.entered_seq
        self._current = run = AttemptRun(self._hands, attempt, base, self._task, ran_before=ran_before)
        self._scope = run.scope
        try:
            outcome = await run.outcome()
        finally:
            self._scope = None
            if self._reading is not None:
                await asyncio.wait({self._reading})
            if self._writer.is_writing:
                await self._writer.quiet()
        if run.scope.fatal is not None:
            raise run.scope.fatal
        self._current = None
        if isinstance(outcome, Completed) and outcome.continuation is not None:
            run.stage_emitted()
            left = await self.legs.go_on(attempt, outcome, outcome.continuation)
            if left is None:
                return
            outcome = left
        run.stage(outcome)
        if isinstance(outcome, Completed):
            self._snapshot = outcome.snapshot

    async def interrupt(self) -> None:
        """Close what is open, so that the run can be resumed at once."""
        try:
            await self._close_attempts()
        except StorageError as error:
            # The attempt stays open, and is recovered as an orphan.
            logging.getLogger("perdure").warning("run %s: %s", self._run_id, error)

    async def _close_attempts(self) -> None:
        if self._writer.is_released:
            return
        for attempt in list(self._view.open_attempts.values()):
            self._stage_emitted_of(attempt)
            info = ErrorInfo(
                ATTEMPT_INTERRUPTED, ErrorCategory.UNKNOWN, True, "the run's owner was asked to stop"
            )
            now = self._clock.now_millis()
            policy = self._plan.retry_policy(attempt.state_id)
            self._writer.stage(fail(self._view, attempt, info, None, policy, now)[:1])
        await self.leave()

    def _stage_emitted_of(self, attempt: OpenAttempt) -> None:
        self._writer.stage_riding()
        if self._current is not None:
            self._current.stage_emitted()
            self._current = None
