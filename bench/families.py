"""Runs that have others do part of the work: what a child costs, against a run that nobody spawned."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.machines import open_store
from perdure import (
    Context,
    Engine,
    ExecutionPlan,
    IoCall,
    IoProvider,
    JsonContext,
    OpId,
    Recorder,
    RunConfig,
    RunManifest,
    StartRun,
    State,
    StateGraph,
    StateId,
    StateMeta,
    StateNode,
    Stores,
)
from perdure.errors import Json
from perdure.io.children import AWAIT, AWAIT_V1, SPAWN, SPAWN_V1
from perdure.model.pipeline import Pipeline, manifest_for

CHILDREN = 1_000
PLACES = 32
HELD = 2_000


class Small:
    """What a child does: a small piece of work."""

    def meta(self) -> StateMeta:
        return StateMeta()

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("done", True)


class Held(Small):
    """A child whose work takes long."""

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await asyncio.get_running_loop().create_future()


class Asking(Small):
    """What a parent does: it spawns children, all at once, and then awaits them all."""

    def __init__(self, children: int) -> None:
        self._children = children
        self.spawned = asyncio.Event()

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        spawned = await asyncio.gather(*(_spawn(io, number) for number in range(self._children)))
        self.spawned.set()
        ends = await asyncio.gather(*(_await(io, number, each) for number, each in enumerate(spawned)))
        assert all(each["status"] == "Completed" for each in ends)


class Family:
    """The plans of a parent, ``asking``, and of its children, ``small``: one state each."""

    def __init__(self, asking: State, small: State) -> None:
        self._states = {"asking": asking, "small": small}

    def resolve(self, manifest: RunManifest) -> ExecutionPlan:
        name = manifest.op_id
        node = StateNode(StateId(f"{name}.main.work"), self._states[name])
        return ExecutionPlan(OpId(name), StateGraph([node]))


async def start(engine: Engine, family: Family, stores: Stores, op_id: str, given: Json = None) -> None:
    """A run of ``op_id`` from its manifest to its end."""
    config = RunConfig()
    manifest = manifest_for(Pipeline.of_op(op_id, "1"), given, config)
    manifest_id = await stores.put_manifest(manifest)
    plan = family.resolve(manifest)
    result = await engine.start(stores, StartRun(manifest, manifest_id, plan, config, JsonContext()))
    assert result.phase.value == "Completed"


async def commits_of_a_child(path: Path) -> int:
    """The commits that one child costs, its own included, beside those of its parent."""
    counts: list[int] = []
    for children in (0, 1):
        store, stores = open_store(path.with_name(f"{path.name}-{children}"))
        family = Family(Asking(children), Small())
        async with stores:
            before = store.commits
            await start(Engine(family), family, stores, "asking")
            counts.append(store.commits - before)
    return counts[1] - counts[0]


def against_plain_runs(folder: Path, rounds: int, children: int = CHILDREN) -> float:
    """The time of a parent with all its children in times of as many runs without one, in turns."""
    ratios = []
    for number in range(rounds):
        plain = asyncio.run(_plain_seconds(folder / f"plain{number}.db", children))
        ratios.append(asyncio.run(family_seconds(folder / f"family{number}.db", children)) / plain)
    return statistics.median(ratios)


async def family_seconds(path: Path, children: int) -> float:
    """How long a parent takes with all its children."""
    family = Family(Asking(children), Small())
    _, stores = open_store(path)
    async with stores:
        begun = time.perf_counter()
        await start(Engine(family, max_concurrency=PLACES), family, stores, "asking")
        return time.perf_counter() - begun


async def _plain_seconds(path: Path, runs: int) -> float:
    family, places = Family(Asking(0), Small()), asyncio.Semaphore(PLACES)
    engine = Engine(family)
    _, stores = open_store(path)

    async def one(number: int) -> None:
        async with places:
            await start(engine, family, stores, "small", number)

    async with stores:
        begun = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(runs)))
        return time.perf_counter() - begun


def kilobytes_of_an_unfinished_child(folder: Path, children: int = HELD) -> float:
    """What a process keeps for each child that its parent awaits, few of which have a place to run."""
    program = "import asyncio, sys; from bench import families; asyncio.run(families.hold(*sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder / "held.db"), str(children)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


async def hold(path: str, children: str) -> None:
    """Print how many kilobytes the process has grown by for each child, once all are awaited."""
    _, stores = open_store(Path(path))
    async with stores:
        warm = Family(Asking(10), Small())
        await start(Engine(warm), warm, stores, "asking")
        asking = Asking(int(children))
        family = Family(asking, Held())
        before = _resident_kilobytes()
        running = asyncio.ensure_future(
            start(Engine(family, max_concurrency=PLACES), family, stores, "asking")
        )
        await asking.spawned.wait()
        await asyncio.sleep(1)  # nobody announces that the last await has begun
        print((_resident_kilobytes() - before) / int(children))
        running.cancel()
        await asyncio.wait({running})


def _resident_kilobytes() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def _request(kind: str, **members: Json) -> Json:
    return {"kind": kind, **members}


async def _spawn(io: IoProvider, number: int) -> Any:
    request = _request(
        SPAWN_V1,
        op_id="small",
        op_version="1",
        op_config=None,
        input=number,
        run_config=RunConfig().to_json(),
        initial_context=None,
    )
    return (await io.call(IoCall(SPAWN, request, f"spawn:{number}"))).response


async def _await(io: IoProvider, number: int, child: Any) -> Any:
    request = _request(
        AWAIT_V1, child_run_id=child["child_run_id"], child_manifest_id=child["child_manifest_id"]
    )
    return (await io.call(IoCall(AWAIT, request, f"await:{number}"))).response
