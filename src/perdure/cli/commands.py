"""The commands."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App as CommandApp
from cyclopts import CycloptsError, Parameter

from perdure import __version__
from perdure.cli.output import (
    EXIT_COMPLETED,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_STORE,
    EXIT_USAGE,
    Output,
    UsageError,
    exit_code_of,
    visible,
)
from perdure.cli.progress import Progress
from perdure.cli.reading import all_runs, find_run, status_of, summary_of, when
from perdure.engine.engine import Engine, RunResult, StartRun
from perdure.errors import Json, NotFoundError, PerdureError
from perdure.failpoints import Failpoints
from perdure.ids import ArtifactId, RunId
from perdure.model.config import RetryPolicy, RunConfig
from perdure.model.context import JsonContext
from perdure.model.events import DomainEvent, RunPhase, is_engine_event
from perdure.sdk import App, Pipeline, load_app, manifest_for
from perdure.stores.bundle import Stores

STORE_VARIABLE = "PERDURE_STORE"
APP_VARIABLE = "PERDURE_APP"
DEBUG_VARIABLE = "PERDURE_DEBUG"
SHOWN_ID_CHARACTERS = 13
"""How much of a run's id a table shows: enough to name the run with."""


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every command takes."""

    store: Annotated[str | None, Parameter(env_var=STORE_VARIABLE)] = None
    """Where runs are kept: a path or an address such as sqlite:PATH."""
    json: Annotated[bool, Parameter(negative=())] = False
    """Print JSON, for programs."""


@Parameter(name="*")
@dataclass(frozen=True)
class Source:
    """Where operations come from."""

    app: Annotated[str | None, Parameter(env_var=APP_VARIABLE)] = None
    """The app that knows the operations: module:attribute."""


COMMON, SOURCE = Common(), Source()
Hidden = Annotated[tuple[str, ...], Parameter(show=False)]

cli = CommandApp(
    name="perdure",
    help="Durable, replayable, provable runs.",
    version=__version__,
    result_action="return_value",
)
run = CommandApp(name="run", help="Start, resume and look at runs.")
artifact = CommandApp(name="artifact", help="Read what runs have written.")
op = CommandApp(name="op", help="Look at operations.")
for part in (run, artifact, op):
    cli.command(part)


def run_command(words: Sequence[str]) -> int:
    """Run the command that ``words`` spell, and turn every error into a message and an exit code."""
    output = Output(as_json="--json" in words)
    try:
        code = cli(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        output.error("usage", str(error), "see `perdure --help`")
        return EXIT_USAGE
    except PerdureError as error:
        output.error(error.code, error.info.message, error.hint)
        return exit_code_of(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader went away, as `head` does; what is still buffered must not raise at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_COMPLETED
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        output.error(
            "internal_error", f"{type(error).__name__}", f"set {DEBUG_VARIABLE}=1 to see where, and report it"
        )
        return EXIT_STORE
    return code if isinstance(code, int) else EXIT_COMPLETED


@run.command
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
    max_attempts: int = 3,
    failpoint: Hidden = (),
    common: Common = COMMON,
    source: Source = SOURCE,
) -> int:
    """Start a run of an operation and drive it to its end.

    perdure run start repo_audit --app examples.repo_audit:app --input '{"path": "."}'

    Parameters
    ----------
    op_id
        The operation's name; `perdure op list` shows them.
    input
        The operation's input: JSON, @FILE, or - for standard input.
    op_version
        The operation's version; the newest one unless given.
    op_config
        The operation's configuration: JSON, @FILE, or -.
    context
        The initial context: a JSON object, @FILE, or -.
    run_id
        The new run's id; a random one unless given.
    key
        An invocation key: starting twice with one key is starting once.
    max_attempts
        How often a state is tried.
    """
    output = Output(as_json=common.json)
    app = _app(source)
    found = app.op(op_id, op_version)
    pipeline = Pipeline.of_op(op_id, found.op_version, _json(op_config, None, "op-config"))
    config = RunConfig(retry_policy=RetryPolicy(max_attempts))
    manifest = manifest_for(pipeline, _json(input, None, "input"), config)
    values = _json(context, {}, "context")
    if not isinstance(values, dict):
        raise UsageError.of("input_malformed", "the initial context is not a JSON object")
    plan = app.resolver.resolve(manifest)
    wanted = RunId(run_id) if run_id is not None else RunId.for_invocation(key) if key else RunId.random()

    async def go(stores: Stores, engine: Engine) -> RunResult:
        manifest_id = await stores.put_manifest(manifest)
        initial = JsonContext(values)
        begun = StartRun(manifest, manifest_id, plan, config, initial, wanted, key)
        return await engine.start(stores, begun)

    return _drive(output, common, source, app, failpoint, wanted, go)


@run.command
def resume(
    run_id: str, /, *, failpoint: Hidden = (), common: Common = COMMON, source: Source = SOURCE
) -> int:
    """Drive a run on from where it stopped.

    perdure run resume 4f1c --app examples.repo_audit:app

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    """
    output = Output(as_json=common.json)
    app = _app(source)
    found = _reading(common, lambda stores: find_run(stores, run_id))

    async def go(stores: Stores, engine: Engine) -> RunResult:
        return await engine.resume(stores, found)

    return _drive(output, common, source, app, failpoint, found, go)


@run.command
def status(run_id: str, /, *, common: Common = COMMON) -> int:
    """Show how a run stands: its states, attempts, facts and outputs.

    perdure run status 4f1c

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    """

    async def read(stores: Stores) -> Json:
        return await status_of(stores, await find_run(stores, run_id))

    data = _reading(common, read)
    output = Output(as_json=common.json)
    if common.json:
        output.data(data)
        return EXIT_COMPLETED
    output.line(f"run      {data['run_id']}")
    output.line(f"phase    {data['phase']}")
    output.line(f"op       {data['op_id']} {data['op_version']}")
    output.line(f"started  {when(data['started_millis'])} UTC, last event {when(data['last_event_millis'])}")
    output.line(f"events   {data['events']}, of them {data['facts']} facts")
    output.table(
        "",
        ["state", "status", "attempts", "error"],
        [
            [
                each["state_id"],
                each["status"],
                each["attempts"],
                f"{each['error']['code']}: {each['error']['message']}" if each["error"] else "",
            ]
            for each in data["states"]
        ],
    )
    for each in data["outputs"]:
        output.line(f"output   {visible(str(each['name'] or ''))} {each['artifact_id']}")
    return EXIT_COMPLETED


@run.command(name="list")
def list_runs(*, phase: str | None = None, limit: int = 50, common: Common = COMMON) -> int:
    """List runs.

    perdure run list --phase running

    Parameters
    ----------
    phase
        Only runs in this phase: running, completed, failed or cancelled.
    limit
        At most so many.
    """
    if phase is not None and phase.capitalize() not in RunPhase._value2member_map_:
        raise UsageError.of("usage", "a phase is running, completed, failed or cancelled")

    async def read(stores: Stores) -> list[Json]:
        found: list[Json] = []
        async for run_id in all_runs(stores):
            summary = await summary_of(stores, run_id)
            if phase is None or summary["phase"] == phase.capitalize():
                found.append(summary)
            if len(found) >= limit:
                break
        return found

    data = _reading(common, read)
    output = Output(as_json=common.json)
    if common.json:
        output.data(data)
    elif not data:
        output.line("no runs")
    else:
        output.table(
            "",
            ["run", "op", "phase", "states", "started (UTC)"],
            [
                [
                    each["run_id"][:SHOWN_ID_CHARACTERS],
                    each.get("op_id") or "",
                    each["phase"] or each["error"],
                    each.get("states_completed", ""),
                    when(each.get("started_millis")),
                ]
                for each in data
            ],
        )
    return EXIT_COMPLETED


@run.command
def events(
    run_id: str,
    /,
    *,
    from_seq: Annotated[int, Parameter(name="--from")] = 1,
    to_seq: Annotated[int | None, Parameter(name="--to")] = None,
    engine_only: Annotated[bool, Parameter(name="--engine", negative=())] = False,
    common: Common = COMMON,
) -> int:
    """Show a run's events.

    perdure run events 4f1c --from 10

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    from_seq
        The first event's number.
    to_seq
        The last event's number.
    engine_only
        Leave out domain events that recovery does not need.
    """

    async def read(stores: Stores) -> list[Any]:
        found = await find_run(stores, run_id)
        if not await stores.events.head_seq(found):
            raise NotFoundError.of("run_not_found", "no such run is kept here")
        return await stores.events.read_range(found, from_seq, to_seq)

    output = Output(as_json=common.json)
    chosen = [each for each in _reading(common, read) if not engine_only or is_engine_event(each.event)]
    if common.json:
        output.data([envelope.to_json() for envelope in chosen])
        return EXIT_COMPLETED
    output.table(
        "",
        ["#", "time (UTC)", "event", ""],
        [[each.seq, when(each.ts_millis), *_event_cells(each.event)] for each in chosen],
    )
    return EXIT_COMPLETED


@artifact.command
def get(artifact_id: str, /, *, output: Path | None = None, common: Common = COMMON) -> int:
    """Print an artifact's bytes, or write them to a file.

    perdure artifact get 5041bf1f… --output report.md

    Parameters
    ----------
    artifact_id
        The artifact's id: 64 hexadecimal digits.
    output
        The file to write; standard output unless given.
    """
    wanted = ArtifactId(artifact_id)
    data: bytes = _reading(common, lambda stores: stores.artifacts.get(wanted))
    if output is None and not common.json:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return EXIT_COMPLETED
    if output is not None:
        try:
            output.write_bytes(data)
        except OSError as error:
            raise UsageError.of("usage", f"the file cannot be written: {error.strerror}") from error
    if common.json:
        text = data.decode("utf-8", "replace")
        shown = {"artifact_id": wanted, "bytes": len(data)} | ({"text": text} if output is None else {})
        Output(as_json=True).data(shown)
    return EXIT_COMPLETED


@op.command(name="list")
def list_ops(*, common: Common = COMMON, source: Source = SOURCE) -> int:
    """List the operations of the app.

    perdure op list --app examples.repo_audit:app
    """
    data = [
        {
            "op_id": each.op_id,
            "op_version": each.op_version,
            "imports": list(each.imports),
            "exports": list(each.exports),
        }
        for each in _app(source).ops
    ]
    output = Output(as_json=common.json)
    if common.json:
        output.data(data)
    else:
        output.table(
            "",
            ["op", "version", "imports", "exports"],
            [[e["op_id"], e["op_version"], ", ".join(e["imports"]), ", ".join(e["exports"])] for e in data],
        )
    return EXIT_COMPLETED


def _drive(
    output: Output,
    common: Common,
    source: Source,
    app: App,
    failpoints: Sequence[str],
    run_id: RunId,
    go: Callable[[Stores, Engine], Awaitable[RunResult]],
) -> int:
    """Drive a run while showing its progress; an interruption leaves it resumable and says how."""
    progress = Progress(output)
    armed = Failpoints.parse(failpoints)
    engine = Engine(
        app.resolver,
        transports=app.transports,
        failpoints=armed,
        observer=None if output.as_json else progress,
    )

    async def body() -> RunResult:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        async with _open(common, armed) as stores:
            return await go(stores, engine)

    try:
        with progress:
            result = asyncio.run(body())
    except (KeyboardInterrupt, asyncio.CancelledError):
        command = _resume_command(run_id, common, source)
        output.error(
            "interrupted", f"run {run_id} was interrupted; nothing is lost", f"go on with: {command}"
        )
        return EXIT_INTERRUPTED
    if output.as_json:
        output.data(result.to_json())
    else:
        shown = run_id[:SHOWN_ID_CHARACTERS]
        output.line(f"run {shown} {result.phase.value.lower()}; see it with: perdure run status {shown}")
    return EXIT_FAILED if result.phase in (RunPhase.FAILED, RunPhase.CANCELLED) else EXIT_COMPLETED


def _resume_command(run_id: RunId, common: Common, source: Source) -> str:
    words = ["perdure", "run", "resume", run_id]
    words += ["--app", source.app] if source.app else []
    words += ["--store", common.store] if common.store else []
    return shlex.join(words)


def _reading(common: Common, read: Callable[[Stores], Awaitable[Any]]) -> Any:
    async def body() -> Any:
        async with _open(common) as stores:
            return await read(stores)

    return asyncio.run(body())


def _open(common: Common, failpoints: Failpoints | None = None) -> Stores:
    return Stores.open(common.store if common.store else str(default_store_path()), failpoints)


def default_store_path() -> Path:
    """``runs.db`` in the user's data folder."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "perdure" / "runs.db"


