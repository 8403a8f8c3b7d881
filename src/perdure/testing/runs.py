"""Runs for tests: in memory, by a clock that jumps, against scripted answers, and replayed in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from perdure.errors import Json, PerdureError
from perdure.ids import RunId
from perdure.io.port import TransportFactory
from perdure.model.config import RunConfig
from perdure.model.events import EventEnvelope, RunPhase
from perdure.model.handler import IoCall
from perdure.proof.replay import ReplayReport
from perdure.sdk.app import App
from perdure.sdk.opening import open as open_client
from perdure.sdk.operation import Operation
from perdure.sdk.ops import Op
from perdure.sdk.pipelines import PipelineDefinition
from perdure.stores.bundle import Stores
from perdure.testing.clock import FakeClock
from perdure.testing.transports import ScriptedTransport

In = TypeVar("In")
Out = TypeVar("Out")


class FinishedRun(Generic[Out]):
    """A run that has ended, with everything that it left.

    ``calls`` are those that reached the script, in order; ``context`` is what the last state left;
    ``replay`` compares every state with itself, executed again from the recorded facts.
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
        transports: Sequence[TransportFactory] = (),
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
        transports: Sequence[TransportFactory] = (),
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
        transports: Sequence[TransportFactory] = (),
        secrets: Mapping[str, str] | None = None,
        check_replay: bool = True,
        run_config: RunConfig | None = None,
        context: Mapping[str, Json] | None = None,
        config: Any = None,
    ) -> FinishedRun[Any]:
        """Run ``op`` to its end, and execute its states again from the recorded facts.

        ``answers`` are a :class:`ScriptedTransport`'s; ``transports`` go before them. ``secrets`` are those
        that transports may ask for. Retries do not wait. ``AssertionError`` if a state that is executed again
        comes to something else, which means that it uses what is not recorded; ``check_replay=False`` leaves
        that to the caller.
        """
        script = ScriptedTransport(answers)
        app = App([op], transports=[*transports, script], secrets=[_Secrets(secrets or {})])
        stores = Stores.in_memory()
        with open_client(stores, app, clock=FakeClock()) as client:
            run = client.start(op.op_id, input, run_config=run_config, context=context, config=config)
            phase = run.wait().phase
            try:
                outcome = run.result()
            except PerdureError as error:
                outcome = error
            replay = run.replay()
            finished: FinishedRun[Any] = FinishedRun(
                run.id, phase, outcome, script.calls, run.context(), list(run.events()), replay
            )
        if check_replay and replay.first_difference is not None:
            raise AssertionError(_told(replay))
        return finished


class _Secrets:
    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def get(self, name: str) -> str | None:
        return self._values.get(name)


def _told(replay: ReplayReport) -> str:
    state = replay.first_difference
    assert state is not None
    if state.error is not None:
        return f"executed again from its facts, {state.state_id} failed: {state.error.code}"
    keys = "; ".join(f"{each.key} was {each.recorded!r}, is {each.replayed!r}" for each in state.keys)
    return (
        f"executed again from its facts, {state.state_id} came to something else: {keys}. "
        "Have it ask a transport with a fact key for whatever changes."
    )
