"""What tests make families of runs from: operations of one scripted state each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from perdure import (
    ArtifactKind,
    Context,
    DomainEvent,
    Engine,
    ErrorCategory,
    ErrorInfo,
    ExecutionPlan,
    IoCall,
    IoProvider,
    IoResult,
    JsonContext,
    OpId,
    Recorder,
    RunCompleted,
    RunConfig,
    RunManifest,
    RunResult,
    RunStarted,
    RunStatus,
    StartRun,
    StateCompleted,
    StateEntered,
    StateErrorInfo,
    StateFailed,
    StateGraph,
    StateId,
    StateMeta,
    StateNode,
    Stores,
)
from perdure.canonical import canonical_json_bytes
from perdure.engine.recovery import PlanResolver
from perdure.errors import InvalidPlanError, Json
from perdure.ids import RunId
from perdure.io.waits import Wait, wait_key, wait_started
from perdure.model.events import Event, ParentRun
from perdure.model.pipeline import Pipeline, manifest_for
from perdure.stores.ports import Append, Blob
from perdure.stores.reading import read_json
from tests.support import Handler, Scripted

SPAWN, AWAIT = "machine.child_run.spawn", "machine.child_run.await"


class Ops:
    """Resolves manifests to plans of one state, ``<op>.main.work``, whose context holds the input."""

    def __init__(self, ops: Mapping[str, Handler], metas: Mapping[str, StateMeta] | None = None) -> None:
        self._ops = ops
        self._metas = metas or {}

    def resolve(self, manifest: RunManifest) -> ExecutionPlan:
        handler = self._ops.get(manifest.op_id)
        if handler is None:
            raise InvalidPlanError.of("op_not_found", "nobody knows the operation")
        state = WithInput(Scripted(handler, self._metas.get(manifest.op_id)), manifest.input_params["input"])
        return ExecutionPlan(
            OpId(manifest.op_id), StateGraph([StateNode(StateId(f"{manifest.op_id}.main.work"), state)])
        )


class WithInput:
    """A state whose context holds the run's input."""

    def __init__(self, state: Scripted, given: Json) -> None:
        self._state = state
        self._given = given

    def meta(self) -> StateMeta:
        return self._state.meta()

    async def handle(self, ctx: Any, io: Any, rec: Any) -> Any:
        ctx.write("input", self._given)
        return await self._state.handle(ctx, io, rec)


async def start_of(
    stores: Stores,
    ops: PlanResolver,
    op_id: str,
    given: Json = None,
    config: RunConfig | None = None,
    **more: Any,
) -> StartRun:
    """The start of a run of ``op_id``."""
    config = config or RunConfig()
    manifest = manifest_for(Pipeline.of_op(op_id, "1"), given, config)
    manifest_id = await stores.put_manifest(manifest)
    return StartRun(manifest, manifest_id, ops.resolve(manifest), config, JsonContext(), **more)


def spawn_request(op_id: str, given: Json = None, **more: Json) -> dict[str, Json]:
    """A request to spawn ``op_id``, with all that the wire asks for."""
    return {
        "kind": "child_run_spawn_v1",
        "op_id": op_id,
        "op_version": "1",
        "op_config": None,
        "input": given,
        "run_config": RunConfig().to_json(),
        "initial_context": None,
        **more,
    }


async def spawn(io: IoProvider, key: str, op_id: str, given: Json = None, **more: Json) -> Any:
    """Spawn a child and give what the engine answers."""
    return (await io.call(IoCall(SPAWN, spawn_request(op_id, given, **more), key))).response


async def await_child(io: IoProvider, key: str, child: Any) -> Any:
    """Await a child that :func:`spawn` gave."""
    request = {
        "kind": "child_run_await_v1",
        "child_run_id": child["child_run_id"],
        "child_manifest_id": child["child_manifest_id"],
    }
    answer: IoResult = await io.call(IoCall(AWAIT, request, key))
    return answer.response


