"""Runs for tests: in memory, by a clock that jumps, against scripted answers, and replayed in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Generic, NamedTuple, TypeVar, overload

from perdure.engine.recovery import read_view
from perdure.engine.results import RunResult
from perdure.errors import Json, PerdureError
from perdure.ids import RunId
from perdure.io.port import TransportFactory
from perdure.io.waits import CHILD, EFFECT_IN_DOUBT
from perdure.model.config import RunConfig
from perdure.model.events import EventEnvelope, RunPhase
from perdure.model.handler import IoCall
from perdure.proof.replay import ReplayReport
from perdure.sdk.app import App, Definition
from perdure.sdk.blocking import LoopThread
from perdure.sdk.client import Client
from perdure.sdk.operation import Operation
from perdure.sdk.ops import Op
from perdure.sdk.pipelines import PipelineDefinition
from perdure.sdk.runs import Run
from perdure.stores.bundle import Stores
from perdure.stores.memory import memory_stores
from perdure.testing.clock import FakeClock
from perdure.testing.transports import ScriptedTransport

In = TypeVar("In")
Out = TypeVar("Out")


class Told(NamedTuple):
    """A signal's value, and who sends it; made by :func:`told`."""

    value: Json
    by: str


def told(value: Json, by: str) -> Told:
    """A signal's value as a certain person sends it: ``signals={"approval": [told(True, by="ann")]}``."""
    return Told(value, by)


class FinishedRun(Generic[Out]):
    """A run that has ended, with everything that it left.

    ``calls`` are those that reached the script, in order; ``context`` is what the last state left;
    ``replay`` compares every state with itself, executed again from the recorded facts. Of a run that goes on
    as others, ``events`` and ``calls`` are those of all legs, and ``replay`` is that of the last, or of the
    first in which a state comes to something else.
    """

    def __init__(
        self,
        run_id: RunId,
        phase: RunPhase,
        outcome: Out | PerdureError,
        calls: Sequence[IoCall],
        context: dict[str, Json],
        events: Sequence[EventEnvelope],
        replay: ReplayReport,
    ) -> None:
        self.id = run_id
        self.phase = phase
        self.calls = list(calls)
        self.context = context
        self.events = list(events)
        self.replay = replay
        self._outcome = outcome

    def __repr__(self) -> str:
        return f"<run {self.id} {self.phase.value}>"

    @property
    def error(self) -> PerdureError | None:
        """Why the run failed; None if it did not."""
        return self._outcome if isinstance(self._outcome, PerdureError) else None

    def result(self) -> Out:
        """What the run exports; raises ``RunError`` (``run_failed``) if it failed."""
        if isinstance(self._outcome, PerdureError):
            raise self._outcome
        return self._outcome


