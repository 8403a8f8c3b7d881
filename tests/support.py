"""What tests build machines from: scripted states, a counting transport, a clock that jumps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise

from perdure import (
    Context,
    DependencyEdge,
    ExecutionPlan,
    IoCall,
    IoProvider,
    JsonContext,
    OpId,
    Recorder,
    RunConfig,
    RunManifest,
    RunResult,
    StartRun,
    StateGraph,
    StateId,
    StateMeta,
    StateNode,
    StateOutcome,
    Stores,
    TransportEnv,
)
from perdure.errors import Json
from perdure.ids import RunId

Handler = Callable[[Context, IoProvider, Recorder], Awaitable[StateOutcome | None]]
START_MILLIS = 1_700_000_000_000


class InstantClock:
    """A clock that stands still, and jumps to the end of every sleep."""

    def __init__(self, millis: int = START_MILLIS) -> None:
        self.millis = millis
        self.slept_until: list[int] = []

    def now_millis(self) -> int:
        return self.millis

    def monotonic_seconds(self) -> float:
        return self.millis / 1000

    def random_bytes(self, count: int) -> bytes:
        return bytes(range(count))

    async def sleep_until(self, due_millis: int) -> None:
        self.slept_until.append(due_millis)
        self.millis = max(self.millis, due_millis)


class Scripted:
    """A state whose handler is a function."""

    def __init__(self, handler: Handler, meta: StateMeta | None = None) -> None:
        self._handler = handler
        self._meta = meta or StateMeta()

    def meta(self) -> StateMeta:
        return self._meta

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        return await self._handler(ctx, io, rec)


class CountingTransport:
    """Answers ``test`` calls with what a function says, and counts them by fact key."""

    namespace_group = "test"

    def __init__(self, answer: Callable[[IoCall], Json] = lambda call: {"asked": call.request}) -> None:
        self._answer = answer
        self.calls: Counter[str | None] = Counter()

    def make(self, env: TransportEnv) -> CountingTransport:
        return self

    async def call(self, call: IoCall) -> Json:
        self.calls[call.fact_key] += 1
        return self._answer(call)


class FixedResolver:
    """Resolves every manifest to one plan."""

    def __init__(self, plan: ExecutionPlan) -> None:
        self._plan = plan

    def resolve(self, manifest: RunManifest) -> ExecutionPlan:
        return self._plan


def state_id(name: str) -> StateId:
    """``m.main.<name>``."""
    return StateId(f"m.main.{name}")


def plan_of(*states: tuple[str, Scripted], edges: Sequence[tuple[str, str]] | None = None) -> ExecutionPlan:
    """A plan of named states; without ``edges`` each follows the one before it."""
    names = [name for name, _ in states]
    pairs = list(pairwise(names)) if edges is None else edges
    return ExecutionPlan(
        OpId("op"),
        StateGraph(
            [StateNode(state_id(name), state) for name, state in states],
            [DependencyEdge(state_id(before), state_id(after)) for before, after in pairs],
        ),
    )


async def start_run(
    stores: Stores,
    plan: ExecutionPlan,
    config: RunConfig | None = None,
    context: dict[str, Json] | None = None,
    run_id: RunId | None = None,
    invocation_key: str | None = None,
) -> StartRun:
    """What ``Engine.start`` takes, with its manifest already stored."""
    config = config or RunConfig()
    manifest = RunManifest(plan.op_id, "1", {}, config)
    manifest_id = await stores.put_manifest(manifest)
    return StartRun(manifest, manifest_id, plan, config, JsonContext(context or {}), run_id, invocation_key)


async def stream(stores: Stores, result: RunResult | RunId) -> list[str]:
    """The run's events as short words, in order: how a test tells the story."""
    run_id = result.run_id if isinstance(result, RunResult) else result
    return [_word(envelope.event) for envelope in await stores.events.read_range(run_id, 1)]


def _word(event: object) -> str:
    from perdure import DomainEvent, RunCompleted, StateCompleted, StateEntered, StateFailed

    match event:
        case StateEntered():
            return f"entered {event.state_id.split('.')[-1]} {event.attempt}"
        case StateCompleted():
            return f"completed {event.state_id.split('.')[-1]}"
        case StateFailed():
            return f"failed {event.state_id.split('.')[-1]} {event.error.info.code}"
        case RunCompleted():
            return f"run {event.status.value}"
        case DomainEvent():
            return event.name
        case _:
            return "started"