def _app(source: Source) -> App:
    if source.app is not None:
        return load_app(source.app)
    from importlib.metadata import entry_points

    apps = [load_app(entry.value) for entry in entry_points(group="perdure.ops")]
    if not apps:
        raise UsageError.of(
            "app_not_found",
            "no app was named, and none is installed",
            hint=f"name one with --app module:attribute, or in {APP_VARIABLE}",
        )
    return App(
        ops=[each for app in apps for each in app.ops],
        transports=[factory for app in apps for factory in app.transports.factories],
    )


def _json(text: str | None, default: Json, what: str) -> Json:
    """The JSON of an argument: given as it is, as ``@FILE``, or ``-`` for standard input."""
    if text is None:
        return default

    def refuse(_: str) -> NoReturn:
        raise ValueError

    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text()
        return json.loads(text, parse_constant=refuse)
    except OSError as error:
        raise UsageError.of(
            "input_malformed", f"--{what}: the file cannot be read: {error.strerror}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError.of(
            "input_malformed", f"--{what} is not JSON", hint='quote it for the shell: \'{"path": "."}\''
        ) from error


def _event_cells(event: Any) -> list[str]:
    if isinstance(event, DomainEvent):
        payload = event.payload if isinstance(event.payload, dict) else {"payload": event.payload}
        told = [f"{name}={_short(value)}" for name, value in payload.items() if value and name != "meta"]
        return [event.name, " ".join(told)]
    body = next(iter(event.to_json()["Kernel"].values()))
    error = body.pop("error", None)
    words = [f"{name}={_short(value)}" for name, value in body.items() if value is not None]
    if error is not None:
        words.append(f"{error['info']['code']}: {error['info']['message']}")
    return [type(event).__name__, " ".join(words)]


def _short(value: Json) -> str:
    text = str(value)
    return text[:12] + "…" if len(text) == 64 else text