async def context_of(stores: Stores, run_id: RunId) -> Any:
    """The last snapshot of a run, as a value."""
    head = await stores.events.head_seq(run_id)
    end: Any = (await stores.events.read_range(run_id, head))[0].event
    return (await read_json(stores.artifacts, end.final_snapshot_id))[0]


async def turns(number: int) -> None:
    """Let everybody else have so many turns."""
    for _ in range(number):
        await asyncio.sleep(0)


ENOUGH_SECONDS = 10


async def nobody_drives() -> None:
    """Wait until no child is executed any more."""
    while running := [task for task in asyncio.all_tasks() if task.get_name().startswith("perdure-run")]:
        done, _ = await asyncio.wait(running, timeout=ENOUGH_SECONDS)
        assert done


async def start(engine: Engine, stores: Stores, run: StartRun) -> RunResult:
    """As ``Engine.start``, which is not to hang."""
    return await asyncio.wait_for(engine.start(stores, run), ENOUGH_SECONDS)


async def resume(engine: Engine, stores: Stores, run_id: RunId) -> RunResult:
    """As ``Engine.resume``, which is not to hang."""
    return await asyncio.wait_for(engine.resume(stores, run_id), ENOUGH_SECONDS)


async def interrupt(task: asyncio.Task[Any]) -> None:
    """Cancel a caller, who is to be let go."""
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=ENOUGH_SECONDS)
    assert done
    assert task.cancelled()


class Hanging:
    """An operation that ends when it is let go, and tells how many of it have begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()
        self._expected: list[tuple[int, asyncio.Event]] = []

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        self.begun += 1
        for number, event in self._expected:
            if self.begun >= number:
                event.set()
        await self.go_on.wait()

    async def until_begun(self, number: int = 1) -> None:
        """Wait until so many have begun."""
        event = asyncio.Event()
        self._expected.append((number, event))
        if self.begun < number:
            await event.wait()


async def write_run(
    stores: Stores,
    run_id: RunId,
    *,
    op_id: str = "job",
    parent: ParentRun | None = None,
    children: Sequence[RunId] = (),
    close: str | None = None,
    after: Sequence[Event] = (),
    end: RunStatus | None = None,
) -> None:
    """Write the stream of a run with these links to its children, then the events ``after``."""
    initial = Blob(ArtifactKind.CONTEXT_SNAPSHOT, b"{}")
    manifest = manifest_for(Pipeline.of_op(op_id, "1"), None, RunConfig())
    blob = Blob(ArtifactKind.MANIFEST, canonical_json_bytes(manifest.to_json()))
    link = {"parent_run_id": run_id, "child_manifest_id": blob.id}
    if close is not None:
        link["close_policy"] = close
    events: list[Event] = [
        RunStarted(OpId(op_id), blob.id, initial.id, parent),
        StateEntered(StateId(f"{op_id}.main.work"), 0, initial.id),
        *(DomainEvent("child_run_spawned", link | {"child_run_id": child}) for child in children),
        *after,
    ]
    if end is RunStatus.COMPLETED:
        events.append(StateCompleted(StateId(f"{op_id}.main.work"), initial.id))
    if end is not None:
        events.append(RunCompleted(end, initial.id))
    await stores.commit([initial, blob], [Append(run_id, 0, events)])


def failed(code: str, op_id: str = "job") -> StateFailed:
    """That a run's state has failed with this code."""
    state = StateId(f"{op_id}.main.work")
    return StateFailed(
        state, StateErrorInfo(state, ErrorInfo(code, ErrorCategory.UNKNOWN, False, "it failed"))
    )


def waits_for_signal(name: str, op_id: str = "job") -> DomainEvent:
    """That a run's state waits for a signal."""
    state = StateId(f"{op_id}.main.work")
    return wait_started(Wait(state, 0, wait_key(state, 0), "signal", signals=(name,)))
