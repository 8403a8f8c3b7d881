"""A world in which runs wait, pay and are told things: processes that die, a bank, and a clock that is held.

Nothing here happens by itself: :meth:`World.settle` lets everybody do what they can, and then only the test
can bring what they wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from perdure import (
    Context,
    DomainEvent,
    Engine,
    ExecutionPlan,
    Failpoints,
    FixedBackoff,
    IoCall,
    IoProvider,
    PerdureError,
    Recorder,
    RetryPolicy,
    RunConfig,
    RunId,
    RunResult,
    SideEffectKind,
    StateMeta,
    Stores,
)
from perdure.engine.letters import AnyLetter
from perdure.engine.ownership import CLAIM_TTL, ClaimKeeper, HeldClaim
from perdure.errors import Json
from perdure.model.events import EventEnvelope
from perdure.stores.sharing import SharedArtifacts
from tests.support import FixedResolver, Scripted, plan_of, start_run
from tests.waiting_plans import Await, Bank, Both, HeldClock, Pay, Script, Sleep

RUN_ID = RunId("00000000-0000-0000-0000-00000000000a")


class StillKeeper(ClaimKeeper):
    """Renews nothing: owners lose their runs when their time to live is over."""

    def keep(self, held: HeldClaim) -> None:
        pass

    def drop(self, held: HeldClaim) -> None:
        pass


class Died(BaseException):
    """The process is gone: nothing it does from now on reaches the store."""


class Gate:
    """A process's way to its store: counts who is in there, and closes when the process dies."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.inside = 0
        self.calls_left: int | None = None
        self.dies_after = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **options: Any) -> Any:
            dies = self._dies()
            if dies and not self.dies_after:
                raise Died
            self.inside += 1
            try:
                result = await method(*args, **options)
            finally:
                self.inside -= 1
            if dies:
                self.dies_after = False
                raise Died
            return result

        return call

    @property
    def is_closed(self) -> bool:
        """Whether the process has died."""
        return self.calls_left is not None and self.calls_left <= 0

    def close(self) -> None:
        """Let the process die now."""
        self.calls_left, self.dies_after = 0, False

    def _dies(self) -> bool:
        if self.calls_left is None:
            return False
        self.calls_left -= 1
        return self.is_closed


class Process:
    """Stores of the place, an engine for every stint, and perhaps a stint."""

    def __init__(self, store: Any) -> None:
        self.gate = Gate(store)
        store = self.gate
        shared = SharedArtifacts(store)
        self.stores = Stores(store, shared, store, shared, mailbox=store, agenda=store)
        self.engine: Engine | None = None
        self.task: asyncio.Task[RunResult] | None = None
        self.may_crash = False


