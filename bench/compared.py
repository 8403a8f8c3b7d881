"""The same work here and on other engines: in turns, each time in a fresh process on fresh files."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from bench import at_once, growing
from bench.machines import open_store, run_chain

STEPS = 1_000
PEERS = {"LangGraph": "bench.peers.langgraph_steps", "DBOS": "bench.peers.dbos_steps"}


class Compared(NamedTuple):
    """Medians in seconds, by engine."""

    work: str
    seconds: dict[str, float]

    @property
    def against_best(self) -> float:
        """Ours against the fastest of the others."""
        return self.seconds["Perdure"] / min(each for name, each in self.seconds.items() if name != "Perdure")


def main() -> None:
    """Do one kind of work in this process, and print the seconds it took, as the programs of the peers do."""
    work, path = sys.argv[1], Path(sys.argv[2])
    print(json.dumps({"seconds": asyncio.run(_ours(work, path))}))


async def _ours(work: str, path: Path) -> float:
    if work == "runs":
        count = at_once.RUNS * at_once.STATES
        return count / await at_once.states_per_second(path, at_once.RUNS, at_once.STATES)
    if work == "grow":
        changes = [growing.as_keys(number) for number in range(growing.STATES)]
        return (await growing.run(path, changes, {})).seconds
    _, stores = open_store(path)
    loop = asyncio.get_running_loop()
    async with stores:
        await run_chain(stores, 10)
        begun = loop.time()
        await run_chain(stores, STEPS)
        return loop.time() - begun


def compared(folder: Path, rounds: int) -> list[Compared]:
    """Everything, the engines in turns."""
    python = _peers_python()
    works = {
        "steps": [str(STEPS)],
        "runs": [str(at_once.STATES), "--runs", str(at_once.RUNS)],
        "grow": [str(growing.STATES)],
    }
    found = []
    for work, words in works.items():
        seconds: dict[str, list[float]] = {name: [] for name in ("Perdure", *PEERS)}
        for number in range(rounds):
            for name, taken in seconds.items():
                place = folder / f"{work}-{name}-{number}.db"
                if name == "Perdure":
                    command = [sys.executable, "-m", "bench.compared", work, str(place)]
                else:
                    command = [python, "-m", PEERS[name], work, str(place), *words]
                taken.append(_seconds(command))
        found.append(
            Compared(work, {name: statistics.median(each) for name, each in seconds.items() if each})
        )
    return found


def _peers_python() -> str:
    done = subprocess.run([sys.executable, "dev.py", "peers"], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1]


def _seconds(command: list[str]) -> float:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


if __name__ == "__main__":
    main()
