"""Commands that drive a run: start, resume."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

from cyclopts import App as CommandApp
from cyclopts import Parameter

from perdure.cli import EXIT_INTERRUPTED
from perdure.cli.common import (
    COMMON,
    SOURCE,
    Common,
    Hidden,
    JsonText,
    Source,
    Whole,
    json_argument,
    label_arguments,
    new_run_id,
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
from perdure.cli.stopping import leave_if_stopped_again, stop_on_sigterm
from perdure.cli.waiting import doubts, next_steps, waiting_for, waits_for_words_alone
from perdure.engine.engine import Engine
from perdure.engine.results import RunResult
from perdure.engine.starting import StartRun
from perdure.errors import Json
from perdure.failpoints import Failpoints
from perdure.ids import RunId
from perdure.model.config import SIDE_BY_SIDE_MAX, ExecutionMode, FanOutJoin, RetryPolicy, RunConfig
from perdure.model.context import JsonContext
from perdure.model.events import RunPhase
from perdure.sdk import App, manifest_for
from perdure.sdk.app import Startable
from perdure.sdk.execution import configured
from perdure.sdk.finding import find_run
from perdure.sdk.reading import exports_of, status_of
from perdure.stores.bundle import Stores

Work = Callable[[Stores, Engine], Awaitable[RunResult]]


def add_to(run: CommandApp) -> None:
    """Add the commands to ``run``."""
    for command in (start, resume):
        run.command(command)


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
    wanted = new_run_id(run_id, key)
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
        stop_on_sigterm()
        try:
            async with open_stores(common, armed) as stores:
                try:
                    result = await go(stores, engine)
                    exports = await exports_of(stores, app.resolver.planner, result)
                    return result, exports, await status_of(stores, result.run_id)
                finally:
                    await app.transports.aclose()
        except asyncio.CancelledError:
            leave_if_stopped_again()
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
