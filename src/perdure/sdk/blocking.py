"""The client for programs without an event loop: the same calls, waited for on a loop in a thread."""

from __future__ import annotations

import asyncio
import builtins
import threading
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError
from functools import cached_property
from typing import Any, Generic, Self, TypeVar, overload

from perdure.engine.results import RunResult
from perdure.errors import Json, RunError
from perdure.ids import RunId
from perdure.io.effects import Effect
from perdure.model.config import RunConfig
from perdure.model.events import EventEnvelope, RunPhase
from perdure.proof.replay import ReplayReport
from perdure.sdk.blocking_schedules import BlockingSchedules
from perdure.sdk.client import Client
from perdure.sdk.keeping import PruneReport
from perdure.sdk.opening import Opening
from perdure.sdk.ops import Op
from perdure.sdk.pipelines import PipelineDefinition
from perdure.sdk.reading import RunSummary
from perdure.sdk.retention import Retention
from perdure.sdk.runs import Run
from perdure.sdk.signals import SignalDefinition
from perdure.stores.keeping import Tell

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")


class LoopThread:
    """An event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        self.is_closed = False
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="perdure-client", daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``. Interrupting the caller cancels it.

        Raises ``RunError`` (``client_closed``) when the loop ends before.
        """
        with self._lock:  # what comes after the end would never be looked at
            if self.is_closed:
                work.close()
                raise _closed()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:  # by close(), in another thread
            raise _closed() from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End what still runs on the loop, then the loop and its thread."""
        with self._lock:
            self.is_closed = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()


def _closed() -> RunError:
    return RunError.of("client_closed", "the client was closed")


class BlockingClient:
    """``Client`` for programs without an event loop; each method does what its twin there does.

    Runs are driven in the background for as long as the client is open.
    """

    def __init__(self, opening: Opening) -> None:
        self._thread = LoopThread()
        try:
            self._client: Client = self._thread.wait(opening.open())
        except BaseException:
            self._thread.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @overload
    def start(
        self,
        op: Op[In, Out] | PipelineDefinition[In, Out],
        input: In | None = None,
        *,
        key: str | None = None,
        labels: Mapping[str, str] | None = None,
        run_config: RunConfig | None = None,
        run_id: RunId | None = None,
        context: Mapping[str, Json] | None = None,
        config: Any = None,
        detach: bool = False,
    ) -> BlockingRun[Out]: ...
    @overload
    def start(self, op: str, input: Any = None, **options: Any) -> BlockingRun[Any]: ...
    def start(self, op: Any, input: Any = None, **options: Any) -> BlockingRun[Any]:  # noqa: A002 — the term
        """Start a run, and drive it in the background."""
        return BlockingRun(self._thread, self._thread.wait(self._client.start(op, input, **options)))

    def fork(self, run_id: str, at: str, **options: Any) -> BlockingRun[Any]:
        """Begin a new run where another one entered a state, and drive it in the background."""
        return BlockingRun(self._thread, self._thread.wait(self._client.fork(run_id, at, **options)))

    @overload
    def get(self, run_id: str, op: Op[In, Out] | PipelineDefinition[In, Out]) -> BlockingRun[Out]: ...
    @overload
    def get(self, run_id: str, op: None = None) -> BlockingRun[Any]: ...
    def get(self, run_id: str, op: Any = None) -> BlockingRun[Any]:
        """The run of this id, or of the beginning of one."""
        return BlockingRun(self._thread, self._thread.wait(self._client.get(run_id, op)))

    def list(
        self, *, phase: RunPhase | None = None, labels: Mapping[str, str] | None = None, limit: int = 100
    ) -> builtins.list[RunSummary]:
        """The newest runs that are in ``phase`` and bear all ``labels``."""
        return self._thread.wait(self._client.list(phase=phase, labels=labels, limit=limit))

    def resume(self, run_id: str) -> BlockingRun[Any]:
        """Drive a run on in the background, unless somebody does already."""
        return BlockingRun(self._thread, self._thread.wait(self._client.resume(run_id)))

    @cached_property
    def schedules(self) -> BlockingSchedules:
        """Having runs started at their times."""
        return BlockingSchedules(self._thread.wait, self._client.schedules)

    def recover(self) -> builtins.list[RunId]:
        """Drive on every unfinished run that nobody owns."""
        return self._thread.wait(self._client.recover())

    def delete(self, *run_ids: str, with_children: bool = False) -> builtins.list[RunId]:
        """Delete runs that have ended."""
        return self._thread.wait(self._client.delete(*run_ids, with_children=with_children))

    def prune(
        self, retention: Retention | None = None, *, apply: bool = False, tell: Tell = lambda *_: None
    ) -> PruneReport:
        """Delete what ``retention`` does not keep, or find out what that would be."""
        return self._thread.wait(self._client.prune(retention, apply=apply, tell=tell))

    def close(self) -> None:
        """Interrupt what is driven here, resumable, and let go of transports and stores.

        Closing again does nothing; any other use raises ``RunError`` (``client_closed``).
        """
        if self._thread.is_closed:
            return
        try:
            self._thread.wait(self._client.aclose())
        finally:
            self._thread.close()


class BlockingRun(Generic[Out]):
    """``Run`` for programs without an event loop."""

    def __init__(self, thread: LoopThread, run: Run[Out]) -> None:
        self._thread = thread
        self._run = run

    def __repr__(self) -> str:
        return repr(self._run)

    @property
    def id(self) -> RunId:
        """The run's id."""
        return self._run.id

    def result(self) -> Out:
        """Wait for the end and give what the run exports."""
        return self._thread.wait(self._run.result())

    def wait(self) -> RunResult:
        """Wait for the end; a run that failed is no error here."""
        return self._thread.wait(self._run.wait())

    def phase(self) -> RunPhase:
        """Running, or how the run ended."""
        return self._thread.wait(self._run.phase())

    def newest_leg(self) -> RunId:
        """The run as which this one goes on in the end."""
        return self._thread.wait(self._run.newest_leg())

    def context(self) -> dict[str, Json]:
        """The context after the last state that completed."""
        return self._thread.wait(self._run.context())

    def replay(self) -> ReplayReport:
        """Execute the states that completed again, from the recorded facts alone, and compare."""
        return self._thread.wait(self._run.replay())

    def signal(self, signal: str | SignalDefinition[Any], value: Any = None, **options: Any) -> bool:
        """Tell the run ``value`` under a signal's name."""
        name = signal if isinstance(signal, str) else signal.name
        return self._thread.wait(self._run.signal(name, value, **options))

    def cancel(self, reason: str, **options: Any) -> None:
        """Have the run stopped."""
        self._thread.wait(self._run.cancel(reason, **options))

    def terminate(self, reason: str, **options: Any) -> None:
        """Have the run ended without any cleaning up."""
        self._thread.wait(self._run.terminate(reason, **options))

    def pause(self, reason: str, **options: Any) -> None:
        """Have the run stand still before its next state."""
        self._thread.wait(self._run.pause(reason, **options))

    def unpause(self, reason: str = "", **options: Any) -> None:
        """Have a paused run go on."""
        self._thread.wait(self._run.unpause(reason, **options))

    def in_doubt(self) -> builtins.list[Effect]:
        """The effects of which nobody knows what became of them."""
        return self._thread.wait(self._run.in_doubt())

    def effect_happened(self, key: str, answer: Json, *, by: str, why: str, **options: Any) -> None:
        """Say that an effect in doubt was made, and what its answer is."""
        self._thread.wait(self._run.effect_happened(key, answer, by=by, why=why, **options))

    def effect_did_not_happen(self, key: str, *, by: str, why: str, **options: Any) -> None:
        """Say that an effect in doubt was not made."""
        self._thread.wait(self._run.effect_did_not_happen(key, by=by, why=why, **options))

    def values(self) -> dict[str, Json]:
        """What the run's handlers published last under each name."""
        return self._thread.wait(self._run.values())

    def events(self, after: int = 0) -> Iterator[EventEnvelope]:
        """The run's events as they are written, until it has ended."""
        stream = self._run.events(after).__aiter__()

        async def following() -> EventEnvelope | None:
            return await anext(stream, None)

        while (envelope := self._thread.wait(following())) is not None:
            yield envelope
