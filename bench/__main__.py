"""``python -m bench [--json]``: every figure with its bar, as ratios in one run."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from bench import (
    at_once,
    authoring,
    canonicalising,
    compared,
    growing,
    http_calls,
)
from bench.disks import told_of_syncs
from bench.figures import ROUNDS, Figure, median
from bench.lives import continued, families, fanout, forking, mapped, parked, retention, schedules
from bench.machines import Fixed, bare_commits, chain, open_store, run_chain
from perdure import Engine, Failpoints, RunId
from perdure.engine.writer import Observer
from perdure.model.events import Event


def main() -> int:
    """Measure, print, and exit with 1 when a bar is passed."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "only", nargs="*", help="the measures to take: authored, call, map, …; all unless given"
    )
    parser.add_argument("--peers", action="store_true", help="compare with other engines too")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    options = parser.parse_args()
    figures: list[Figure] = []
    for measure in (*MEASURES, *([peers] if options.peers else [])):
        if options.only and not measure.__name__.startswith(tuple(options.only)):
            continue
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            shown = len(figures)
            figures += measure(Path(folder))
        if not options.json:
            for each in figures[shown:]:
                print(each, flush=True)
    if options.json:
        print(json.dumps([each._asdict() for each in figures]))
    return int(not all(each.is_met for each in figures))


def commits_and_syncs(folder: Path) -> list[Figure]:
    """Counted after opening, claims included, by a file system layer that counts synchronisations."""
    syncs = 0

    def count() -> None:
        nonlocal syncs
        syncs += 1

    async def body() -> tuple[int, int]:
        store, stores = open_store(folder / "runs.db")
        await stores.events.head_seq(RunId.random())
        commits_before, syncs_before = store.commits, syncs
        await run_chain(stores, 100)
        counted = store.commits - commits_before, syncs - syncs_before
        await stores.close()
        return counted

    with told_of_syncs(count):
        commits, counted_syncs = asyncio.run(body())
    return [
        Figure("commits in a 100-state run, claims and manifest included", commits, 104, ""),
        Figure("synchronisations in it", counted_syncs, 112, ""),
    ]


def time_per_state(folder: Path) -> list[Figure]:
    """A sequential state against a bare commit of the same bytes, taken in turns."""
    length, ratios = 300, []
    for number in range(ROUNDS):
        bare = bare_commits(folder / f"bare{number}.db", length)
        ratios.append(asyncio.run(_timed_chain(folder / f"runs{number}.db", length)) / bare)
    return [Figure("time per state against a bare commit of the same bytes", median(ratios), 5, "x")]


async def _timed_chain(path: Path, length: int, observer: Observer | None = None) -> float:
    _, stores = open_store(path)
    async with stores:
        begun = time.perf_counter()
        await run_chain(stores, length, observer=observer)
        return time.perf_counter() - begun


def authored(folder: Path) -> list[Figure]:
    """States written as functions against states written by hand."""
    return [
        Figure(
            "time per authored state against one made by hand", authoring.overhead(folder, ROUNDS), 1.15, "x"
        )
    ]


def calling(folder: Path) -> list[Figure]:
    """Recorded calls against httpx's own, and the rest against bare commits."""
    value = http_calls.median_beyond(folder, ROUNDS, bare_commits)
    return [Figure("a recorded HTTP call beyond httpx's own time, in bare commits", value, 3, "")]


def growth(folder: Path) -> list[Figure]:
    """States 900 to 1,000 against states 0 to 100 of one run."""
    ratios = []
    for number in range(ROUNDS):
        moments: list[float] = []

        def observe(run_id: RunId, events: Sequence[tuple[int, Event]], into: list[float] = moments) -> None:
            into.append(time.perf_counter())

        asyncio.run(_timed_chain(folder / f"runs{number}.db", 1000, observe))
        steps = [after - before for before, after in pairwise(moments)]
        ratios.append(median(steps[895:995]) / median(steps[50:150]))
    return [Figure("time per state at state 1,000 against state 100", median(ratios), 1.2, "x")]


def together(folder: Path) -> list[Figure]:
    """Two hundred runs at once against one alone, also where synchronising is slow. More is better."""
    quick = at_once.speeds(folder, ROUNDS)
    with at_once.slowed(0.001):
        (folder / "slow").mkdir()
        slow = at_once.speeds(folder / "slow", ROUNDS)
    return [
        Figure("states per second of 200 runs x 10 at once", quick.at_once, 0, "/s"),
        Figure("the same against one run alone", quick.at_once / quick.alone, -1.3, "x"),
        Figure("the same, each synchronisation slowed by 1 ms", slow.at_once / slow.alone, -10, "x"),
    ]


def grown(folder: Path) -> list[Figure]:
    """Two hundred times ten kilobytes, in three shapes; and many small additions."""
    figures = []
    for shape in growing.SHAPES:
        stored, log, seconds = growing.grown(folder, shape)
        figures += [
            Figure(f"200 x 10 KB {shape}: bytes stored against bytes added", stored, 1.5, "x"),
            Figure(f"200 x 10 KB {shape}: the log's peak", log, 8, "MB"),
            Figure(f"200 x 10 KB {shape}: time", seconds, 0, "s"),
        ]
    return [
        *figures,
        Figure(
            "3,000 additions of 200 bytes: time at the end against the start",
            growing.slowdown(folder, ROUNDS),
            2,
            "x",
        ),
        Figure(
            "one key of 2 MB changed, against canonicalising all of it",
            growing.one_key(folder, ROUNDS),
            0.2,
            "x",
        ),
    ]


