"""Contexts that grow: what is stored, and how long a state takes."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from bench.machines import Fixed
from perdure import (
    Context,
    DependencyEdge,
    Engine,
    ExecutionPlan,
    IoProvider,
    JsonContext,
    OpId,
    Recorder,
    RunConfig,
    RunId,
    RunManifest,
    StartRun,
    StateGraph,
    StateId,
    StateMeta,
    StateNode,
    Stores,
)
from perdure.canonical import artifact_id_for_json
from perdure.model.events import Event

STATES, ADDED_BYTES = 200, 10_000
SMALL_STATES, SMALL_BYTES = 3_000, 200


class Step:
    """A state that is one function of the context."""

    def __init__(self, change: Callable[[Context], None]) -> None:
        self._change = change

    def meta(self) -> StateMeta:
        return StateMeta()

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        self._change(ctx)


class Outcome(NamedTuple):
    """How a run went: its seconds, the moments of its commits, the log's largest size in bytes."""

    seconds: float
    moments: list[float]
    log_bytes: int


def text(number: int, size: int) -> str:
    """Characters that compress badly, the same for the same number."""
    return random.Random(number).randbytes(size // 2).hex()


def as_keys(number: int) -> Callable[[Context], None]:
    """A new key."""
    return lambda ctx: ctx.write(f"key{number:05}", text(number, ADDED_BYTES))


def as_items(number: int) -> Callable[[Context], None]:
    """One more item of one list."""
    return lambda ctx: ctx.write("items", [*(ctx.read("items") or []), text(number, ADDED_BYTES)])


def as_members(number: int) -> Callable[[Context], None]:
    """One more member of a dictionary inside another, beside a counter."""

    def change(ctx: Context) -> None:
        value = ctx.read("all") or {"counter": 0, "items": {}}
        value["counter"] += 1
        value["items"][f"key{number:05}"] = text(number, ADDED_BYTES)
        ctx.write("all", value)

    return change


def as_small_keys(number: int) -> Callable[[Context], None]:
    """A new key with little in it."""
    return lambda ctx: ctx.write(f"key{number:05}", text(number, SMALL_BYTES))


SHAPES = {"as new keys": as_keys, "appended to a list": as_items, "nested beside a counter": as_members}


async def run(path: Path, changes: Sequence[Callable[[Context], None]], context: dict[str, Any]) -> Outcome:
    """A run with a state for each change."""
    ids = [StateId(f"grow.main.s{number:05}") for number in range(len(changes))]
    nodes = [StateNode(name, Step(change)) for name, change in zip(ids, changes, strict=True)]
    plan = ExecutionPlan(
        OpId("grow"), StateGraph(nodes, [DependencyEdge(before, after) for before, after in pairwise(ids)])
    )
    config, moments, log_bytes = RunConfig(), [], 0
    manifest = RunManifest(plan.op_id, "1", {}, config)
    log = path.with_name(path.name + "-wal")

    def observe(run_id: RunId, events: Sequence[tuple[int, Event]]) -> None:
        nonlocal log_bytes
        moments.append(time.perf_counter())
        log_bytes = max(log_bytes, log.stat().st_size)

    async with Stores.sqlite(path) as stores:
        manifest_id = await stores.put_manifest(manifest)
        start = StartRun(manifest, manifest_id, plan, config, JsonContext(context))
        begun = time.perf_counter()
        result = await Engine(Fixed(plan), observer=observe).start(stores, start)
        took = time.perf_counter() - begun
    assert result.phase.value == "Completed"
    return Outcome(took, moments, log_bytes)


def grown(folder: Path, shape: str) -> tuple[float, float, float]:
    """Stored bytes against added ones, the log's peak in MB, and the seconds of the run."""
    place = folder / shape.replace(" ", "-")
    place.mkdir()
    outcome = asyncio.run(run(place / "runs.db", [SHAPES[shape](number) for number in range(STATES)], {}))
    stored = sum(each.stat().st_size for each in place.iterdir())
    return stored / (STATES * ADDED_BYTES), outcome.log_bytes / 1e6, outcome.seconds


def slowdown(folder: Path, rounds: int) -> float:
    """The last states of a run of many small additions, against its first; the median of several runs."""
    changes = [as_small_keys(number) for number in range(SMALL_STATES)]
    ratios = []
    for number in range(rounds):
        moments = asyncio.run(run(folder / f"small{number}.db", changes, {})).moments
        steps = [after - before for before, after in pairwise(moments)]
        ratios.append(statistics.median(steps[-200:]) / statistics.median(steps[:200]))
    return statistics.median(ratios)


def one_key(folder: Path, rounds: int) -> float:
    """A state that changes one key of two megabytes, against canonicalising all of it again."""
    context = {f"key{number:05}": text(number, ADDED_BYTES) for number in range(STATES)}
    changes = [lambda ctx, number=number: ctx.write("key00100", text(number, 100)) for number in range(60)]
    ratios = []
    for number in range(rounds):
        moments = asyncio.run(run(folder / f"one{number}.db", changes, context)).moments
        state = statistics.median(after - before for before, after in pairwise(moments))
        begun = time.perf_counter()
        artifact_id_for_json(context)
        ratios.append(state / (time.perf_counter() - begun))
    return statistics.median(ratios)
