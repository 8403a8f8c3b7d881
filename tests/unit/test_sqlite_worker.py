"""Where database work is done, and what waits for what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import partial

import apsw
import pytest

from perdure.adapters.sqlite import worker
from perdure.adapters.sqlite.worker import Job, Worker
from perdure.errors import StorageError

DEADLINE_SECONDS = 30.0


class Disk:
    """A connection whose commits wait until they are let through; says in which threads it was used."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.batches: list[int] = []
        self.begun_in: list[int] = []
        self.finished_in: list[int] = []
        self.is_locked = False
        self._cursor = apsw.Connection(":memory:").cursor()

    def begin(self, jobs: Sequence[Job], may_wait: bool) -> bool:
        assert len(self.begun_in) == len(self.finished_in), "a batch was begun while another one was open"
        if self.is_locked and not may_wait:
            return False
        for job in jobs:
            job.result = job.work(self._cursor)
        self.batches.append(len(jobs))
        self.begun_in.append(threading.get_ident())
        return True

    def finish(self, jobs: Sequence[Job]) -> None:
        assert self.open.wait(DEADLINE_SECONDS)
        self.finished_in.append(threading.get_ident())


def _given(value: int, _: apsw.Cursor) -> int:
    return value


def _nothing(_: apsw.Cursor) -> None:
    pass


async def _turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_short_jobs_are_begun_in_the_loop_and_finished_in_a_thread() -> None:
    disk = Disk()
    each = Worker("test", disk.begin, disk.finish)
    jobs = [asyncio.create_task(each.run(partial(_given, n), is_short=True)) for n in range(3)]
    await _turns()
    assert (disk.batches, disk.begun_in) == ([3], [threading.get_ident()])
    disk.open.set()
    assert await asyncio.gather(*jobs) == [0, 1, 2]
    assert disk.finished_in != disk.begun_in
    each.close()


async def test_what_comes_up_while_a_batch_is_finished_is_the_next_one() -> None:
    """Also what those do at once who waited for it."""
    disk = Disk()
    each = Worker("test", disk.begin, disk.finish)

    async def twice() -> None:
        await each.run(_nothing, is_short=True)
        await each.run(_nothing, is_short=True)

    first = asyncio.create_task(twice())
    await _turns()
    others = []
    for _ in range(3):
        others.append(asyncio.create_task(each.run(_nothing, is_short=True)))
        await _turns()
    assert disk.batches == [1]
    disk.open.set()
    await asyncio.gather(first, *others)
    assert disk.batches == [1, 4]
    each.close()


async def test_short_jobs_go_along_with_one_for_the_thread() -> None:
    """Nothing of a loop is handed over past what it holds back, however much is to come."""
    disk = Disk()
    each = Worker("test", disk.begin, disk.finish)
    jobs = [asyncio.create_task(each.run(_nothing))]
    await _turns()
    for is_short in (True, False):
        jobs.append(asyncio.create_task(each.run(_nothing, is_short=is_short)))
        await _turns()
    disk.open.set()
    await asyncio.gather(*jobs)
    assert disk.batches == [1, 2]
    assert threading.get_ident() not in disk.begun_in
    each.close()


async def test_nothing_waits_for_two_batches() -> None:
    """What comes up behind one that waits for the thread goes along with it."""
    disk = Disk()
    each = Worker("test", disk.begin, disk.finish)
    jobs = []
    for is_short in (True, False, True):
        jobs.append(asyncio.create_task(each.run(_nothing, is_short=is_short)))
        await _turns()
    disk.open.set()
    await asyncio.gather(*jobs)
    assert disk.batches == [1, 2]
    each.close()


@pytest.mark.parametrize(("name", "value"), [("SLOW_SECONDS", -1.0), ("TURN_SECONDS", -1.0)])
async def test_what_takes_long_is_done_in_the_thread(
    name: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, name, value)
    disk = Disk()
    disk.open.set()
    each = Worker("test", disk.begin, disk.finish)
    await asyncio.gather(*(each.run(_nothing, is_short=True) for _ in range(3)))
    assert threading.get_ident() not in disk.begun_in
    each.close()


