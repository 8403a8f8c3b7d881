"""Measures of what goes on for long, or in great number: waits, families, maps, schedules, legs, forks."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bench import fan_out, mapping, timetable, waiting
from bench.continued import kilobytes_kept, late_against_early
from bench.families import against_plain_runs, commits_of_a_child, kilobytes_of_an_unfinished_child
from bench.figures import ROUNDS, Figure, median
from bench.forking import against_running
from bench.machines import open_store
from bench.retention import pruned


def parked(folder: Path) -> list[Figure]:
    """A hundred thousand runs that wait, and those that are woken."""

    async def fill() -> float:
        _, few = open_store(folder / "few.db")
        _, many = open_store(folder / "many.db")
        far = int(time.time() * 1000) + 86_400_000
        async with few, many:
            await waiting.park(few, 500, far)
            await waiting.park(many, waiting.PARKED, far)
            return await waiting.seconds_to_find_the_next(many) / await waiting.seconds_to_find_the_next(few)

    ratio = asyncio.run(fill())
    late = asyncio.run(waiting.latenesses(folder / "late.db"))
    stop = asyncio.run(waiting.seconds_to_stop(folder / "stop.db"))
    return [
        Figure("finding what is due among 100,000 parked runs, against 500", ratio, 5, "x"),
        Figure("memory of a worker beside 100,000", waiting.worker_megabytes(folder / "many.db"), 100, "MB"),
        Figure("lateness of 1,000 wakes due in one second, p99", late[int(len(late) * 0.99)], 1, "s"),
        Figure("cancel to stopped, running handler, p99", stop[int(len(stop) * 0.99)], 1, "s"),
        Figure(
            "commits of one effect", asyncio.run(waiting.commits_of(folder / "e.db", sleeps=False)), 2, ""
        ),
        Figure("commits of one sleep", asyncio.run(waiting.commits_of(folder / "s.db", sleeps=True)), 3, ""),
    ]


def families(folder: Path) -> list[Figure]:
    """A child run against a run that nobody spawned."""
    commits = asyncio.run(commits_of_a_child(folder / "one.db"))
    return [
        Figure("commits of a child that is spawned and awaited, both streams", commits, 5, ""),
        Figure("1,000 children of one parent against 1,000 runs", against_plain_runs(folder, 3), 2, "x"),
        Figure("memory for each unfinished child", kilobytes_of_an_unfinished_child(folder), 20, "KB"),
    ]


def forking(folder: Path) -> list[Figure]:
    """A fork at the last of 10,000 states: what was completed is copied, and not executed."""
    return [Figure("a fork at the last of 10,000 states, against the run", against_running(folder), 0.2, "x")]


def mapped(folder: Path) -> list[Figure]:
    """A map over 10,000 items against states."""
    return [
        Figure(
            "time per item of a map over 10,000 against a state", mapping.against_states(folder, 3), 1, "x"
        ),
        Figure(
            "memory for 10,000 results of 10 KB, one by one", mapping.megabytes_one_by_one(folder), 50, "MB"
        ),
    ]


def fanout(folder: Path) -> list[Figure]:
    """States that wait 50 ms each, side by side against one at a time. More is better."""
    name = "16 states of 50 ms side by side, times faster than one at a time"
    return [Figure(name, fan_out.times_faster(folder, ROUNDS), -12, "x")]


def continued(folder: Path) -> list[Figure]:
    """A run that goes on as a new one 1,000 times."""
    taken = []
    for number in range(3):
        (folder / str(number)).mkdir()
        taken.append(asyncio.run(late_against_early(folder / str(number))))
    kept = asyncio.run(kilobytes_kept(folder / "kept.db"))
    found = median([each.microseconds_to_find_newest for each in taken])
    return [
        Figure(
            "the last 50 of 1,000 legs against 50 early ones",
            median([each.slowdown for each in taken]),
            1.2,
            "x",
        ),
        Figure("commits of a leg of one state", taken[-1].commits_of_one, 2.1, ""),
        Figure("memory kept by 500 legs", kept, 100, "KB"),
        Figure("finding the newest of 1,000 legs", found, 1000, "µs"),
    ]


def retention(folder: Path) -> list[Figure]:
    """Half of two thousand runs deleted and swept; then half of the rest, beside a process that writes."""
    done = pruned(folder)
    commit = median(done.alone)
    return [
        Figure("deleting a run of 5 states and all that it wrote", done.to_delete * 1000, 0, "ms"),
        Figure("the same against running it", done.to_delete / done.to_run, 1, "x"),
        Figure("the same beside a writer", done.to_delete_beside * 1000, 0, "ms"),
        Figure("a commit of that writer when it is alone, median", commit * 1000, 0, "ms"),
        Figure("its commits beside pruning, median, against that", median(done.beside) / commit, 0, "x"),
        Figure("its longest commit beside pruning", max(done.beside) * 1000, 250, "ms"),
        Figure("the same in commits", max(done.beside) / commit, 0, "x"),
        Figure("its longest commit when it is alone, in commits", max(done.alone) / commit, 0, "x"),
    ]


def schedules(folder: Path) -> list[Figure]:
    """Looking at ten thousand of which none is due, and starting a run."""
    statements, ratio = asyncio.run(timetable.looking(folder))
    return [
        Figure("statements of a look at 10,000 schedules, none due", statements, 1, ""),
        Figure("a look at 10,000 schedules against one at 10", ratio, 2, "×"),
        Figure("commits of a start", asyncio.run(timetable.commits_of_a_start(folder / "c.db")), 3, ""),
    ]
