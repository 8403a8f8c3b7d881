"""Runs that go on as new ones, on the screen."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import App, Context, IoProvider, RunId, Stores
from perdure.cli.family import FamilyTree
from perdure.sdk.families import FamilyReader, members
from tests.unit.test_cli import Terminal
from tests.unit.test_cli_family import picture

FIRST = RunId.for_invocation("first")
LEGS = [FIRST, FIRST.next_leg(), FIRST.next_leg().next_leg()]

tick = perdure.op("tick", input=int, output=int)


@tick.state
async def count(n: int) -> int:
    """Up to three, one a leg."""
    if n < 3:
        perdure.continue_as_new(n + 1)
    return n


listen = perdure.op("listen", output=str)


@listen.state
async def hear(io: IoProvider, ctx: Context) -> str:
    """Goes on with every word but the last."""
    signal = await io.wait_signal("word")
    assert signal is not None
    if signal.value != "last":
        perdure.continue_as_new()
    return str(signal.value)


parent = perdure.op("parent", output=str)


@parent.state
async def ask(io: IoProvider) -> str:
    """Awaits a child that goes on."""
    return await (await perdure.spawn(listen)).result()


app = App([tick, listen, parent])
HERE = ("--app", "tests.unit.test_cli_continued:app")


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """A terminal, and an empty store."""
    made = Terminal(tmp_path / "runs.db", capsys)
    assert made.type("store", "init")[0] == 0
    return made


def told(terminal: Terminal, *words: str) -> Any:
    """What a command prints as JSON."""
    code, printed, _ = terminal.type(*words, "--json")
    assert code == 0
    return json.loads(printed)["data"]


def test_starting_ends_with_the_last_leg(terminal: Terminal) -> None:
    """Each leg is told of as it begins; the result is the last one's."""
    code, printed, _ = terminal.type("run", "start", "tick", "--key", "first", "--input", "1", *HERE)
    lines = printed.splitlines()
    assert code == 0
    assert [line for line in lines if "goes on" in line] == [
        f"run {before} goes on as {after}" for before, after in pairwise(LEGS)
    ]
    assert sum("completed after" in line for line in lines) == 1
    assert sum("started" in line for line in lines) == 1
    assert "count: 3" in lines
    assert lines[-1].startswith(f"run {LEGS[-1][:13]} completed")


def test_a_list_shows_the_newest_legs(terminal: Terminal) -> None:
    """All of them if asked for, those that went on marked; on the wire they are Completed."""
    terminal.type("run", "start", "tick", "--key", "first", "--input", "1", *HERE)
    terminal.type("run", "start", "tick", "--input", "3", *HERE)
    assert [(each["run_id"], each.get("leg")) for each in told(terminal, "run", "list")][1:] == [(LEGS[2], 3)]
    every = told(terminal, "run", "list", "--legs")[1:]
    assert [(each["run_id"], each["leg"], each["phase"], each["continued_as"]) for each in every] == [
        (LEGS[2], 3, "Completed", None),
        (LEGS[1], 2, "Completed", LEGS[2]),
        (LEGS[0], 1, "Completed", LEGS[1]),
    ]
    assert len(told(terminal, "run", "list", "--phase", "completed")) == 2
    _, printed, _ = terminal.type("run", "list", "--legs")
    assert printed.count("Continued") == 2
    _, printed, _ = terminal.type("run", "list")
    assert printed.count("Continued") == 0
    assert "leg" in printed


def test_a_status_says_where_in_its_chain_a_run_is(terminal: Terminal) -> None:
    """Which leg of how many, what it went on as, and which is the newest."""
    terminal.type("run", "start", "tick", "--key", "first", "--input", "1", *HERE)
    shown = [terminal.type("run", "status", leg)[1].splitlines() for leg in LEGS]
    assert [lines[2] for lines in shown] == [f"leg      {n} of 3, the first is {FIRST}" for n in (1, 2, 3)]
    assert shown[0][3:5] == [f"went on  as {LEGS[1]}", f"newest   {LEGS[2]}"]
    assert shown[1][3] == f"went on  as {LEGS[2]}"
    assert not shown[1][4].startswith("newest")
    assert shown[2][3].startswith("op ")
    status = told(terminal, "run", "status", LEGS[1])
    assert (status["continues"], status["newest_run_id"], status["legs"]) == (LEGS[0], LEGS[2], 3)
    assert "run_continued" in terminal.type("run", "events", LEGS[0])[1]


def test_a_watcher_goes_from_leg_to_leg(terminal: Terminal) -> None:
    """To the end of the last."""
    terminal.type("run", "start", "tick", "--key", "first", "--input", "1", *HERE)
    code, printed, _ = terminal.type("run", "watch", FIRST)
    assert code == 0
    assert printed.count("goes on as") == 2
    assert printed.splitlines()[-1].startswith(f"run {LEGS[2]} completed")
    code, printed, _ = terminal.type("run", "watch", FIRST, "--json")
    runs = [json.loads(line)["run_id"] for line in printed.splitlines()]
    assert list(dict.fromkeys(runs)) == LEGS


