"""Programs without an event loop: the same, waited for."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import (
    BlockingClient,
    BlockingIo,
    BlockingRun,
    ConcurrencyError,
    InvalidPlanError,
    IoCall,
    NotFoundError,
    RunError,
    RunId,
    RunPhase,
    Stores,
    TransportEnv,
    op,
)
from perdure.sdk import App, Op
from tests.unit.sdk import ONCE
from tests.unit.sdk.operations import doubles, fails


class Patient:
    """An operation of one state that waits to be interrupted, and is done when it is tried again."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.operation: Op[int, int] = op("patient", input=int, output=int)

        @self.operation.state
        async def patient(input: int) -> int:  # noqa: A002 — the term
            if not self.entered.is_set():
                self.entered.set()
                await asyncio.Event().wait()
            return 2 * input


def test_a_run_is_started_and_gives_its_result() -> None:
    """The client is there for as long as the block."""
    with perdure.open(Stores.in_memory(), doubles) as p:
        run = p.start(doubles, 21, labels={"day": "monday"})
        assert run.result() == 42
        assert repr(run) == f"<run {run.id}>"
        assert run.wait().phase is run.phase() is RunPhase.COMPLETED
        assert run.context() == {"doubles.main.double": 42}
        assert [each.seq for each in run.events()] == [1, 2, 3, 4]
        assert [each.seq for each in run.events(after=3)] == [4]
        assert [each.run_id for each in p.list(labels={"day": "monday"})] == [run.id]
        assert p.get(run.id[:8], doubles).result() == 42
        assert run.replay().first_difference is None


def test_errors_are_those_of_the_client() -> None:
    """With their codes."""
    with perdure.open(Stores.in_memory(), [doubles, fails]) as p:
        with pytest.raises(InvalidPlanError, match="input_invalid"):
            p.start("doubles", "1")
        with pytest.raises(NotFoundError, match="run_not_found"):
            p.get(RunId.random())
        with pytest.raises(RunError) as caught:
            p.start(fails, run_config=ONCE).result()
        assert (caught.value.code, caught.value.info.details["code"]) == ("run_failed", "declined")
        assert p.start(doubles, 1, key="k").result() == p.start(doubles, 1, key="k").result() == 2
        with pytest.raises(ConcurrencyError, match="invocation_conflict"):
            p.start(doubles, 2, key="k")


def test_a_detached_run_is_recovered_or_resumed() -> None:
    """By whoever asks for it."""
    with perdure.open(Stores.in_memory(), doubles) as p:
        first, second = (p.start(doubles, number, detach=True) for number in (1, 2))
        assert first.phase() is RunPhase.RUNNING
        assert p.resume(second.id).result() == 4
        assert p.recover() == [first.id]
        assert first.result() == 2


async def test_it_may_be_used_where_a_loop_runs() -> None:
    """It has a loop of its own, in a thread: in a notebook, or deep inside somebody's handler."""
    assert asyncio.get_running_loop().is_running()
    with perdure.open(Stores.in_memory(), doubles) as p:
        assert p.start(doubles, 21).result() == 42


def test_the_end_of_the_block_leaves_a_run_resumable(tmp_path: Path) -> None:
    """The next one to open the file resumes it."""
    patient = Patient()
    with perdure.open(tmp_path / "runs.db", patient.operation) as p:
        run = p.start(patient.operation, 21, run_config=ONCE)
        patient.entered.wait()
    with perdure.open(tmp_path / "runs.db", patient.operation) as p:
        assert p.get(run.id).result() == 42


def test_an_interrupted_program_leaves_a_run_resumable(tmp_path: Path) -> None:
    """Whatever ends the block, the interrupt goes on to the program."""
    patient = Patient()
    ids: list[RunId] = []

    def program() -> None:
        with perdure.open(tmp_path / "runs.db", patient.operation) as p:
            ids.append(p.start(patient.operation, 21, run_config=ONCE).id)
            patient.entered.wait()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        program()
    with perdure.open(tmp_path / "runs.db", patient.operation, recover=False) as p:
        assert p.get(ids[0]).phase() is RunPhase.RUNNING
        assert p.resume(ids[0]).result() == 42


def test_a_closed_client_says_so() -> None:
    """To whoever uses it afterwards, and to threads that wait for it; closing again does nothing."""
    patient = Patient()
    caught: list[str] = []

    def wait(run: BlockingRun[int], started: threading.Barrier) -> None:
        events = run.events()
        assert next(events).seq == 1
        started.wait()
        for use in (lambda: list(events), run.result):
            try:
                use()
            except RunError as error:
                caught.append(error.code)

    with perdure.open(Stores.in_memory(), patient.operation) as p:
        run = p.start(patient.operation, 1)
        nobodys = p.start(patient.operation, 2, detach=True)
        started = threading.Barrier(3)
        threads = [threading.Thread(target=wait, args=(each, started)) for each in (run, nobodys)]
        for thread in threads:
            thread.start()
        started.wait()
        patient.entered.wait()
        p.close()
        for thread in threads:
            thread.join()
        p.close()
    uses: list[Any] = [run.result, run.phase, p.list, p.recover, lambda: list(run.events())]
    for use in uses:
        with pytest.raises(RunError) as refused:
            use()
        assert refused.value.code == "client_closed"
    assert caught == ["client_closed"] * 4


def test_events_may_be_left_before_the_end() -> None:
    """Who stops reading leaves nothing behind."""
    patient = Patient()
    with perdure.open(Stores.in_memory(), patient.operation) as p:
        for envelope in p.start(patient.operation, 1).events():
            if envelope.seq == 2:
                break
        patient.entered.wait()


def test_what_cannot_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    """The error is the store's."""
    (tmp_path / "notes.txt").write_text("not a database, and long enough to be seen as something else" * 20)
    before = threading.active_count()
    with pytest.raises(perdure.StorageError), perdure.open(tmp_path / "notes.txt", doubles):
        raise AssertionError
    with pytest.raises(perdure.StorageError, match="store_scheme_unknown"):
        BlockingClient(perdure.open("nowhere:x", doubles))
    assert threading.active_count() == before


class Silent:
    """A transport that never answers, and says when it was asked."""

    namespace_group = "silent"

    def __init__(self) -> None:
        self.asked = threading.Event()

    def make(self, env: TransportEnv) -> Silent:
        return self

    async def call(self, call: IoCall) -> Any:
        self.asked.set()
        await asyncio.Event().wait()


def test_a_thread_that_waits_for_an_answer_is_let_go() -> None:
    """Closing does not wait for the world."""
    asks, silent = op("asks"), Silent()
    ended: list[str] = []

    @asks.state
    def ask(io: BlockingIo) -> Any:
        try:
            return io.call(IoCall("silent", 1, "k")).response
        finally:
            ended.append("ask")

    with perdure.open(Stores.in_memory(), App([asks], [silent])) as p:
        p.start(asks)
        silent.asked.wait()
    assert ended == ["ask"]
