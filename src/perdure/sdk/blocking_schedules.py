"""``client.schedules`` for programs without an event loop."""

from __future__ import annotations

import builtins
from collections.abc import Coroutine
from datetime import datetime
from typing import Any, Protocol, TypeVar

from perdure.ids import RunId
from perdure.model.schedule import Schedule
from perdure.sdk.schedules import Schedules

T = TypeVar("T")


class Waits(Protocol):
    """How the result of work on another thread's loop is waited for."""

    def __call__(self, work: Coroutine[Any, Any, T]) -> T: ...


class BlockingSchedules:
    """``Schedules``, waited for; each method does what its twin there does."""

    def __init__(self, wait: Waits, schedules: Schedules) -> None:
        self._wait = wait
        self._schedules = schedules

    def create(self, schedule_id: str, op: Any, input: Any = None, **options: Any) -> Schedule:  # noqa: A002 — the term
        """Have runs of an operation or a pipeline started from now on."""
        return self._wait(self._schedules.create(schedule_id, op, input, **options))

    def get(self, schedule_id: str) -> Schedule:
        """The schedule."""
        return self._wait(self._schedules.get(schedule_id))

    def list(self) -> builtins.list[Schedule]:
        """All schedules, in the order of their ids."""
        return self._wait(self._schedules.list())

    def pause(self, schedule_id: str, reason: str, **options: Any) -> Schedule:
        """Have nothing started any more, but for what is asked for by hand."""
        return self._wait(self._schedules.pause(schedule_id, reason, **options))

    def resume(self, schedule_id: str) -> Schedule:
        """Have a paused schedule go on from now."""
        return self._wait(self._schedules.resume(schedule_id))

    def trigger(self, schedule_id: str) -> RunId:
        """Have one run started now; returns the id that it gets."""
        return self._wait(self._schedules.trigger(schedule_id))

    def backfill(self, schedule_id: str, starts: datetime, ends: datetime | None = None) -> int:
        """Have the runs started of every due time in a range; returns how many there are."""
        return self._wait(self._schedules.backfill(schedule_id, starts, ends))

    def delete(self, schedule_id: str) -> None:
        """Forget a schedule."""
        self._wait(self._schedules.delete(schedule_id))
