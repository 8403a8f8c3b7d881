"""What writing states as functions costs, against writing the same plan by hand."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

from bench.machines import Fixed, open_store
from perdure import (
    Context,
    DependencyEdge,
    Engine,
    ExecutionPlan,
    IoProvider,
    JsonContext,
    Op,
    OpId,
    Recorder,
    RunConfig,
    StartRun,
    StateGraph,
    StateId,
    StateMeta,
    StateNode,
    op,
)
from perdure.sdk import App, StateDefinition, manifest_for

LENGTH = 200


class AddOne:
    """What an authored state does, by hand: reads what the state before wrote, and writes its own."""

    def __init__(self, before: str | None, name: str) -> None:
        self._before = before
        self._name = name

    def meta(self) -> StateMeta:
        return StateMeta()

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write(self._name, 0 if self._before is None else ctx.read(self._before) + 1)


def by_hand() -> ExecutionPlan:
    """A chain of states, each one more than the one before."""
    ids = [StateId(f"chain.main.s{number}") for number in range(LENGTH)]
    states = [AddOne(ids[number - 1] if number else None, ids[number]) for number in range(LENGTH)]
    nodes = [StateNode(name, state) for name, state in zip(ids, states, strict=True)]
    edges = [DependencyEdge(ids[number], ids[number + 1]) for number in range(LENGTH - 1)]
    return ExecutionPlan(OpId("chain"), StateGraph(nodes, edges))


def authored() -> Op[None, int]:
    """The same chain as functions."""
    chain: Op[None, int] = op("chain", output=int)
    before: StateDefinition[..., Any, int] | None = None
    for number in range(LENGTH):
        if before is None:

            async def first() -> int:
                return 0

            first.__name__ = "s0"
            before = chain.state(first)
        else:

            async def another(value: int = before.result) -> int:
                return value + 1

            another.__name__ = f"s{number}"
            before = chain.state(another)
    return chain


async def timed(path: Path, operation: Op[None, int], plan: ExecutionPlan | None) -> float:
    """Seconds for the chain: of ``plan``, or of the operation's own."""
    app = App([operation])
    config = RunConfig()
    manifest = manifest_for(operation.pipeline_of(), None, config)
    resolver = Fixed(plan) if plan is not None else app.resolver
    _, stores = open_store(path)
    async with stores:
        manifest_id = await stores.put_manifest(manifest)
        start = StartRun(manifest, manifest_id, resolver.resolve(manifest), config, JsonContext({}))
        begun = time.perf_counter()
        result = await Engine(resolver).start(stores, start)
        took = time.perf_counter() - begun
    assert result.phase.value == "Completed"
    return took


def overhead(folder: Path, rounds: int) -> float:
    """Time per authored state against one made by hand, taken in turns; planning is in neither."""
    operation, plan = authored(), by_hand()
    ratios = []
    for number in range(rounds):
        mine = asyncio.run(timed(folder / f"authored{number}.db", operation, None))
        ratios.append(mine / asyncio.run(timed(folder / f"hand{number}.db", operation, plan)))
    return statistics.median(ratios)
