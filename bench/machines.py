"""The work that is measured."""

from __future__ import annotations

import time
from pathlib import Path

import apsw

from perdure import (
    Context,
    DependencyEdge,
    Engine,
    ExecutionPlan,
    Failpoints,
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
    Stores,
)
from perdure.adapters.sqlite.store import SqliteStore
from perdure.engine.writer import Observer
from perdure.model.events import Event, StateCompleted, StateEntered
from perdure.model.wire import encode_event
from perdure.stores.sharing import SharedArtifacts


class CountUp:
    """A pure state: one number grows, the context's size stays."""

    def meta(self) -> StateMeta:
        return StateMeta()

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("n", ctx.read("n") + 1)


def chain(length: int) -> ExecutionPlan:
    """A plan of ``length`` states, one after the other."""
    ids = [StateId(f"bench.main.s{number}") for number in range(length)]
    edges = [DependencyEdge(ids[index], ids[index + 1]) for index in range(length - 1)]
    return ExecutionPlan(OpId("bench"), StateGraph([StateNode(each, CountUp()) for each in ids], edges))


class Fixed:
    """Resolves to one plan."""

    def __init__(self, plan: ExecutionPlan) -> None:
        self._plan = plan

    def resolve(self, manifest: RunManifest) -> ExecutionPlan:
        return self._plan


def open_store(path: Path) -> tuple[SqliteStore, Stores]:
    """A store, and the bundle around it."""
    store = SqliteStore(path)
    shared = SharedArtifacts(store)
    return store, Stores(
        store, shared, store, shared, store.close, mailbox=store, agenda=store, schedules=store.schedules
    )


async def run_chain(
    stores: Stores,
    length: int,
    failpoints: Failpoints | None = None,
    observer: Observer | None = None,
) -> RunResult:
    """Start a run of ``length`` states and drive it to its end, or to a failpoint."""
    plan, config = chain(length), RunConfig()
    manifest = RunManifest(plan.op_id, "1", {}, config)
    manifest_id = await stores.put_manifest(manifest)
    engine = Engine(Fixed(plan), failpoints=failpoints, observer=observer)
    context = JsonContext({"n": 0, "pad": "x" * 200})
    return await engine.start(stores, StartRun(manifest, manifest_id, plan, config, context))


def bare_commits(path: Path, count: int) -> float:
    """The seconds that SQLite takes for ``count`` transactions of a state's rows, and nothing else."""
    state, snapshot = chain(1).graph.states[0].id, "0" * 64
    events: list[Event] = [
        StateCompleted.from_json(
            {"Kernel": {"StateCompleted": {"state_id": state, "context_snapshot_id": snapshot}}}
        ),
        StateEntered.from_json(
            {"Kernel": {"StateEntered": {"state_id": state, "attempt": 0, "base_snapshot_id": snapshot}}}
        ),
    ]
    rows = [encode_event(event) for event in events]
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.execute("CREATE TABLE event (id INTEGER PRIMARY KEY, body BLOB)")
    connection.execute("CREATE TABLE artifact (id BLOB PRIMARY KEY, data BLOB)")
    begun = time.perf_counter()
    for number in range(count):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO event (body) VALUES (?)", [(row,) for row in rows])
        connection.execute("INSERT INTO artifact VALUES (?, ?)", (number.to_bytes(32, "little"), b"x" * 230))
        connection.execute("COMMIT")
    took = time.perf_counter() - begun
    connection.close()
    return took