def test_a_watcher_goes_past_legs_that_were_deleted(terminal: Terminal) -> None:
    """To the newest, which stays as long as the first."""
    terminal.type("run", "start", "tick", "--key", "first", "--input", "1", *HERE)
    assert terminal.type("run", "delete", LEGS[1])[0] == 0
    code, printed, error = terminal.type("run", "watch", FIRST)
    assert (code, error) == (0, "")
    lines = printed.splitlines()
    assert [line for line in lines if "goes on" in line] == [
        f"run {before} goes on as {after}" for before, after in pairwise(LEGS)
    ]
    assert lines[-1].startswith(f"run {LEGS[2]} completed")
    runs = [
        json.loads(line)["run_id"] for line in terminal.type("run", "watch", FIRST, "--json")[1].splitlines()
    ]
    assert list(dict.fromkeys(runs)) == [LEGS[0], LEGS[2]]
    code, _, error = terminal.type("run", "delete", LEGS[2])
    assert code == 2
    assert "run_referred_to" in error


def test_who_names_the_first_leg_reaches_the_newest(terminal: Terminal) -> None:
    """Signals, resuming, and a worker that goes on with it; leg after leg."""
    terminal.type("run", "start", "listen", "--key", "first", *HERE)
    assert terminal.type("run", "signal", FIRST, "word", '"a"')[0] == 0
    assert told(terminal, "run", "resume", FIRST, *HERE)["run_id"] == LEGS[1]
    assert terminal.type("run", "signal", FIRST, "word", '"b"')[0] == 0
    code, printed, _ = terminal.type("worker", "--until-idle", *HERE)
    assert code == 0
    assert printed.splitlines()[1:] == [
        f"run {LEGS[1]} taken up",
        f"run {LEGS[1]} goes on as {LEGS[2]}",
        f"run {LEGS[2]} waits for the signal word",
    ]
    assert terminal.type("run", "cancel", FIRST, "--why", "enough", *HERE)[0] == 0
    assert told(terminal, "run", "status", LEGS[2])["phase"] == "Cancelled"
    assert terminal.type("run", "signal", FIRST, "word", "1")[0] == 2


def test_a_worker_counts_a_run_once(terminal: Terminal) -> None:
    """However many legs it had."""
    terminal.type("run", "start", "tick", "--key", "first", "--input", "1", "--detach", *HERE)
    assert told(terminal, "worker", "--until-idle", *HERE) == {"completed": 1, "failed": 0}


async def test_a_family_is_that_of_the_newest_legs() -> None:
    """A child that went on is shown as what it is now; whoever asks for an old leg is shown where that is."""
    stores = Stores.in_memory()
    async with perdure.open(stores, app, recover=False) as p:
        run = await p.start(parent)
        while len(await stores.events.list_runs()) < 2:  # noqa: ASYNC110 — nobody announces it
            await asyncio.sleep(0)
        (child,) = [each for each in await stores.events.list_runs() if each != run.id]
        handle = await p.get(child)
        await handle.signal("word", "a")
        while await handle.newest_leg() == child:
            await p.recover()
            await asyncio.sleep(0)
    for asked in (run.id, child, child.next_leg()):
        root = await FamilyReader(stores, asked).read()
        shown = list(members(root))
        assert [each.run_id for each in shown] == [run.id, child.next_leg()]
        assert [each.is_adopted or each.is_unlinked for each in shown] == [False, False]
        assert [each.to_json().get("leg") for each in shown] == [None, 2]
    lines = picture(await FamilyReader(stores, run.id).read(), child)
    assert "leg 2" in lines[1]
    assert "this run" in lines[1]
    assert FamilyTree(run.id, shows_all=False).changes(await FamilyReader(stores, child).read()) == []


async def test_children_of_earlier_legs_are_their_parents() -> None:
    """Open ones are children of the newest leg, though they name the one that spawned them."""
    forever = perdure.op("forever")

    @forever.state
    async def never(io: IoProvider) -> None:
        await io.sleep(timedelta(days=1))

    spawns = perdure.op("spawns", input=int)

    @spawns.state
    async def once(n: int, io: IoProvider) -> None:
        if n < 3:
            await perdure.spawn(forever, name=f"n{n}")
            perdure.continue_as_new(n + 1)
        await io.wait_signal("never")

    stores = Stores.in_memory()
    async with perdure.open(stores, [forever, spawns], recover=False) as p:
        run = await p.start(spawns, 1)
        assert (await p.drive_result(run.id)).waiting_for == "signal never"
    for asked in await stores.events.list_runs():
        root = await FamilyReader(stores, asked).read()
        assert root.run_id == run.id.next_leg().next_leg()
        assert [each.is_adopted or each.is_unlinked for each in members(root)] == [False] * 3
