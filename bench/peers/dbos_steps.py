"""DBOS: a workflow that calls one step again and again, on SQLite in its WAL mode."""

from __future__ import annotations

import argparse
import json
import logging
import random
import sqlite3
import time
from typing import Any

from dbos import DBOS, DBOSConfig


@DBOS.step()
def step(n: int) -> int:
    """One more."""
    return n + 1


@DBOS.step()
def text(n: int) -> str:
    """Ten kilobytes."""
    return random.Random(n).randbytes(5_000).hex()


@DBOS.workflow()
def steps(count: int) -> int:
    """Steps, one after the other."""
    n = 0
    for _ in range(count):
        n = step(n)
    return n


@DBOS.workflow()
def grow(count: int) -> int:
    """Ten kilobytes a step."""
    return sum(len(text(n)) for n in range(count))


def main() -> None:
    """Take the steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["steps", "grow", "runs"])
    parser.add_argument("path")
    parser.add_argument("count", type=int)
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    config: DBOSConfig = {"name": "bench", "system_database_url": f"sqlite:///{options.path}"}
    # Before anybody else has it open: the file remembers.
    connection = sqlite3.connect(options.path)
    assert connection.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
    connection.close()
    DBOS(config=config)
    DBOS.launch()
    work: Any = grow if options.work == "grow" else steps
    steps(10)
    begun = time.perf_counter()
    if options.runs == 1:
        work(options.count)
    else:
        handles = [DBOS.start_workflow(work, options.count) for _ in range(options.runs)]
        for handle in handles:
            handle.get_result()
    print(json.dumps({"seconds": time.perf_counter() - begun}))
    DBOS.destroy()


if __name__ == "__main__":
    main()
