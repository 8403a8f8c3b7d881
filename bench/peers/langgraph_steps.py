"""LangGraph: a graph whose one node is taken again and again, with a synchronous checkpoint after each."""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import threading
import time
from typing import Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph


class Counted(TypedDict):
    """What a step changes."""

    n: int
    pad: str


class Grown(TypedDict):
    """What grows with every step."""

    n: int
    items: list[str]


def step(state: Counted) -> dict[str, Any]:
    """One more."""
    return {"n": state["n"] + 1}


def grow(state: Grown) -> dict[str, Any]:
    """Ten kilobytes more."""
    text = random.Random(state["n"]).randbytes(5_000).hex()
    return {"n": state["n"] + 1, "items": [*state["items"], text]}


def main() -> None:
    """Take the steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["steps", "grow", "runs"])
    parser.add_argument("path")
    parser.add_argument("count", type=int)
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    saver = SqliteSaver(sqlite3.connect(options.path, check_same_thread=False))
    saver.setup()
    grows = options.work == "grow"
    graph: Any = StateGraph(Grown if grows else Counted)
    graph.add_node("step", grow if grows else step)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda state: END if state["n"] >= options.count else "step")
    app = graph.compile(checkpointer=saver)
    first = {"n": 0, "items": []} if grows else {"n": 0, "pad": "x" * 200}

    def run(name: str) -> None:
        config = {"configurable": {"thread_id": name}, "recursion_limit": options.count + 10}
        result = app.invoke(first, config, durability="sync")
        assert result["n"] == options.count

    run("warm") if options.work != "grow" else None
    begun = time.perf_counter()
    if options.runs == 1:
        run("one")
    else:
        threads = [threading.Thread(target=run, args=(f"run{number}",)) for number in range(options.runs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(json.dumps({"seconds": time.perf_counter() - begun}))


if __name__ == "__main__":
    main()
