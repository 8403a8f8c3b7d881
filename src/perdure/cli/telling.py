"""Commands that tell a run something: signal, cancel, terminate, pause, unpause, resolve."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from typing import Annotated

from cyclopts import App as CommandApp
from cyclopts import Parameter

from perdure.cli.common import (
    COMMON,
    SOURCE,
    Common,
    Source,
    json_argument,
    must_exist,
    open_stores,
    short,
    typed_command,
    wanted_app,
    whole,
)
from perdure.cli.output import EXIT_COMPLETED, Output, UsageError
from perdure.engine.recovery import read_view
from perdure.errors import Json
from perdure.sdk import App
from perdure.sdk.client import Client
from perdure.sdk.kin import hearers_of
from perdure.sdk.reading import status_of
from perdure.sdk.runs import Run


def add_to(run: CommandApp) -> None:
    """Add the commands to ``run``."""
    for command in (signal, cancel, terminate, pause, unpause, resolve):
        run.command(command)


def signal(
    run_id: str,
    name: str,
    value: str | None = None,
    /,
    *,
    by: str | None = None,
    id: str | None = None,  # noqa: A002 — the term
    common: Common = COMMON,
    source: Source = SOURCE,
) -> int:
    """Tell a run a value, under a name that it waits for or will wait for.

    perdure run signal 4f1c approval '{"granted": true}' --by ann

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    name
        The signal's name.
    value
        The value: JSON, @FILE, or - for standard input; null unless given.
    by
        Who says it; the system's user unless given.
    id
        The letter's id: the same id again is the same signal. A random one unless given.
    """
    told = json_argument(value, None, "the value")

    async def tell(run: Run[object]) -> str:
        posted = await run.signal(name, told, by=who(by), letter_id=id)
        return (
            f"signal {name} sent"
            if posted
            else f"signal {name}: a letter of this id waits to be read already"
        )

    return _telling(common, source, run_id, tell)


def cancel(
    run_id: str,
    /,
    *,
    why: str,
    by: str | None = None,
    common: Common = COMMON,
    source: Source = SOURCE,
) -> int:
    """Stop a run: its handler is cancelled, states that clean up run, and it ends as cancelled.

    perdure run cancel 4f1c --why "ordered twice"

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    why
        The reason, which is recorded.
    by
        Who wants it; the system's user unless given.
    """
    return _asking(common, source, run_id, lambda run: run.cancel(why, by=who(by)), "asked to stop")


def terminate(
    run_id: str,
    /,
    *,
    why: str,
    by: str | None = None,
    common: Common = COMMON,
    source: Source = SOURCE,
) -> int:
    """End a run at once, without any cleaning up.

    perdure run terminate 4f1c --why "its cleaning up hangs"

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    why
        The reason, which is recorded.
    by
        Who wants it; the system's user unless given.
    """
    return _asking(common, source, run_id, lambda run: run.terminate(why, by=who(by)), "asked to end at once")


def pause(
    run_id: str,
    /,
    *,
    why: str,
    by: str | None = None,
    common: Common = COMMON,
    source: Source = SOURCE,
) -> int:
    """Have a run stand still before its next state, until it is unpaused.

    perdure run pause 4f1c --why "the bank is closed"

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    why
        The reason, which is recorded.
    by
        Who wants it; the system's user unless given.
    """
    return _asking(common, source, run_id, lambda run: run.pause(why, by=who(by)), "asked to pause")


def unpause(
    run_id: str,
    /,
    *,
    why: str = "",
    by: str | None = None,
    common: Common = COMMON,
    source: Source = SOURCE,
) -> int:
    """Have a paused run go on.

    perdure run unpause 4f1c

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    why
        The reason, which is recorded.
    by
        Who wants it; the system's user unless given.
    """
    return _asking(common, source, run_id, lambda run: run.unpause(why, by=who(by)), "asked to go on")


def resolve(
    run_id: str,
    /,
    *,
    effect: str,
    why: str,
    happened: str | None = None,
    did_not_happen: Annotated[bool, Parameter(negative=())] = False,
    doubt: Annotated[int | None, Parameter(converter=whole)] = None,
    by: str | None = None,
    common: Common = COMMON,
    source: Source = SOURCE,
) -> int:
    """Say what became of an effect in doubt: who says it, and why, is recorded, and the run goes on.

    perdure run resolve 4f1c --effect KEY --happened '{"receipt": 7}' --by ann --why "it is on the statement"

    `perdure run list --in-doubt` shows the runs that wait for this, `perdure run status` their effects.

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    effect
        The effect's key.
    why
        How it is known, which is recorded.
    happened
        It was made, and this was its answer: JSON, @FILE, or -.
    did_not_happen
        It was not made; the run makes it now.
    doubt
        Which doubt was looked into, by its number: an effect that was made again may be in another one. The
        present one unless given.
    by
        Who knows it; the system's user unless given.
    """
    if (happened is None) is not did_not_happen:
        raise UsageError.of("usage", "say either --happened JSON or --did-not-happen")
    answer = json_argument(happened, None, "--happened")

    async def tell(run: Run[object]) -> str:
        if did_not_happen:
            await run.effect_did_not_happen(effect, by=who(by), why=why, doubt=doubt)
            return "told that it did not happen"
        await run.effect_happened(effect, answer, by=who(by), why=why, doubt=doubt)
        return "told that it happened"

    return _telling(common, source, run_id, tell)


def _asking(
    common: Common, source: Source, run_id: str, ask: Callable[[Run[object]], Awaitable[object]], done: str
) -> int:
    """Ask the run, and those of its children that hear of it, for something; say that it was ``done``."""

    async def tell(run: Run[object]) -> str:
        await ask(run)
        return done

    return _telling(common, source, run_id, tell, reaches_children=True)


def _telling(
    common: Common,
    source: Source,
    run_id: str,
    tell: Callable[[Run[object]], Awaitable[str]],
    *,
    reaches_children: bool = False,
) -> int:
    """Tell the run, and say how it stands then. An app is needed only to end a parked run here and now."""
    must_exist(common)
    app = App() if source.app is None else wanted_app(source)

    async def body() -> tuple[str, Json, int]:
        async with open_stores(common) as stores:
            client = Client(stores, app)
            try:
                run = await client.get(run_id)
                # Asked for before: most have ended a moment after they were told to.
                living = await run.newest_leg()
                children = (await read_view(stores, living)).children.values() if reaches_children else ()
                hearers = await hearers_of(stores, children)
                done = await tell(run)
                return done, await status_of(stores, await run.newest_leg()), hearers
            finally:
                await client.aclose()

    done, status, hearers = asyncio.run(body())
    lines = [f"run {status['run_id']}: {done}", _standing(status, typed_command("worker", common, source))]
    if hearers:
        told = "1 child of it is told too" if hearers == 1 else f"{hearers} children of it are told too"
        command = typed_command("run tree", common, Source(), short(status["run_id"]))
        lines.append(f"{told}; see its family with: {command}")
    Output(as_json=common.json).answer(status, *lines)
    return EXIT_COMPLETED


def _standing(status: Json, worker: str) -> str:
    if status["phase"] != "Running":
        keys = ", ".join(each["key"] for each in status["effects_in_doubt"])
        return f"it is {status['phase'].lower()}" + (f"; nobody knows what became of {keys}" if keys else "")
    if status["letters_unread"]:
        return f"whoever drives it hears of it within a second; if nobody does, start a worker: {worker}"
    if status["stop"]:
        return f"its states that clean up are left to a worker: {worker}"
    return "it is paused" if status["pause"] else f"it is left to a worker: {worker}"


def who(by: str | None) -> str:
    """Who says something: ``by``, or else the system's user."""
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return "unknown"