async def test_another_process_is_waited_for_in_the_thread() -> None:
    disk = Disk()
    disk.open.set()
    disk.is_locked = True
    each = Worker("test", disk.begin, disk.finish)
    assert await each.run(lambda _: "done", is_short=True) == "done"
    assert disk.begun_in == disk.finished_in != [threading.get_ident()]
    each.close()


async def test_what_was_begun_is_finished_before_another_thread_s_work() -> None:
    """Also if that was handed over first, or comes while the batch is begun."""
    disk = Disk()
    each = Worker("test", disk.begin, disk.finish)
    blocking: list[threading.Thread] = []

    def begin_with_company(_: apsw.Cursor) -> str:
        blocking.append(threading.Thread(target=lambda: each.run_blocking(_nothing)))
        blocking[0].start()
        return "first"

    first = asyncio.create_task(each.run(begin_with_company, is_short=True))
    await _turns()
    blocking.append(threading.Thread(target=lambda: each.run_blocking(_nothing)))
    blocking[1].start()
    disk.open.set()
    assert await first == "first"
    for thread in blocking:
        await asyncio.to_thread(thread.join, DEADLINE_SECONDS)
        assert not thread.is_alive()
    assert sum(disk.batches) == 3
    each.close()


async def test_a_job_alone_is_done_at_once_unless_a_batch_is_open() -> None:
    disk = Disk()
    each = Worker("test", disk.begin, disk.finish)
    first = asyncio.create_task(each.run(_nothing, is_short=True))
    await _turns()
    alone = asyncio.create_task(each.run_soon(lambda _: "alone"))
    await _turns()
    assert disk.batches == [1]
    disk.open.set()
    await first
    assert await alone == "alone"
    assert await each.run_soon(lambda _: "later") == "later"
    assert disk.finished_in[-1] == threading.get_ident()
    each.close()


async def test_closing_finishes_what_was_begun_and_what_waits() -> None:
    disk = Disk()
    each = Worker("test", disk.begin, disk.finish)
    jobs = [asyncio.create_task(each.run(lambda _: "begun", is_short=True))]
    await _turns()
    jobs.append(asyncio.create_task(each.run(lambda _: "waiting", is_short=True)))
    await _turns()
    disk.open.set()
    each.close()
    assert await asyncio.gather(*jobs) == ["begun", "waiting"]
    with pytest.raises(StorageError, match="closed"):
        await each.run(_nothing)


def test_an_interrupted_loop_loses_nothing() -> None:
    """A job that ends the process takes its batch back; a thread does it, if the loop is run on."""
    disk = Disk()
    disk.open.set()
    each = Worker("test", disk.begin, disk.finish)
    interrupts = [KeyboardInterrupt()]

    def work(_: apsw.Cursor) -> str:
        if interrupts:
            raise interrupts.pop()
        return "done"

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(each.run(work, is_short=True))
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        assert loop.run_until_complete(task) == "done"
    assert threading.get_ident() not in disk.begun_in
    each.close()


async def test_a_loop_that_ended_is_not_remembered() -> None:
    disk = Disk()
    each = Worker("test", disk.begin, disk.finish)

    def in_a_loop_of_its_own() -> None:
        loop = asyncio.new_event_loop()
        loop.create_task(each.run(_nothing, is_short=True))  # noqa: RUF006 — nobody waits for it
        loop.run_until_complete(_turns())
        loop.set_exception_handler(lambda *_: None)  # it tells of the task
        loop.close()

    await asyncio.to_thread(in_a_loop_of_its_own)
    disk.open.set()
    assert await each.run(lambda _: "mine", is_short=True) == "mine"
    await _turns()
    assert not each._under_way
    each.close()