class RunInMemory:
    """What the fixture ``perdure_run`` gives: call it with an operation or a pipeline, and an input."""

    @overload
    def __call__(
        self,
        op: Op[In, Out] | PipelineDefinition[In, Out],
        input: In | None = None,
        *,
        answers: Mapping[str, Any] | None = None,
        signals: Mapping[str, Sequence[Any]] | None = None,
        transports: Sequence[TransportFactory] = (),
        ops: Sequence[Definition] = (),
        secrets: Mapping[str, str] | None = None,
        check_replay: bool = True,
        run_config: RunConfig | None = None,
        context: Mapping[str, Json] | None = None,
        config: Any = None,
    ) -> FinishedRun[Out]: ...
    @overload
    def __call__(
        self,
        op: Operation,
        input: Any = None,
        *,
        answers: Mapping[str, Any] | None = None,
        signals: Mapping[str, Sequence[Any]] | None = None,
        transports: Sequence[TransportFactory] = (),
        ops: Sequence[Definition] = (),
        secrets: Mapping[str, str] | None = None,
        check_replay: bool = True,
        run_config: RunConfig | None = None,
        context: Mapping[str, Json] | None = None,
        config: Any = None,
    ) -> FinishedRun[Any]: ...
    def __call__(
        self,
        op: Any,
        input: Any = None,  # noqa: A002 — the term
        *,
        answers: Mapping[str, Any] | None = None,
        signals: Mapping[str, Sequence[Any]] | None = None,
        transports: Sequence[TransportFactory] = (),
        ops: Sequence[Definition] = (),
        secrets: Mapping[str, str] | None = None,
        check_replay: bool = True,
        run_config: RunConfig | None = None,
        context: Mapping[str, Json] | None = None,
        config: Any = None,
    ) -> FinishedRun[Any]:
        """Run ``op`` to its end, and execute its states again from the recorded facts.

        ``answers`` are a :class:`ScriptedTransport`'s; ``transports`` go before them. ``ops`` are the other
        operations of the app, which states may spawn: children run here too. ``secrets`` are those that
        transports may ask for. ``signals`` gives by name the values that the run is told, in order, as soon
        as it has started; :func:`told` says by whom. Nothing waits for time: the clock jumps to the end of
        sleeps, timeouts and delays.

        ``AssertionError`` if the run waits for something that nobody brings, and if a state that is executed
        again comes to something else, which means that it uses what is not recorded; ``check_replay=False``
        leaves the latter to the caller.
        """
        script = ScriptedTransport(answers)
        app = App([op, *ops], transports=[*transports, script], secrets=[_Secrets(secrets or {})])

        async def run_to_the_end() -> FinishedRun[Any]:
            clock = FakeClock()
            stores = memory_stores(clock=clock)
            client = Client(stores, app, clock=clock, closes_stores=True, park_after=timedelta())
            try:
                # It is begun for others to drive, so that signals are there before it asks for them.
                run = await client.start(
                    op.op_id, input, run_config=run_config, context=context, config=config, detach=True
                )
                await _tell(run, signals or {})
                phase = (await _driven_to_the_end(client, run, clock)).phase
                try:
                    outcome = await run.result()
                except PerdureError as error:
                    outcome = error
                legs: list[Run[Any]] = [Run(client, leg) for leg in await _legs(stores, run.id)]
                replays = [await leg.replay() for leg in legs]
                replay = next((each for each in replays if each.first_difference is not None), replays[-1])
                events = [envelope for leg in legs async for envelope in leg.events()]
                context_left = await run.context()
            finally:
                await client.aclose()
            return FinishedRun(run.id, phase, outcome, script.calls, context_left, events, replay)

        thread = LoopThread()
        try:
            finished = thread.wait(run_to_the_end())
        finally:
            thread.close()
        if check_replay and finished.replay.first_difference is not None:
            raise AssertionError(_difference(finished.replay))
        return finished


async def _legs(stores: Stores, run_id: RunId) -> list[RunId]:
    """The run and what it goes on as, one after the other."""
    legs = [run_id]
    while (heir := (await read_view(stores, legs[-1])).continued_as) is not None:
        legs.append(heir)
    return legs


async def _tell(run: Run[Any], signals: Mapping[str, Sequence[Any]]) -> None:
    for name, values in signals.items():
        for each in values:
            value, by = each if isinstance(each, Told) else (each, "test")
            await run.signal(name, value, by=by)


async def _driven_to_the_end(client: Client, run: Run[Any], clock: FakeClock) -> RunResult:
    while True:
        await client.resume(run.id)
        result = await client.drive_result(run.id)
        if result.waiting_for is None:
            return result
        due = result.due_millis
        if due is None:
            # A child may be due though its parent is not, which has it driven on when it is resumed.
            due = await client.stores.agenda.next_due_millis()
        if due is None:
            raise AssertionError(_endless(result.waiting_for))
        await clock.sleep_until(due)


def _endless(waiting_for: str) -> str:
    if waiting_for.startswith(EFFECT_IN_DOUBT):
        advice = (
            "Nobody knows what became of a call that ended without an answer; have the script raise "
            "NotAppliedError, or give a transport whose traits say more."
        )
    elif waiting_for.startswith(CHILD):
        advice = "The child, or one of its own, waits for a word: give that wait a timeout."
    else:
        advice = 'Send it, as signals={"name": [value]}, or give the wait a timeout.'
    return f"the run waits for {waiting_for}, which never comes. {advice}"


class _Secrets:
    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def get(self, name: str) -> str | None:
        return self._values.get(name)


def _difference(replay: ReplayReport) -> str:
    state = replay.first_difference
    assert state is not None
    if state.error is not None:
        return f"executed again from its facts, {state.state_id} failed: {state.error.code}"
    keys = "; ".join(f"{each.key} was {each.recorded!r}, is {each.replayed!r}" for each in state.keys)
    return (
        f"executed again from its facts, {state.state_id} came to something else: {keys}. "
        "Have it ask a transport with a fact key for whatever changes."
    )
