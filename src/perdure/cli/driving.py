"""Commands that drive runs: start, resume, worker."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

from cyclopts import App as CommandApp
from cyclopts import Parameter

from perdure.cli.common import (
    COMMON,
    SHOWN_ID_CHARACTERS,
    SOURCE,
    Common,
    Hidden,
    Source,
    json_argument,
    label_arguments,
    open_stores,
    reading,
    shown,
    typed_command,
    wanted_app,
)
from perdure.cli.output import EXIT_COMPLETED, EXIT_FAILED, EXIT_INTERRUPTED, Output, UsageError
from perdure.cli.progress import Progress
from perdure.cli.waiting import next_steps, waiting_for
from perdure.engine.engine import Engine, RunResult, StartRun
from perdure.errors import Json, PerdureError
from perdure.failpoints import Failpoints
from perdure.ids import RunId
from perdure.model.config import RetryPolicy, RunConfig
from perdure.model.context import JsonContext
from perdure.model.events import RunPhase
from perdure.sdk import App, manifest_for
from perdure.sdk.client import Client
from perdure.sdk.reading import exports_of, find_run, status_of
from perdure.stores.bundle import Stores

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
    input: str | None = None,  # noqa: A002 — the term
    op_version: str | None = None,
    op_config: str | None = None,
    context: str | None = None,
    run_id: str | None = None,
    key: str | None = None,
    label: tuple[str, ...] = (),
    max_attempts: int = 3,
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
    wait
        Drive the run here and wait for its end, or leave it to a worker.
    """
    output = Output(as_json=common.json)
    app = wanted_app(source)
    found = app.startable(op_id, op_version)
    config = RunConfig(retry_policy=RetryPolicy(max_attempts))
    given = found.input_json(json_argument(input, None, "--input"))
    pipeline = found.pipeline_of(json_argument(op_config, None, "--op-config"))
    manifest = manifest_for(pipeline, given, config, labels=label_arguments(label))
    values = json_argument(context, {}, "--context")
    if not isinstance(values, dict):
        raise UsageError.of("input_malformed", "the initial context is not a JSON object")
    plan = app.resolver.resolve(manifest)
    wanted = RunId(run_id) if run_id is not None else RunId.for_invocation(key) if key else RunId.random()

    async def go(stores: Stores, engine: Engine) -> RunResult:
        manifest_id = await stores.put_manifest(manifest)
        initial = JsonContext(values)
        begun = StartRun(manifest, manifest_id, plan, config, initial, wanted, key)
        return await engine.start(stores, begun, drive=wait)

    return _drive(output, common, source, app, failpoint, wanted, go, waits=wait)


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

    return _drive(output, common, source, app, failpoint, found, go)


def worker(
    *,
    until_idle: Annotated[bool, Parameter(negative=())] = False,
    poll_seconds: float = 1.0,
    common: Common = COMMON,
    source: Source = SOURCE,
) -> int:
    """Drive every unfinished run that is due and that nobody owns, until stopped.

    perdure worker --app shop:app

    Any number of workers may share a store. Stop one with Ctrl-C or SIGTERM: its runs are resumable.

    Parameters
    ----------
    until_idle
        End when nothing is left to drive.
    poll_seconds
        How often to look for new runs.
    """
    output = Output(as_json=common.json)
    app = wanted_app(source)
    counts = {"completed": 0, "failed": 0}

    async def finish(client: Client, run_id: RunId) -> None:
        try:
            result = await client.drive_result(run_id)
        except PerdureError:
            return
        if result.waiting_for is not None:
            words = waiting_for(await status_of(client.stores, run_id))
            output.line(f"run {run_id} waits for {words}" if words else f"run {run_id} is due again")
            return
        counts["completed" if result.phase is RunPhase.COMPLETED else "failed"] += 1
        output.line(f"run {run_id} {result.phase.value.lower()}")

    async def body() -> None:
        _stop_on_sigterm()
        async with open_stores(common) as stores:
            client = Client(stores, app)
            following: set[asyncio.Task[None]] = set()
            output.line("worker ready; stop it with Ctrl-C")
            try:
                while True:
                    for run_id in await client.recover():
                        output.line(f"run {run_id} taken up")
                        following.add(asyncio.create_task(finish(client, run_id)))
                    seconds = await client.seconds_until_due(poll_seconds)
                    if following:
                        _, following = await asyncio.wait(following, timeout=seconds)
                    elif until_idle:
                        return
                    else:
                        await asyncio.sleep(seconds)
            finally:
                await client.aclose()

    try:
        asyncio.run(body())
    except (KeyboardInterrupt, asyncio.CancelledError):
        output.line("worker stopped; what it drove can be resumed")
    if output.as_json:
        output.data(counts)
    return EXIT_COMPLETED


def _drive(
    output: Output,
    common: Common,
    source: Source,
    app: App,
    failpoints: Sequence[str],
    run_id: RunId,
    go: Work,
    *,
    waits: bool = True,
) -> int:
    """Drive a run while showing its progress; an interruption leaves it resumable and says how."""
    progress = Progress(output)
    armed = Failpoints.parse(failpoints)
    engine = Engine(
        app.resolver,
        transports=app.transports,
        failpoints=armed,
        observer=None if output.as_json else progress,
        secrets=app.secrets,
    )

    async def body() -> tuple[RunResult, Json, Json]:
        _stop_on_sigterm()
        async with open_stores(common, armed) as stores:
            try:
                result = await go(stores, engine)
                exports = await exports_of(stores, app.resolver.planner, result)
                return result, exports, await status_of(stores, result.run_id)
            finally:
                await app.transports.aclose()

    try:
        with progress:
            result, exports, status = asyncio.run(body())
    except (KeyboardInterrupt, asyncio.CancelledError):
        command = typed_command("run resume", common, source, run_id)
        output.error(
            "interrupted", f"run {run_id} was interrupted; nothing is lost", f"go on with: {command}"
        )
        return EXIT_INTERRUPTED
    short = run_id[:SHOWN_ID_CHARACTERS]
    if output.as_json:
        output.data(result.to_json() | {"result": exports})
    elif not waits and result.phase is RunPhase.RUNNING:
        output.line(f"run {run_id} is left to a worker: {typed_command('worker', common, source)}")
    else:
        for name, value in exports.items():
            output.line(f"{name}: {shown(value)}")
        if result.waiting_for is not None:
            output.line(f"run {short} waits for {waiting_for(status)}")
            for step in next_steps(status):
                output.line(step)
            output.line(f"a worker goes on with it then: {typed_command('worker', common, source)}")
            return EXIT_COMPLETED
        output.line(f"run {short} {result.phase.value.lower()}; see it with: perdure run status {short}")
    return EXIT_FAILED if result.phase in (RunPhase.FAILED, RunPhase.CANCELLED) else EXIT_COMPLETED


def _stop_on_sigterm() -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
