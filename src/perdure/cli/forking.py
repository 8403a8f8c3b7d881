"""The command that begins a run where another one entered a state."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App as CommandApp
from cyclopts import Parameter

from perdure.cli.common import (
    COMMON,
    SOURCE,
    Common,
    Hidden,
    Source,
    json_argument,
    new_run_id,
    reading,
    wanted_app,
)
from perdure.cli.driving import drive_run
from perdure.cli.output import Output, UsageError
from perdure.cli.telling import who
from perdure.engine.engine import Engine
from perdure.engine.forking import ForkRun
from perdure.engine.results import RunResult
from perdure.errors import Json
from perdure.sdk.finding import find_run
from perdure.sdk.forks import fork_of
from perdure.stores.bundle import Stores


def add_to(run: CommandApp) -> None:
    """Add the command to ``run``."""
    run.command(fork)


def fork(
    run_id: str,
    /,
    *,
    at: str,
    set: tuple[str, ...] = (),  # noqa: A002 — the term
    op_version: str | None = None,
    id: str | None = None,  # noqa: A002 — the term
    key: str | None = None,
    by: str | None = None,
    why: str = "",
    wait: Annotated[bool, Parameter(negative="--detach")] = True,
    failpoint: Hidden = (),
    common: Common = COMMON,
    source: Source = SOURCE,
) -> int:
    """Begin a new run where another one entered a state, and drive it to its end.

    perdure run fork 4f1c --at pay --set price=1200 --why "the price was wrong" --app shop:app

    What the run had completed before it entered the state counts as completed: nothing of that is asked or
    made again. The state and what follows it are executed anew, in a run of their own. The other run, in
    whatever phase it is, does not change.

    Parameters
    ----------
    run_id
        The other run's id, or its beginning.
    at
        The state to begin with, by its id or its last word.
    set
        A value of the context that the state finds, KEY=JSON; may be given several times.
    op_version
        Go on in this version of the operation or pipeline.
    id
        The new run's id; a random one unless given.
    key
        An invocation key: forking twice with one key is forking once.
    by
        Who wants it; the system's user unless given.
    why
        The reason, which is recorded.
    wait
        Drive the run here and wait for its end, or leave it to a worker.
    """
    output = Output(as_json=common.json)
    wanted = new_run_id(id, key)
    app = wanted_app(source)
    values = value_arguments(set)

    async def planned(stores: Stores) -> ForkRun:
        origin = await find_run(stores, run_id)
        return await fork_of(
            stores,
            app,
            origin,
            at,
            values=values,
            op_version=op_version,
            run_id=wanted,
            key=key,
            by=who(by),
            reason=why,
        )

    asked = reading(common, planned)

    async def go(stores: Stores, engine: Engine) -> RunResult:
        return await engine.fork(stores, asked, drive=wait)

    return drive_run(output, common, source, app, failpoint, wanted, go, is_there=False, waits=wait)


def value_arguments(words: tuple[str, ...]) -> dict[str, Json]:
    """Values by context key, from ``KEY=JSON`` words."""
    values: dict[str, Json] = {}
    for word in words:
        key, sign, text = word.partition("=")
        if not key or not sign:
            raise UsageError.of("usage", "a value is KEY=JSON", hint="for example --set price=1200")
        if key in values:
            raise UsageError.of("usage", f"{key} is set twice")
        values[key] = json_argument(text, None, f"--set {key}")
    return values