def canonical(folder: Path) -> list[Figure]:
    """A megabyte, with and without the search for secrets."""
    figures = []
    for name, make in canonicalising.DOCUMENTS.items():
        document = make()
        alone = canonicalising.times_faster(document, ROUNDS, searches=False)
        searched = canonicalising.times_faster(document, ROUNDS, searches=True)
        is_text = name == "long strings"
        figures += [
            Figure(f"1 MB of {name}: times faster than rfc8785", alone, 0 if is_text else -15, "x"),
            Figure("the same with the search for secrets", searched, -1 if is_text else -8, "x"),
        ]
    return figures


def peers(folder: Path) -> list[Figure]:
    """LangGraph with a synchronous SQLite checkpointer, and DBOS with SQLite in WAL mode."""
    steps, runs, grow = compared.compared(folder, ROUNDS)
    states = at_once.RUNS * at_once.STATES
    return [
        *(Figure(f"{name}: ms a step", each, 0, "ms") for name, each in steps.seconds.items()),
        Figure("a state against the fastest step of the others", steps.against_best, 1 / 3, "x"),
        *(
            Figure(f"{name}: steps per second, 200 runs x 10", states / each, 0, "/s")
            for name, each in runs.seconds.items()
        ),
        Figure("200 runs at once against the best of the others", 1 / runs.against_best, -3, "x"),
        *(Figure(f"{name}: 200 x 10 KB", each, 0, "s") for name, each in grow.seconds.items()),
        Figure("200 x 10 KB against DBOS", grow.seconds["Perdure"] / grow.seconds["DBOS"], 1, "x"),
    ]


def lasting(folder: Path) -> list[Figure]:
    """A process that runs a thousand runs, one after another."""
    program = """
import asyncio, sys
import psutil
from perdure import Stores
from bench.machines import run_chain

async def main():
    process, sizes = psutil.Process(), []
    async with Stores.sqlite(sys.argv[1]) as stores:
        for number in range(1000):
            await run_chain(stores, 5)
            sizes.append(process.memory_info().rss)
    print(max(sizes[100:]) / sizes[99])

asyncio.run(main())
"""
    return [
        Figure(
            "memory of 1,000 runs, its peak against that of 100",
            _python(program, str(folder / "r.db")),
            1.1,
            "x",
        )
    ]


def resuming(folder: Path) -> list[Figure]:
    """A run of 10,000 states that stops in its last one, against resuming it."""
    _, stores = open_store(folder / "runs.db")
    length = 10_000

    async def body() -> float:
        begun = time.perf_counter()
        stopped = await run_chain(stores, length, Failpoints.parse([f"handler.after:{length}=stop"]))
        running = time.perf_counter() - begun
        engine = Engine(Fixed(chain(length)))
        begun = time.perf_counter()
        result = await engine.resume(stores, stopped.run_id)
        took = time.perf_counter() - begun
        assert result.phase.value == "Completed"
        await stores.close()
        return took / running

    return [
        Figure(
            "resuming a 10,000-state run killed at its end, against running it",
            asyncio.run(body()),
            0.05,
            "x",
        )
    ]


def starting(folder: Path) -> list[Figure]:
    """What a fresh process pays."""
    imports = [
        _python(
            "import time; t = time.perf_counter(); import perdure; took = time.perf_counter() - t\n"
            "import sys; assert not any(m.startswith('perdure.adapters') for m in sys.modules)\n"
            "print(took * 1000)"
        )
        for _ in range(ROUNDS)
    ]
    # The kernel's own high-water mark: that of getrusage begins with the parent's.
    program = """
import asyncio, sys
from perdure import Stores
from bench.machines import run_chain
async def main():
    async with Stores.sqlite(sys.argv[1]) as stores:
        await run_chain(stores, 1)
asyncio.run(main())
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")))
"""
    walls, peaks = [], []
    for number in range(ROUNDS):
        begun = time.perf_counter()
        peaks.append(_python(program, str(folder / f"{number}.db")))
        walls.append((time.perf_counter() - begun) * 1000)
    return [
        Figure("import perdure", median(imports), 100, "ms"),
        Figure("fresh process, one-state run on a new store", median(walls), 250, "ms"),
        Figure("its peak memory", median(peaks), 45, "MB"),
    ]


def _python(program: str, *argv: str) -> float:
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, check=True)
    return float(done.stdout)


MEASURES = (
    time_per_state,
    together,
    grown,
    canonical,
    growth,
    authored,
    calling,
    resuming,
    starting,
    lasting,
    parked,
    families,
    forking,
    schedules,
    mapped,
    fanout,
    continued,
    retention,
    commits_and_syncs,
)

if __name__ == "__main__":
    sys.exit(main())
