"""The command that drives whatever is due: worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Annotated

from cyclopts import App as CommandApp
from cyclopts import Parameter, Token

from perdure.cli.common import (
    COMMON,
    SOURCE,
    Age,
    Common,
    Source,
    Whole,
    open_stores,
    typed_command,
    wanted_app,
)
from perdure.cli.output import EXIT_COMPLETED, Output, UsageError
from perdure.cli.pruning import tell_pruned
from perdure.cli.stopping import leave_if_stopped_again, stop_on_sigterm
from perdure.cli.waiting import waiting_for
from perdure.clock import SystemClock
from perdure.engine.recovery import BLOCKED
from perdure.errors import PerdureError
from perdure.ids import RunId
from perdure.model.events import Event, RunCompleted, RunStatus
from perdure.model.legs import heir_in
from perdure.sdk.client import MAX_CONCURRENCY, Client
from perdure.sdk.keeping import prune_every_hour, prune_stores
from perdure.sdk.reading import status_of
from perdure.sdk.retention import Retention

_DAY_SECONDS = 86_400


def add_to(cli: CommandApp) -> None:
    """Add the command to ``cli``."""
    cli.command(worker)


def _seconds(_: type, tokens: Sequence[Token]) -> float:
    """A time to wait: more than no time, and a day at most."""
    token = tokens[0]
    try:
        seconds = float(token.value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _DAY_SECONDS:
        raise UsageError.of("usage", f"{token.keyword} is a number of seconds, more than 0, a day at most")
    return seconds


def worker(
    *,
    until_idle: Annotated[bool, Parameter(negative=())] = False,
    poll_seconds: Annotated[float, Parameter(converter=_seconds)] = 1.0,
    concurrency: Whole = MAX_CONCURRENCY,
    retention: Age = None,
    common: Common = COMMON,
    source: Source = SOURCE,
) -> int:
    """Drive every unfinished run that is due and that nobody owns, until stopped.

    perdure worker --app shop:app

    Any number of workers may share a store. Stop one with Ctrl-C or SIGTERM: its runs are resumable.

    Parameters
    ----------
    until_idle
        End when this worker drives no run, and none is due within a second. Runs that wait for a later time
        or for somebody's word are left waiting.
    poll_seconds
        How often to look for new runs.
    concurrency
        How many runs are executed at a time, 1000 unless given; one that waits for its children does not
        count.
    retention
        Delete runs whose whole family ended longer ago than this, such as 30d, and artifacts that nothing
        leads to: at once and then every hour, or with --until-idle before ending.
    """
    output = Output(as_json=common.json)
    app = wanted_app(source)
    advice = typed_command("run list", common, source, "--blocked-by-version")
    shift = _Shift(output, advice)

    async def body() -> None:
        stop_on_sigterm()
        async with open_stores(common) as stores:
            client = Client(stores, app, max_concurrency=concurrency, observer=shift.observe)
            rule, clock = Retention(older_than=retention), SystemClock()
            pruning: list[asyncio.Task[None]] = []
            if retention is not None and not until_idle:
                told = partial(tell_pruned, output)
                pruning.append(asyncio.create_task(prune_every_hour(stores, rule, clock, told)))
            output.report("worker ready; stop it with Ctrl-C")
            try:
                while True:
                    await shift.tell_left(client)
                    # Besides what was found due: children, and what was parked here and woken since.
                    shift.follow(client, [*await client.recover(), *client.driven])
                    seconds = await client.seconds_until_due(poll_seconds)
                    if shift.following:
                        await asyncio.wait(
                            shift.following.values(), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
                        )
                    elif until_idle:
                        if retention is not None:
                            report = await prune_stores(stores, rule, clock.now_millis(), apply=True)
                            tell_pruned(output, report)
                        return
                    else:
                        await asyncio.sleep(seconds)
            finally:
                beside = [*shift.following.values(), *pruning]
                for task in beside:
                    task.cancel()
                await client.aclose()
                await asyncio.gather(*beside, return_exceptions=True)

    async def until_stopped() -> None:
        try:
            await body()
        except asyncio.CancelledError:
            leave_if_stopped_again()
            output.report("worker stopped; what it drove can be resumed")

    asyncio.run(until_stopped())
    if output.as_json:
        output.data(shift.counts)
    output.end()
    return EXIT_COMPLETED


class _Shift:
    """The runs that a worker drives, and what it tells of them."""

    def __init__(self, output: Output, advice: str) -> None:
        self.following: dict[RunId, asyncio.Task[None]] = {}
        self.counts = {"completed": 0, "failed": 0}
        self._output = output
        self._advice = advice
        self._has_advised = False
        self._taken: dict[RunId, None] = {}

    def observe(self, run_id: RunId, events: Sequence[tuple[int, Event]]) -> None:
        """Tell what a run's new events say."""
        taken, report = self._taken, self._output.report
        if run_id not in taken:
            taken[run_id] = None
            report(f"run {run_id} taken up")
        heir = heir_in([event for _, event in events[-2:]])
        if heir is not None:
            taken.pop(run_id, None)
            taken[heir] = None
            if run_id in self.following:
                self.following[heir] = self.following.pop(run_id)
            report(f"run {run_id} goes on as {heir}")
            return
        for _, event in events:
            if isinstance(event, RunCompleted):
                taken.pop(run_id, None)
                self.counts["completed" if event.status is RunStatus.COMPLETED else "failed"] += 1
                report(f"run {run_id} {event.status.value.lower()}")

    def follow(self, client: Client, run_ids: Iterable[RunId]) -> None:
        """Tell how driving each of the runs ends; each is followed once, however often named."""
        for run_id in run_ids:
            if run_id not in self.following:
                self.following[run_id] = asyncio.create_task(self._finish(client, run_id))

    async def tell_left(self, client: Client) -> None:
        """Forget what was followed to its end, and tell what runs wait for that nobody drives here."""
        for done in [run_id for run_id, task in self.following.items() if task.done()]:
            del self.following[done]
        here = {*self.following, *client.driven}
        for run_id in [each for each in self._taken if each not in here]:
            await self._tell_waits(client, run_id)

    async def _finish(self, client: Client, run_id: RunId) -> None:
        try:
            result = await client.drive_result(run_id)
        except PerdureError as error:
            if error.code == BLOCKED and not self._has_advised:
                self._has_advised = True  # which runs they are is logged
                self._output.report(f"runs that this worker does not know how to drive: {self._advice}")
            return
        left = result.run_id
        if (
            left in self._taken
            and result.waiting_for is not None
            and not await self._tell_waits(client, left)
        ):
            self._output.report(f"run {left} is due again")

    async def _tell_waits(self, client: Client, run_id: RunId) -> bool:
        self._taken.pop(run_id, None)
        words = waiting_for(await status_of(client.stores, run_id))
        if words:
            self._output.report(f"run {run_id} waits for {words}")
        return bool(words)
