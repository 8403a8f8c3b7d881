"""Commands that follow what others drive: watch and tree."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Annotated, Any

from cyclopts import App as CommandApp
from cyclopts import Parameter

from perdure.cli import EXIT_INTERRUPTED
from perdure.cli.common import COMMON, Common, must_exist, open_stores, reading
from perdure.cli.family import FamilyTree, family_text
from perdure.cli.output import EXIT_COMPLETED, EXIT_FAILED, Output
from perdure.cli.progress import Progress
from perdure.ids import RunId
from perdure.model.events import RunCompleted, RunPhase
from perdure.model.legs import next_run_of
from perdure.sdk import App
from perdure.sdk.client import Client
from perdure.sdk.families import FamilyReader, Member
from perdure.sdk.finding import find_run
from perdure.sdk.legs import chain_of
from perdure.sdk.waking import POLL_SECONDS
from perdure.stores.bundle import Stores


def add_to(run: CommandApp) -> None:
    """Add the commands to ``run``."""
    for command in (watch, tree):
        run.command(command)


def watch(run_id: str, /, *, common: Common = COMMON) -> int:
    """Follow a run that another process drives, until it ends; from leg to leg if it goes on as others.

    perdure run watch 4f1c

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    """
    output = Output(as_json=common.json)
    must_exist(common)

    async def body() -> RunPhase:
        async with open_stores(common) as stores:
            found = await find_run(stores, run_id)
            leg: RunId | None = found
            phase = RunPhase.RUNNING
            with Progress(output, found) as progress:
                while leg is not None:
                    watched, leg = leg, None
                    async for envelope in Client(stores, App()).events_of(watched):
                        if common.json:
                            print(json.dumps(envelope.to_json(), sort_keys=True), flush=True)
                        else:
                            progress.take(watched, envelope.event, (envelope.ts_millis or 0) / 1000)
                        leg = next_run_of(envelope.event) or leg
                        if isinstance(envelope.event, RunCompleted):
                            phase = RunPhase(envelope.event.status.value)
                    if leg is not None:
                        leg = await _next_leg(stores, progress, watched, leg)
            return phase

    try:
        phase = asyncio.run(body())
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return EXIT_COMPLETED if phase is RunPhase.COMPLETED else EXIT_FAILED


async def _next_leg(stores: Stores, progress: Progress, watched: RunId, heir: RunId) -> RunId | None:
    """The leg to watch after ``watched``: ``heir``, or the newest if that was deleted; None if all were."""
    if await stores.events.read_range(heir, 1, 1):
        return heir
    newest = await stores.newest_leg(watched)
    if newest == watched:
        return None
    progress.skip(heir, newest)
    return newest


def tree(
    run_id: str,
    /,
    *,
    all_members: Annotated[bool, Parameter(name="--all", negative=())] = False,
    follow: Annotated[bool, Parameter(negative=())] = False,
    common: Common = COMMON,
) -> int:
    """Show the family of a run: the run that nobody spawned, its children, and theirs.

    perdure run tree 4f1c

    Any member may be named. Of many children of one parent those are shown that need attention.

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    all_members
        Show every child, however many there are.
    follow
        Show it anew whenever something changes, until the run that nobody spawned has ended.
    """
    output = Output(as_json=common.json)
    if follow:
        must_exist(common)
        try:
            return asyncio.run(_follow(output, common, run_id, shows_all=all_members))
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED

    async def read(stores: Stores) -> tuple[RunId, Member]:
        found = await find_run(stores, run_id)
        return await chain_of(stores, found), await FamilyReader(stores, found).read()

    asked, root = reading(common, read)
    if common.json:
        output.data_text(family_text(root))
    else:
        console = output.console()
        console.print(FamilyTree(asked, shows_all=all_members).drawn(root, console))
    return EXIT_COMPLETED


async def _follow(output: Output, common: Common, run_id: str, *, shows_all: bool) -> int:
    async with open_stores(common) as stores:
        asked = await find_run(stores, run_id)
        reader = FamilyReader(stores, asked)
        shown = FamilyTree(await chain_of(stores, asked), shows_all=shows_all)
        console, text = output.console(), ""
        root = await reader.read()
        live: Any = None
        if output.is_live:
            from rich.live import Live

            live = Live(shown.drawn(root, console), console=console, auto_refresh=False)
            live.start()
        try:
            if live is None and not common.json:
                console.print(shown.drawn(root, console))
            while True:
                if live is not None:
                    live.update(shown.drawn(root, console), refresh=True)
                elif not common.json:
                    for line in shown.changes(root):
                        output.line(line)
                elif text != (text := family_text(root)):
                    output.data_text(text)
                    sys.stdout.flush()
                # A root that cannot be read will not be seen to end.
                if root.standing.phase is not RunPhase.RUNNING:
                    break
                await asyncio.sleep(POLL_SECONDS)
                root = await reader.read()
        finally:
            if live is not None:
                live.stop()
                sys.stdout.flush()
    return EXIT_COMPLETED if root.standing.phase is RunPhase.COMPLETED else EXIT_FAILED
