"""Processes that are killed in the middle of a map, or while another process works for them."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import NoReturn

import pytest

from perdure import RunId, Stores
from perdure.engine.recovery import read_view
from tests.faults.processes import python

RUN_ID = "00000000-0000-0000-0000-00000000000c"
ITEMS = 1500

MAPS = f"""
    import perdure
    from tests.support import FixedResolver, Scripted, plan_of, start_run

    store, log, points = sys.argv[1:4]
    done = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def work(number):
        os.write(done, b"%d\\n" % number)
        return number * 2

    async def handle(ctx, io, rec):
        ctx.write("sum", sum(await perdure.map_over(range({ITEMS}), work, io=io, max_concurrency=4)))

    async def main():
        plan = plan_of(("a", Scripted(handle)))
        engine = Engine(FixedResolver(plan), failpoints=Failpoints.parse([points] if points else []))
        run_id = RunId("{RUN_ID}")
        async with Stores.sqlite(store) as stores:
            if await stores.events.head_seq(run_id):
                result = await engine.resume(stores, run_id)
            else:
                result = await engine.start(stores, await start_run(stores, plan, run_id=run_id))
            print(result.phase.value)

    asyncio.run(main())
"""


async def recorded(store: Path) -> set[int]:
    """The items that are on record."""
    if not store.exists():
        return set()
    async with Stores.sqlite(str(store)) as stores:
        view = await read_view(stores, RunId(RUN_ID))
    return {int(key.rpartition("|")[2]) for key in view.facts if key.startswith("map:")}


def worked_on(log: Path) -> Counter[int]:
    """How often each item was worked on."""
    return Counter(map(int, log.read_text().split())) if log.exists() else Counter()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_map_survives_whatever_kills_its_process(tmp_path: Path, when: str) -> None:
    """Killed at each of its writes in turn, it repeats no item that was on record."""
    store, log = tmp_path / "runs.db", tmp_path / "log"
    for hit in (*range(2, 8), 0):
        kept, before = await recorded(store), worked_on(log)
        with python(MAPS, store, log, f"commit.{when}:{hit}=kill" if hit else "") as process:
            printed, _ = process.communicate()
        again = worked_on(log) - before
        assert not kept & again.keys()
        if process.returncode == 0:
            assert printed == "Completed\n"
            break
        assert process.returncode == -signal.SIGKILL
    assert (await recorded(store), set(worked_on(log))) == (set(range(ITEMS)), set(range(ITEMS)))


PARENT = """
    from perdure.sdk.processes import call_in_process
    from tests.cpu_bound import read

    async def main():
        await call_in_process(read.function, [sys.argv[1]], {})

    asyncio.run(main())
"""


def test_a_process_ends_with_the_program_that_started_it(tmp_path: Path) -> None:
    """Also where that is killed and can do nothing about it."""
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    with python(PARENT, path) as parent:
        end = os.open(path, os.O_WRONLY)  # waits until the process reads
        parent.kill()
    with pytest.raises(BrokenPipeError):
        write_until_nobody_reads(end)
    os.close(end)


def write_until_nobody_reads(end: int) -> NoReturn:
    """Blocks while the pipe is full; raises when its other end is closed."""
    while True:
        os.write(end, b"x" * 65536)
