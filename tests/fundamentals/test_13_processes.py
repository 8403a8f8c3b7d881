"""States in processes of their own: real processes, which die alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import RunError, RunPhase, Stores, op
from perdure.sdk import Op
from perdure.sdk.processes import unreachable
from tests.cpu_bound import Numbers, adding, dying, mark, read, reading, square, squares, tried_again


async def code_of(operation: Op[Any, Any], given: object) -> str:
    """The code with which the operation's only state fails."""
    async with perdure.open(Stores.in_memory(), operation) as p:
        with pytest.raises(RunError) as failed:
            await (await p.start(operation, given)).result()
        return str(failed.value.info.details["code"])


@contextmanager
def pipe_of(folder: Path) -> Iterator[str]:
    """A named pipe."""
    path = str(folder / "pipe")
    os.mkfifo(path)
    yield path


async def writing_end(path: str) -> int:
    """The end to write into, once somebody reads."""
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody does yet
            await asyncio.sleep(0.001)


def is_read(end: int) -> bool:
    """Whether somebody still reads."""
    try:
        os.write(end, b"x")
    except BrokenPipeError:
        return False
    return True


async def test_a_state_may_have_a_process_of_its_own() -> None:
    """Its argument and its result travel as values of their types."""
    async with perdure.open(Stores.in_memory(), adding) as p:
        result = await (await p.start(adding, Numbers((1, 2, 39)))).result()
        assert result.total == 42
        assert result.pid != os.getpid()
        assert (await (await p.start(adding, Numbers((1,)))).result()).pid != result.pid


async def test_others_go_on_meanwhile(tmp_path: Path) -> None:
    """The loop is free: it answers what the process waits for."""
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    async with perdure.open(Stores.in_memory(), reading) as p:
        run = await p.start(reading, path)
        end = await writing_end(path)
        os.write(end, b"hello")
        os.close(end)
        assert await run.result() == "hello"


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("exit", "worker_process_died"),
        ("kill", "worker_process_died"),
        ("leave", "handler_raised"),
        ("raise", "handler_raised"),
        ("float", "float_not_allowed"),
    ],
)
async def test_a_process_that_dies_is_a_failed_attempt(how: str, code: str) -> None:
    """However it ends, and whatever code it ends with."""
    assert await code_of(dying, how) == code


async def test_an_attempt_whose_process_died_is_tried_again(tmp_path: Path) -> None:
    """The next attempt has another process."""
    async with perdure.open(Stores.in_memory(), tried_again) as p:
        run = await p.start(tried_again, str(tmp_path / "mark"))
        assert await run.result() == 1


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_stopping_a_run_kills_its_process(tmp_path: Path, how: str) -> None:
    """When the run has ended nothing of it goes on."""
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    async with perdure.open(Stores.in_memory(), reading) as p:
        run = await p.start(reading, path)
        end = await writing_end(path)
        await (run.cancel if how == "cancel" else run.terminate)("enough", by="ann")
        assert (await run.wait()).phase is RunPhase.CANCELLED
        assert not is_read(end)
        os.close(end)


async def test_a_timeout_kills_the_process(tmp_path: Path) -> None:
    """And is the attempt's error, as for any state."""
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    hasty = op("hasty", input=str)
    hasty.state(process=True, timeout=timedelta(seconds=0.5), retry=perdure.RetryPolicy(max_attempts=1))(read)
    end = os.open(path, os.O_RDWR)  # so that its process blocks in reading, and not in opening
    assert await code_of(hasty, path) == "state_timeout"
    os.close(end)


async def test_a_process_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the environment it has what makes it Python, and nothing else."""
    monkeypatch.setenv("BANK_TOKEN", "a-token-of-some-length")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    async with perdure.open(Stores.in_memory(), dying) as p:
        names = await (await p.start(dying, "environment")).result()
    assert "BANK_TOKEN" not in names
    assert {"PATH", "OMP_NUM_THREADS"} <= set(names)


async def test_items_may_have_processes_of_their_own() -> None:
    """One that dies is that item's failure."""
    async with perdure.open(Stores.in_memory(), squares) as p:
        assert await (await p.start(squares, 4)).result() == [0, -1, 4, -1]


def test_what_other_processes_cannot_find() -> None:
    """Functions within functions, of the program itself, and those whose name is another's."""

    def within() -> None: ...

    assert unreachable(square) is None
    assert unreachable(mark.function) is None
    assert unreachable(within) == "it stands within another function"
    assert unreachable(lambda: None) == "it stands within another function"
    within.__qualname__ = "square"
    within.__module__ = "tests.cpu_bound"
    assert unreachable(within) == "tests.cpu_bound.square is something else"
    within.__module__ = "__main__"
    assert unreachable(within) == "it stands in the program that was started, and not in a module"
