"""The loop of a run whose states run side by side: a scheduler of one task an attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import msgspec

from perdure.engine.attempt import Completed, Failed
from perdure.engine.attempts import OpenAttempt
from perdure.engine.contexts import Contexts
from perdure.engine.decide import Merge, Pause, Run, Start, Step, Stop
from perdure.engine.executing import AttemptRun, Hands, Outcome
from perdure.engine.fan_out import Standing, decide_side_by_side, write_conflict
from perdure.engine.joins import Frontier, JoinGraph
from perdure.engine.legs import continued_beside
from perdure.engine.letters import LetterWatch, receive
from perdure.engine.loop import Stint
from perdure.engine.starting import Beginning
from perdure.ids import RunId, StateId
from perdure.io.scope import Stopped
from perdure.model.context import Snapshot
from perdure.model.events import StateCompleted, StateEntered
from perdure.stores.ports import snapshot_blob

CHILD_POLL_SECONDS = 1.0
"""How often it is looked whether a child has ended that others drive, while other attempts run."""


class _Side:
    """One attempt under way, in a task of its own."""

    def __init__(self, attempt: OpenAttempt, base: Snapshot, *, ran_before: bool) -> None:
        self.attempt = attempt
        self.base = base
        self.run: AttemptRun | None = None
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        """What ends the stint."""
        self.task: asyncio.Task[None]
        self._ran_before = ran_before
        self._stopped: Stopped | None = None
        self._fatal: BaseException | None = None

    def begin(self, hands: Hands, note: Callable[[_Side], None]) -> None:
        """Run the handler, and say when it has ended."""
        name = f"perdure-attempt-{self.attempt.state_id}"
        self.task = asyncio.create_task(self._execute(hands), name=name)
        self.task.add_done_callback(lambda _: note(self))

    async def _execute(self, hands: Hands) -> None:
        try:
            self.run = AttemptRun(
                hands, self.attempt, self.base, asyncio.current_task(), ran_before=self._ran_before
            )
            self.run.scope.fatal = self._fatal
            if self._stopped is not None:
                self.run.scope.stop(self._stopped)
            self.outcome = await self.run.outcome()
        except BaseException as error:  # noqa: BLE001 — the scheduler raises it, for all attempts
            self.error = error

    def stop(self, why: Stopped, fatal: BaseException | None = None) -> None:
        """Stop the handler, also one that is only about to begin."""
        self._stopped, self._fatal = why, fatal
        if self.run is not None:
            self.run.scope.fatal = fatal or self.run.scope.fatal
            self.run.scope.stop(why)


class SideBySide(Stint):
    """One owner's work on a run whose states run side by side."""

    def __init__(self, hands: Hands, letters: LetterWatch) -> None:
        super().__init__(hands, letters)
        assert hands.plan.joins is not None, "its states run one at a time"
        self._graph: JoinGraph = hands.plan.joins
        self._contexts = Contexts(self._graph, self._view, hands.read_snapshot)
        self._frontier = Frontier(self._graph)
        self._sides: dict[StateId, _Side] = {}
        self._ended: list[_Side] = []
        self._has_kept_mail = False
        self._watched: tuple[RunId, ...] = ()
        self._watcher: asyncio.Task[None] | None = None

    def begin(self, beginning: Beginning) -> None:
        super().begin(beginning)
        if beginning.events:  # those of a fork tell of states
            self._contexts = Contexts(self._graph, self._view, self._hands.read_snapshot)
        self._contexts.know(beginning.snapshot)

    def know(self, snapshot: Snapshot) -> None:
        self._contexts.know(snapshot)

    async def take_steps(self, *, runs_handlers: bool) -> None:
        try:
            while not await self._turn(runs_handlers):
                pass
        except BaseException as error:
            await self._stop_all(error)
            raise
        finally:
            self._watch(())

    async def _turn(self, runs_handlers: bool) -> bool:
        """Close what has ended, begin what can begin, and wait; whether that was all."""
        if self._has_mail:
            await self._hear_all()
        if self._children.has_news:
            await self._writer.flush()
            await self._children.pass_down()
        if await self._go_on_as_new():
            return True
        starting: list[_Side] = []
        async with self._writer.turn() as turn:
            await self._close_ended()
            step = await self._decide(starting, runs_handlers=runs_handlers)
            # Where nothing runs nobody else writes, and what follows flushes with more.
            turn.flushes = bool(starting or self._sides)
        if turn.flushes:
            self._contexts.let_go()
        for side in starting:
            self._sides[side.attempt.state_id] = side
            side.begin(self._hands, self._note)
        if isinstance(step.then, Stop):
            await self._end(step)
            return True
        if not isinstance(step.then, Pause):  # there is something to run, which is not done here
            await self.leave()
            return True
        if self._sides:
            await self._until_news(step.then)
            return False
        return await self._pause(step.then, runs_handlers=runs_handlers)

    async def _go_on_as_new(self) -> bool:
        """Whether the run has gone on as a new one, because a state that has ended wants it to."""
        for side in self._ended:
            outcome, run = side.outcome, side.run
            if run is None or not isinstance(outcome, Completed) or outcome.continuation is None:
                continue
            # What cleans up runs alone, in a run that is told to stop.
            others = [] if self._view.cancel is not None else self._graph.unordered(side.attempt.state_id)
            if others:
                side.outcome = Failed(continued_beside(side.attempt.state_id, others), None, timedelta())
                continue
            run.stage_emitted()
            left = await self.legs.go_on(side.attempt, outcome, outcome.continuation)
            if left is None:
                self._ended.remove(side)
                del self._sides[side.attempt.state_id]
                return self.legs.next is not None
            side.outcome = (
                msgspec.structs.replace(left, continuation=None) if isinstance(left, Completed) else left
            )
        return False

    async def _decide(self, starting: list[_Side], *, runs_handlers: bool) -> Step:
        """Stage steps, and gather what they start; the first step that is not staged, or a pause."""
        view = self._view
        while True:
            standing = Standing(
                {*self._sides, *(each.attempt.state_id for each in starting)},
                self._ends,
                self._contexts.merged,
                self._frontier.advance(view.completed),
                self._contexts.altered,
            )
            step = decide_side_by_side(view, self._plan, self._config, self._clock.now_millis(), standing)
            then = step.then
            if isinstance(then, Merge):
                for tips in then.tips:
                    await self._contexts.merge(tips, view.completed)
                for state_id in then.altered:
                    await self._contexts.alter(state_id, view.completed)
                continue
            is_to_run = isinstance(then, (Run, Start))
            if isinstance(then, Stop) or (is_to_run and not runs_handlers):
                return step
            entered = {each.state_id for each in step.events if isinstance(each, StateEntered)}
            first = [state_id for state_id in entered if state_id not in view.states]
            self._writer.stage(step.events, step.blobs)
            run = (then.attempt.state_id,) if isinstance(then, Run) else ()
            for state_id in then.state_ids if isinstance(then, Start) else run:
                attempt = view.open_attempts[state_id]
                base = await self._contexts.base(state_id, attempt.base_snapshot_id)
                starting.append(_Side(attempt, base, ran_before=state_id not in entered))
            for each in step.events:
                if isinstance(each, StateCompleted):  # it is skipped
                    base = await self._contexts.base(each.state_id, each.context_snapshot_id)
                    self._contexts.complete(each.state_id, base, base)
            self._contexts.enter(first)
            if isinstance(then, Pause):
                return step

    async def _close_ended(self) -> None:
        """Stage what the attempts came to that have ended."""
        ended, self._ended = self._ended, []
        for side in ended:
            if side.error is not None:
                raise side.error
        self._has_mail = self._has_mail or (self._has_kept_mail and bool(ended))
        for side in ended:
            del self._sides[side.attempt.state_id]
            assert side.run is not None, "it has an outcome"
            assert side.outcome is not None, "it has no error"
            if not await self._contradicts(side, side.outcome):
                side.run.stage(side.outcome)

    async def _contradicts(self, side: _Side, outcome: Outcome) -> bool:
        """Take note of what a state has come to; whether it ends the run with a contradiction instead."""
        if not isinstance(outcome, Completed):
            return False
        state_id, result = side.attempt.state_id, outcome.snapshot
        self._contexts.complete(state_id, side.base, result)
        self._frontier.advance(self._view.completed)
        if self._frontier.left != 1 or state_id not in self._graph.index:
            return False
        completed = {**self._view.completed, state_id: result.id}
        tips = self._graph.tips_of(completed)
        conflict = (await self._contexts.merge(tips, completed)).conflict if len(tips) > 1 else None
        if conflict is None or side.run is None:
            return False
        self._contexts.forget(state_id)
        side.run.stage_emitted()
        blobs = () if result is side.base else (snapshot_blob(result),)
        self._writer.stage([write_conflict(state_id, conflict, result.id)], blobs)
        return True

    def _note(self, side: _Side) -> None:
        self._ended.append(side)
        self._wake()

    def _told_of_mail(self) -> None:
        self._has_mail = True
        self._wake()

    async def _hear_all(self) -> None:
        """Turn letters into events, and stop the handlers if that is what they ask for."""
        self._has_mail = self._has_kept_mail = False
        letters = await self._stores.mailbox.unread(self._run_id)
        if not letters:
            return
        async with self._writer.turn() as turn:
            heard = receive(self._view, letters, while_running=bool(self._sides))
            self._writer.stage(heard.events, heard.blobs, heard.read)
            turn.flushes = bool(self._sides)
        # What cannot be said yet is read again when another handler has ended.
        self._has_kept_mail = len(heard.read) < len(letters)
        for side in self._sides.values():
            if (why := self._stop_for(side.attempt.state_id)) is not None:
                side.stop(why)

    async def _until_news(self, pause: Pause) -> None:
        """Wait until an attempt has ended, or something comes that others wait for."""
        self._watch(pause.awaits)
        if not self._ended and not self._has_mail:
            if pause.until_millis is not None:
                await self._until_due_or_mail(pause.until_millis)
            else:
                self._mail = asyncio.get_running_loop().create_future()
                try:
                    await self._mail
                finally:
                    self._mail = None
        if self._watcher is not None and self._watcher.done():
            self._watcher.result()
            self._watch(())

    def _watch(self, run_ids: tuple[RunId, ...]) -> None:
        """Look after these runs while attempts run: others that are open wait for them."""
        if run_ids == self._watched:
            return
        if self._watcher is not None:
            self._watcher.cancel()
        self._watched, self._watcher = run_ids, None
        if run_ids:
            self._watcher = asyncio.create_task(self._look_for_ends(run_ids))
            self._watcher.add_done_callback(lambda _: self._wake())

    async def _look_for_ends(self, run_ids: tuple[RunId, ...]) -> None:
        await self._children.follow_many(run_ids, until_all=False)
        ends = await self._children.ends_of(run_ids)
        while not ends:
            await asyncio.sleep(CHILD_POLL_SECONDS)
            ends = await self._children.ends_of(run_ids)
        self._ends |= ends

    async def _stop_all(self, error: BaseException) -> None:
        """Have all handlers end: interrupted ones may clean up, those of a lost run can do nothing more."""
        is_interrupted = isinstance(error, (asyncio.CancelledError, KeyboardInterrupt))
        for side in self._sides.values():
            if is_interrupted:
                side.task.cancel()
            else:
                side.stop(Stopped.TERMINATED, error)
        pending = {side.task for side in self._sides.values()}
        while pending:
            try:
                _, pending = await asyncio.wait(pending)
            except asyncio.CancelledError:  # once is enough, and it is on its way
                pending = {task for task in pending if not task.done()}

    def _stage_emitted_of(self, attempt: OpenAttempt) -> None:
        self._writer.stage_riding()
        side = self._sides.get(attempt.state_id)
        if side is not None and side.run is not None:
            side.run.stage_emitted()
