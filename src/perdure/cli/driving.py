"""Commands that drive runs: start, resume, worker."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Annotated

from cyclopts import App as CommandApp
from cyclopts import Parameter, Token

from perdure.cli import EXIT_INTERRUPTED
from perdure.cli.common import (
    COMMON,
    SOURCE,
    Age,
    Common,
    Hidden,
    JsonText,
    Source,
    Whole,
    json_argument,
    label_arguments,
    open_stores,
    reading,
    short,
    shown,
    typed_command,
    wanted_app,
    whole,
)
from perdure.cli.output import EXIT_COMPLETED, EXIT_FAILED, Output, UsageError
from perdure.cli.progress import Progress
from perdure.cli.waiting import doubts, next_steps, waiting_for, waits_for_words_alone
from perdure.clock import SystemClock
from perdure.engine.engine import Engine
from perdure.engine.recovery import BLOCKED
from perdure.engine.results import RunResult
from perdure.engine.starting import StartRun
from perdure.errors import Json, PerdureError
from perdure.failpoints import Failpoints
from perdure.ids import RunId
from perdure.model.config import SIDE_BY_SIDE_MAX, ExecutionMode, FanOutJoin, RetryPolicy, RunConfig
from perdure.model.context import JsonContext
from perdure.model.events import Event, RunCompleted, RunPhase, RunStatus
from perdure.model.legs import heir_in
from perdure.sdk import App, manifest_for
from perdure.sdk.app import Startable
from perdure.sdk.client import MAX_CONCURRENCY, Client
from perdure.sdk.execution import configured
from perdure.sdk.keeping import PruneReport, prune_every_hour
from perdure.sdk.reading import exports_of, find_run, status_of
from perdure.sdk.retention import Retention
from perdure.stores.bundle import Stores

_DAY_SECONDS = 86_400
Work = Callable[[Stores, Engine], Awaitable[RunResult]]


def add_to(run: CommandApp, cli: CommandApp) -> None:
    """Add the commands to their groups."""
    for command in (start, resume):
        run.command(command)
    cli.command(worker)


def start(
    op_id: str,
    /,
    *,
    input: JsonText = None,  # noqa: A002 — the term
    op_version: str | None = None,
    op_config: JsonText = None,
    context: JsonText = None,
    run_id: str | None = None,
    key: str | None = None,
    label: tuple[str, ...] = (),
    max_attempts: Whole = 3,
    side_by_side: Annotated[int | None, Parameter(converter=whole)] = None,
    wait: Annotated[bool, Parameter(negative="--detach")] = True,
    failpoint: Hidden = (),
    common: Common = COMMON,
    source: Source = SOURCE,
) -> int:
    """Start a run of an operation or a pipeline and drive it to its end.

    perdure run start checkout --app shop:app --input '{"item": "tea", "count": 2}'

    Parameters
    ----------
    op_id
        The operation's or pipeline's name; `perdure op list` shows them.
    input
        The input: JSON, @FILE, or - for standard input.
    op_version
        The version; the newest one unless given.
    op_config
        The operation's configuration: JSON, @FILE, or -.
    context
        The initial context: a JSON object, @FILE, or -.
    run_id
        The new run's id; a random one unless given.
    key
        An invocation key: starting twice with one key is starting once.
    label
        A label to find the run by, name=value; may be given several times.
    max_attempts
        How often a state is tried.
    side_by_side
        How many states are executed at a time, 1 to 10,000; what the operation says unless given.
    wait
        Drive the run here and wait for its end, or leave it to a worker.
    """
    output = Output(as_json=common.json)
    if key == "":
        raise UsageError.of("usage", "--key is empty: all runs would be one", hint="is a variable not set?")
    app = wanted_app(source)
    found = app.startable(op_id, op_version)
    config = configured(RunConfig(retry_policy=RetryPolicy(max_attempts)), _mode(found, side_by_side))
    given = found.input_json(json_argument(input, None, "--input"))
    pipeline = found.pipeline_of(json_argument(op_config, None, "--op-config"))
    manifest = manifest_for(pipeline, given, config, labels=label_arguments(label))
    values = json_argument(context, {}, "--context")
    if not isinstance(values, dict):
        raise UsageError.of("input_malformed", "the initial context is not a JSON object")
    plan = app.resolver.resolve(manifest)
    wanted = (
        RunId(run_id)
        if run_id is not None
        else RunId.for_invocation(key)
        if key is not None
        else RunId.random()
    )

    async def go(stores: Stores, engine: Engine) -> RunResult:
        manifest_id = await stores.put_manifest(manifest)
        initial = JsonContext(values)
        begun = StartRun(manifest, manifest_id, plan, config, initial, wanted, key)
        return await engine.start(stores, begun, drive=wait)

    return drive_run(output, common, source, app, failpoint, wanted, go, is_there=False, waits=wait)


def _mode(startable: Startable, side_by_side: int | None) -> ExecutionMode | None:
    try:
        return startable.execution if side_by_side is None else FanOutJoin(side_by_side)
    except ValueError:
        raise UsageError.of("usage", f"--side-by-side is 1 to {SIDE_BY_SIDE_MAX}") from None


def resume(
    run_id: str, /, *, failpoint: Hidden = (), common: Common = COMMON, source: Source = SOURCE
) -> int:
    """Drive a run on from where it stopped.

    perdure run resume 4f1c --app shop:app

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    """
    output = Output(as_json=common.json)
    app = wanted_app(source)
    found = reading(common, lambda stores: find_run(stores, run_id))

    async def go(stores: Stores, engine: Engine) -> RunResult:
        return await engine.resume(stores, found)

    return drive_run(output, common, source, app, failpoint, found, go)


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
        leads to: at once, and then every hour.
    """
    output = Output(as_json=common.json)
    app = wanted_app(source)
    taken: dict[RunId, None] = {}
    counts = {"completed": 0, "failed": 0}
    has_advised = False
    following: dict[RunId, asyncio.Task[None]] = {}
    pruned = asyncio.Event()

    def observe(run_id: RunId, events: Sequence[tuple[int, Event]]) -> None:
        if run_id not in taken:
            taken[run_id] = None
            output.report(f"run {run_id} taken up")
        heir = heir_in([event for _, event in events[-2:]])
        if heir is not None:
            taken.pop(run_id, None)
            taken[heir] = None
            if run_id in following:
                following[heir] = following.pop(run_id)
            output.report(f"run {run_id} goes on as {heir}")
            return
        for _, event in events:
            if isinstance(event, RunCompleted):
                taken.pop(run_id, None)
                counts["completed" if event.status is RunStatus.COMPLETED else "failed"] += 1
                output.report(f"run {run_id} {event.status.value.lower()}")

    async def finish(client: Client, run_id: RunId) -> None:
        nonlocal has_advised
        try:
            result = await client.drive_result(run_id)
        except PerdureError as error:
            if error.code == BLOCKED and not has_advised:
                has_advised = True  # which runs they are is logged
                command = typed_command("run list", common, source, "--blocked-by-version")
                output.report(f"runs that this worker does not know how to drive: {command}")
            return
        left = result.run_id
        if left in taken and result.waiting_for is not None and not await tell_waits(client, left):
            output.report(f"run {left} is due again")

    async def tell_waits(client: Client, run_id: RunId) -> bool:
        taken.pop(run_id, None)
        words = waiting_for(await status_of(client.stores, run_id))
        if words:
            output.report(f"run {run_id} waits for {words}")
        return bool(words)

    async def prune(stores: Stores, older_than: timedelta) -> None:
        def done(report: PruneReport | None) -> None:
            pruned.set()
            if report is not None and (report.runs or report.artifacts):
                output.report(f"pruned {report.runs:,} runs and {report.artifacts:,} artifacts")

        try:
            await prune_every_hour(stores, Retention(older_than=older_than), SystemClock(), done)
        finally:
            pruned.set()

    async def body() -> None:
        _stop_on_sigterm()
        async with open_stores(common) as stores:
            client = Client(stores, app, max_concurrency=concurrency, observer=observe)
            pruning = None if retention is None else asyncio.create_task(prune(stores, retention))
            output.report("worker ready; stop it with Ctrl-C")
            try:
                while True:
                    for done in [run_id for run_id, task in following.items() if task.done()]:
                        del following[done]
                    here = {*following, *client.driven}
                    for run_id in [each for each in taken if each not in here]:
                        await tell_waits(client, run_id)
                    # Besides what was found due: children, and what was parked here and woken since.
                    for run_id in [*await client.recover(), *client.driven]:
                        # A run that another process drives is found each time, and followed once.
                        if run_id not in following:
                            following[run_id] = asyncio.create_task(finish(client, run_id))
                    seconds = await client.seconds_until_due(poll_seconds)
                    if following:
                        await asyncio.wait(
                            following.values(), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
                        )
                    elif until_idle:
                        if pruning is not None:
                            await pruned.wait()
                        return
                    else:
                        await asyncio.sleep(seconds)
            finally:
                beside = [*following.values(), *([] if pruning is None else [pruning])]
                for task in beside:
                    task.cancel()
                await client.aclose()
                await asyncio.gather(*beside, return_exceptions=True)

    async def until_stopped() -> None:
        try:
            await body()
        except asyncio.CancelledError:
            _leave_if_stopped_again()
            output.report("worker stopped; what it drove can be resumed")

    asyncio.run(until_stopped())
    if output.as_json:
        output.data(counts)
    output.end()
    return EXIT_COMPLETED


