"""The children of one run: planned, driven, told what their parent is told, and asked how they ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial

from perdure.engine.decide import PlannedRun
from perdure.engine.dispatch import Dispatcher, is_driven_elsewhere
from perdure.engine.history import RunView
from perdure.engine.letters import AnyLetter, StopLetter, StopWord
from perdure.engine.prepared import Prepared, PreparedRuns
from perdure.engine.recovery import BLOCKED, PlanResolver, read_view, resolved_anew
from perdure.engine.requests import Request
from perdure.engine.results import RunResult
from perdure.errors import IoError, NotFoundError, PerdureError
from perdure.ids import ArtifactId, RunId
from perdure.io.children import Child, ClosePolicy, PlannedChild
from perdure.model.events import ParentRun, RunCompleted, RunPhase, RunStarted, RunStatus
from perdure.stores.bundle import Stores
from perdure.stores.legs import end_of

_TOGETHER = 100


class Children:
    """What one owner of a run does with the run's children.

    ``send`` posts a letter to a run. ``tell`` has a run that nobody drives read its letters without executing
    anything.
    """

    def __init__(
        self,
        stores: Stores,
        view: RunView,
        run_id: RunId,
        resolver: PlanResolver,
        dispatcher: Dispatcher,
        depth_max: int,
        prepared: PreparedRuns,
        send: Callable[[RunId, AnyLetter, str], Awaitable[bool]],
        tell: Callable[[RunId], Awaitable[None]],
    ) -> None:
        self._stores = stores
        self._view = view
        self._run_id = run_id
        self._resolver = resolver
        self._dispatcher = dispatcher
        self._depth_max = depth_max
        self._prepared = prepared
        self._send_letter = send
        self._tell = tell
        self._passed: Request | None = None
        self._checked: dict[RunId, Prepared] = {}  # until they are spawned
        self._driven: dict[RunId, RunCompleted | None] = {}  # how they ended; None while they are driven
        self.runs_handlers = True
        """Whether children may be executed here."""

    @property
    def has_news(self) -> bool:
        """Whether the run was told something that its children do not know."""
        view = self._view
        return bool(view.children) and (view.cancel or view.pause or view.unpause) != self._passed

    def checked_start(self, child: PlannedChild) -> RunStarted:
        """As ``ChildRuns.checked_start``."""
        parent = None if self._view.started is None else self._view.started.parent
        depth = 1 if parent is None else parent.depth + 1
        if depth > self._depth_max:
            raise IoError.of(
                "child_run_too_deep",
                f"children of children may go {self._depth_max} deep",
                details={"depth": depth},
            )
        manifest = child.manifest
        try:
            plan = resolved_anew(manifest, self._resolver)
            planned = PlannedRun.of(plan, manifest.run_config)
        except IoError:
            raise
        except PerdureError as error:
            info = error.info
            raise IoError.of(
                info.code, info.message, category=info.category, details=info.details, hint=error.hint
            ) from error
        except Exception as error:
            raise IoError.of(
                "child_run_engine_failed", f"planning the child run raised {type(error).__name__}"
            ) from error
        manifest_id = child.manifest_blob.id
        self._checked[child.run_id] = Prepared(manifest_id, manifest, planned, child.initial)
        return RunStarted(plan.op_id, manifest_id, child.initial.id, ParentRun(self._run_id, depth))

    def is_linked(self, run_id: RunId) -> bool:
        """As ``ChildRuns.is_linked``."""
        return run_id in self._view.children

    def submit(self, run_id: RunId) -> None:
        """As ``ChildRuns.submit``."""
        checked = self._checked.pop(run_id, None)
        if checked is not None:
            self._prepared.keep(run_id, checked)
        self._drive(run_id)

    def _drive(self, run_id: RunId) -> asyncio.Future[RunResult]:
        driven = self._dispatcher.submit(self._stores, run_id, self._run_id)
        if run_id not in self._driven:
            self._driven[run_id] = None
            driven.add_done_callback(partial(self._left, run_id))
        return driven

    def _left(self, run_id: RunId, driven: asyncio.Future[RunResult]) -> None:
        self._prepared.take(run_id)
        end = _end_in(driven)
        if end is None:
            del self._driven[run_id]
        else:
            self._driven[run_id] = end

    def is_driven(self, run_id: RunId, manifest_id: ArtifactId) -> bool:
        """As ``ChildRuns.is_driven``."""
        child = self._view.children.get(run_id)
        return child is not None and child.manifest_id == manifest_id and run_id in self._driven

    async def follow(self, run_id: RunId) -> RunCompleted | None:
        """As ``ChildRuns.follow``."""
        end = self._driven.get(run_id)
        if end is not None:
            return end
        driven = self._drive(run_id)
        async with self._dispatcher.resting(self._stores, self._run_id):
            await asyncio.wait({driven})
        error = None if driven.cancelled() else driven.exception()
        if error is None or is_driven_elsewhere(error) or _is_blocked(error):
            return _end_in(driven)
        code = error.code if isinstance(error, PerdureError) else type(error).__name__
        raise IoError.of(
            "child_run_task_failed",
            f"the child run cannot be driven: {code}",
            retryable=True,
            details={"child_run_id": run_id, "code": code},
        ) from error

    async def failure_of(self, run_id: RunId) -> tuple[str, str | None]:
        """As ``ChildRuns.failure_of``."""
        view = await read_view(self._stores, await self._stores.newest_leg(run_id))
        if view.failure is None:
            return f"run_{view.phase.value.lower()}", None
        state_id, info = view.failure
        return info.code, state_id

    async def ends_of(self, run_ids: Collection[RunId]) -> dict[RunId, RunCompleted | None]:
        """How those of ``run_ids`` ended that have; None for one that does not exist."""
        ends: dict[RunId, RunCompleted | None] = {}
        for run_id in run_ids:
            if run_id in self._driven:
                if (end := self._driven[run_id]) is not None:
                    ends[run_id] = end
                continue
            head = await self._stores.events.head_seq(run_id)
            end = await end_of(self._stores.events, run_id, head)
            if end is not None or not head:
                ends[run_id] = end
        return ends

    async def follow_many(self, run_ids: Collection[RunId], *, until_all: bool) -> bool:
        """Have runs driven, and wait until one has ended, or all have, or none is driven here any more.

        Whether there may be ends that were not known before.
        """
        if not self.runs_handlers:
            return False
        left, has_end = len(run_ids), False
        enough = asyncio.get_running_loop().create_future()

        def note(driven: asyncio.Future[RunResult]) -> None:
            nonlocal left, has_end
            left -= 1
            has_end = has_end or _end_in(driven) is not None
            if not enough.done() and (not left or (has_end and not until_all)):
                enough.set_result(None)

        for run_id in run_ids:
            self._drive(run_id).add_done_callback(note)
        async with self._dispatcher.resting(self._stores, self._run_id):
            await enough
        return has_end

    async def pass_down(self) -> None:
        """Tell the children that still run what their parent was told last: to stop, pause or go on.

        Those that were spawned afterwards are none of that: they may be what the parent cleans up with.
        """
        if not self.has_news:
            return
        view = self._view
        request = self._passed = view.cancel or view.pause or view.unpause
        if request is None:
            return
        left = [
            child
            for child in view.children.values()
            if not child.has_ended
            and child.close_policy is not ClosePolicy.ABANDON
            and child.spawned_seq < request.reach_seq
        ]
        how: StopWord = "unpause" if view.pause is None else "pause"
        if view.cancel is not None:
            how = "terminate" if view.cancel.terminates else "cancel"
        await self._send(left, how, request)

    @property
    def to_part_from(self) -> list[Child]:
        """The children that are to be cancelled when their parent ends."""
        return [
            child
            for child in self._view.children.values()
            if not child.has_ended and child.close_policy is ClosePolicy.CANCEL
        ]

    async def part(self) -> None:
        """Tell these to stop."""
        request = Request("engine", "the parent run has ended", letter_id=f"{self._run_id}:ended")
        await self._send(self.to_part_from, "cancel", request)

    async def _send(self, children: Sequence[Child], how: StopWord, request: Request) -> None:
        # Letters that are posted together share commits.
        for begin in range(0, len(children), _TOGETHER):
            some = children[begin : begin + _TOGETHER]
            sending = [self._send_to(child.run_id, how, request) for child in some]
            for outcome in await asyncio.gather(*sending, return_exceptions=True):
                if outcome is not None:
                    raise outcome

    async def _send_to(self, run_id: RunId, how: StopWord, request: Request) -> None:
        try:
            await self._send_letter(run_id, StopLetter(how, request.by, request.reason), request.letter_id)
        except NotFoundError:
            return
        except PerdureError as error:
            if error.code != "run_already_terminal":
                raise
            return
        if self.runs_handlers:
            self.submit(run_id)
        else:
            await self._tell(run_id)


def _is_blocked(error: BaseException) -> bool:
    """Whether a child is left to a process that knows its version; its parent waits for that."""
    return isinstance(error, PerdureError) and error.code == BLOCKED


def _end_in(driven: asyncio.Future[RunResult]) -> RunCompleted | None:
    """How the run ended that was ``driven``, if it has."""
    if driven.cancelled() or driven.exception() is not None:
        return None
    result = driven.result()
    if result.phase is RunPhase.RUNNING:
        return None
    return RunCompleted(RunStatus(result.phase.value), result.final_snapshot_id)