class World:
    """A place, two processes that work there, a bank and a clock. ``open_store`` gives the place's store."""

    def __init__(
        self,
        scripts: Sequence[Script],
        open_store: Callable[[HeldClock], Any],
        retry_seconds: int = 0,
    ) -> None:
        backoff = FixedBackoff(timedelta(seconds=retry_seconds))
        self.config = RunConfig(retry_policy=RetryPolicy(1000, backoff), recovery_limit=1000)
        self.clock = HeldClock()
        self.bank = Bank(self.clock)
        self.heard: dict[str, list[Json]] = {}
        self.plan = self._plan(scripts)
        self._open_store = open_store
        self.processes = [self._process() for _ in range(2)]
        self.stores = self._process().stores
        """Those of an onlooker, who does not die."""
        self.parked: RunResult | None = None
        """What the last owner said, if it parked the run."""
        self.left_in_order = True
        """Whether the last owner did not die, or crash."""
        self._owner = 0
        self.outcomes: list[str] = []

    def _process(self) -> Process:
        return Process(self._open_store(self.clock))

    def _plan(self, scripts: Sequence[Script]) -> ExecutionPlan:
        def state(script: Script) -> Scripted:
            async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
                for index, action in enumerate(script.actions):
                    await self._act(f"{script.name}{index}", action, ctx, io, rec)

            applies = SideEffectKind.APPLY_SIDE_EFFECT
            meta = StateMeta(side_effects=applies, idempotency="pay", on_cancel=script.cleans_up)
            return Scripted(handle, meta)

        return plan_of(*((script.name, state(script)) for script in scripts), edges=[])

    async def _act(self, key: str, action: Any, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        name = f"w-{key}" if getattr(action, "is_named", False) else None
        if isinstance(action, Sleep):
            await io.sleep(timedelta(seconds=action.seconds), name=name)
        elif isinstance(action, Await):
            limit = None if action.seconds is None else timedelta(seconds=action.seconds)
            signal = await io.wait_any(*action.signals, timeout=limit, name=name)
            told = None if signal is None else [signal.name, signal.value, signal.id]
            self.heard.setdefault(key, []).append(told)
            ctx.write(key, signal and signal.value)
        elif isinstance(action, Pay):
            paid = await io.call(
                IoCall(
                    f"bank.{action.bank}",
                    {"for": key},
                    fact_key=f"paid-{key}" if action.has_name else None,
                    idempotency_key=key if action.has_key else None,
                )
            )
            self.heard.setdefault(key, []).append(paid.response)
            ctx.write(key, paid.response)
        elif isinstance(action, Both):
            parts = enumerate(action.actions)
            await asyncio.gather(*(self._act(f"{key}-{index}", each, ctx, io, rec) for index, each in parts))
        else:
            await io.now_millis()
            await io.random_bytes(3)
            await rec.emit(DomainEvent("noted", {"by": key}))

    async def settle(self) -> None:
        """Let everybody do what they can do by themselves."""
        quiet = 0
        while quiet < 60:
            await asyncio.sleep(0)
            quiet = 0 if any(each.gate.inside for each in self.processes) else quiet + 1
        for which, each in enumerate(self.processes):
            if each.task is not None and each.task.done():
                self._reap(which, each, each.task)
            if each.gate.is_closed:
                await self.kill(which)

    def _reap(self, which: int, process: Process, task: asyncio.Task[RunResult]) -> None:
        process.task = None
        error = None if task.cancelled() else task.exception()
        if isinstance(error, PerdureError):
            assert error.code in ("run_already_active", "claim_lost"), error
            outcome = error.code
        elif isinstance(error, Died) or process.gate.is_closed:
            outcome = "died"
        elif error is not None:
            raise error
        elif task.cancelled():
            outcome = "interrupted"
        else:
            result = task.result()
            outcome = f"{result.phase.value} {result.waiting_for} {result.due_millis}"
        self.outcomes.append(outcome)
        if outcome == "run_already_active":
            self._owner = 1 - which
        elif which == self._owner:
            self.left_in_order = outcome != "died" and not process.may_crash
            is_parked = error is None and not task.cancelled() and task.result().waiting_for is not None
            self.parked = task.result() if is_parked else None

    @property
    def is_driven(self) -> bool:
        """Whether some process works on the run."""
        return any(each.task is not None for each in self.processes)

    async def drive(self, which: int, failpoint: str | None = None, *, runs_handlers: bool = True) -> None:
        """Begin a stint: start the run, or resume it."""
        process = self.processes[which]
        if process.task is not None:
            return
        failpoints = Failpoints.parse([] if failpoint is None else [f"{failpoint}=stop"])
        process.may_crash = failpoint is not None
        process.engine = engine = Engine(
            FixedResolver(self.plan),
            self.bank,
            failpoints,
            self.clock,
            claim_keeper=StillKeeper(CLAIM_TTL),
        )
        self._owner = which
        if await self.stores.events.head_seq(RUN_ID):
            work = engine.resume(process.stores, RUN_ID, runs_handlers=runs_handlers)
        else:
            run = await start_run(self.stores, self.plan, self.config, run_id=RUN_ID)
            work = engine.start(process.stores, run)
        process.task = asyncio.create_task(work)
        await self.settle()

    async def send(self, which: int, letter: AnyLetter, letter_id: str) -> str:
        """Send a letter: whether it was posted, or the code with which it was refused."""
        process = self.processes[which]
        engine = process.engine or Engine(FixedResolver(self.plan), clock=self.clock)
        try:
            outcome = str(await engine.send(process.stores, RUN_ID, letter, letter_id))
        except PerdureError as error:
            outcome = error.code
        except Died:
            outcome = "died"
        await self.settle()
        return outcome

    async def advance(self, seconds: int) -> None:
        """Let time pass."""
        self.clock.advance(seconds * 1000)
        await self.settle()

    async def answer(self) -> None:
        """Have the bank answer whom it has let wait."""
        self.bank.answer()
        await self.settle()

    async def interrupt(self, which: int) -> None:
        """Cancel a process's stint, as Ctrl-C does."""
        process = self.processes[which]
        if process.task is not None:
            process.task.cancel()
            await self.settle()

    async def kill(self, which: int) -> None:
        """Have a process die, and another one take its place when the claim is no longer the dead one's."""
        process, self.processes[which] = self.processes[which], self._process()
        process.gate.close()
        if process.task is not None:
            process.task.cancel()
            await asyncio.wait({process.task})
            self._reap(which, process, process.task)
        await self.advance(CLAIM_TTL // timedelta(seconds=1) + 1)

    def die_at(self, which: int, calls: int, *, after: bool) -> None:
        """Have a process die at one of its next calls to the store, before or after the call's effect."""
        gate = self.processes[which].gate
        gate.calls_left, gate.dies_after = calls, after

    async def events(self) -> list[EventEnvelope]:
        """The run's stream."""
        return await self.stores.events.read_range(RUN_ID, 1)