def drive_run(
    output: Output,
    common: Common,
    source: Source,
    app: App,
    failpoints: Sequence[str],
    run_id: RunId,
    go: Work,
    *,
    is_there: bool = True,
    waits: bool = True,
) -> int:
    """Drive a run while showing its progress; an interruption leaves it resumable and says how."""
    progress = Progress(output, run_id)
    armed = Failpoints.parse(failpoints)
    engine = Engine(
        app.resolver,
        transports=app.transports,
        failpoints=armed,
        observer=progress,
        secrets=app.secrets,
    )

    async def body() -> tuple[RunResult, Json, Json] | None:
        _stop_on_sigterm()
        try:
            async with open_stores(common, armed) as stores:
                try:
                    result = await go(stores, engine)
                    exports = await exports_of(stores, app.resolver.planner, result)
                    return result, exports, await status_of(stores, result.run_id)
                finally:
                    await app.transports.aclose()
        except asyncio.CancelledError:
            _leave_if_stopped_again()
            if is_there or progress.has_begun:
                command = typed_command("run resume", common, source, run_id)
                what, advice = f"run {run_id} was interrupted; nothing is lost", f"go on with: {command}"
            else:
                what, advice = "the run was not begun yet", "start it again"
            output.error("interrupted", what, advice)
            return None

    with progress:
        ended = asyncio.run(body())
    if ended is None:
        return EXIT_INTERRUPTED
    result, exports, status = ended
    run = short(result.run_id)
    with output.unstoppable():
        if output.as_json:
            passed = {"failpoints_passed": armed.hits} if failpoints else {}
            output.data(result.to_json() | {"result": exports} | passed)
        elif not waits and result.phase is RunPhase.RUNNING:
            output.line(f"run {run_id} is left to a worker: {typed_command('worker', common, source)}")
        elif result.waiting_for is not None:
            output.line(f"run {run} waits for {waiting_for(status)}")
            for line in [*doubts(status), *next_steps(status, common)]:
                output.line(line)
            if not waits_for_words_alone(status):
                output.line(f"a worker goes on with it then: {typed_command('worker', common, source)}")
        else:
            for name, value in exports.items():
                output.line(f"{name}: {shown(value)}")
            command = typed_command("run status", common, Source(), run)
            output.line(f"run {run} {result.phase.value.lower()}; see it with: {command}")
    output.end()
    return EXIT_FAILED if result.phase in (RunPhase.FAILED, RunPhase.CANCELLED) else EXIT_COMPLETED


def _stop_on_sigterm() -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _leave_if_stopped_again() -> None:
    """End the process at the next signal.

    What is left to wait for are functions of states in threads, for as long as they take; their attempts are
    closed already.
    """
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
