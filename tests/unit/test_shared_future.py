"""Many tasks wait for one future, and go on where it is settled."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from perdure.stores.uninterrupted import SharedFuture

WHO: ContextVar[str] = ContextVar("WHO")


async def _wait(done: SharedFuture, name: str, log: list[str]) -> None:
    WHO.set(name)
    await done
    log.append(WHO.get())


async def _waiting(names: str) -> tuple[SharedFuture, list[str], list[asyncio.Task[None]]]:
    done, log = SharedFuture(asyncio.get_running_loop()), list[str]()
    tasks = [asyncio.create_task(_wait(done, name, log)) for name in names]
    await asyncio.sleep(0)
    return done, log, tasks


def test_tasks_go_on_in_their_order_and_each_in_its_context() -> None:
    async def main() -> None:
        done, log, tasks = await _waiting("abc")
        asyncio.get_running_loop().call_soon(done.settle)
        await asyncio.gather(*tasks)
        assert log == ["a", "b", "c"]

    asyncio.run(main())


def test_who_comes_late_does_not_wait() -> None:
    async def main() -> None:
        done, _, _ = await _waiting("")
        done.settle()
        log: list[str] = []
        await _wait(done, "late", log)
        assert log == ["late"]

    asyncio.run(main())


def test_a_task_that_is_cancelled_hears_of_it_when_the_future_is_settled() -> None:
    async def main() -> None:
        done, log, (_, cancelled) = await _waiting("ab")
        cancelled.cancel()
        await asyncio.sleep(0)
        assert not cancelled.done()
        asyncio.get_running_loop().call_soon(done.settle)
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert log == ["a"]

    asyncio.run(main())


def test_a_task_may_cancel_one_that_goes_on_after_it() -> None:
    async def main() -> None:
        done = SharedFuture(asyncio.get_running_loop())
        log: list[str] = []

        async def cancel() -> None:
            await done
            following.cancel()

        first = asyncio.create_task(cancel())
        following = asyncio.create_task(_wait(done, "following", log))
        asyncio.get_running_loop().call_later(0, done.settle)
        await first
        with pytest.raises(asyncio.CancelledError):
            await following
        assert log == []

    asyncio.run(main())


def test_one_that_ends_the_process_keeps_none_of_the_others_waiting() -> None:
    """The loop may be run on after ``KeyboardInterrupt``, as ``asyncio.run`` does to clean up."""
    loop = asyncio.new_event_loop()
    log: list[str] = []
    done = SharedFuture(loop)

    async def interrupt() -> None:
        await done
        raise KeyboardInterrupt

    interrupting = loop.create_task(interrupt())
    other = loop.create_task(_wait(done, "other", log))
    loop.call_later(0, done.settle)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert not other.done()
    loop.run_until_complete(other)
    assert log == ["other"]
    assert isinstance(interrupting.exception(), KeyboardInterrupt)
    loop.close()
