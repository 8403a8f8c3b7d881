"""The family of a run on the screen; the ordinary pictures are among the screens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import perdure
from perdure import App, IoProvider, RunId, RunStatus, Stores
from perdure.cli.family import FamilyTree, family_text
from perdure.cli.output import Output, span
from perdure.cli.progress import Progress
from perdure.model.events import ParentRun, RunCompleted
from perdure.sdk.families import FamilyReader, Member
from perdure.stores.ports import Append
from tests.families import failed, waits_for_signal, write_run
from tests.unit.test_cli import Terminal

ROOT = RunId.for_invocation("root")


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """A terminal, and an empty store."""
    made = Terminal(tmp_path / "runs.db", capsys)
    assert made.type("store", "init")[0] == 0
    return made


def fill(terminal: Terminal, write: Callable[[Stores], Awaitable[None]]) -> None:
    """Write into a terminal's store."""

    async def body() -> None:
        async with Stores.sqlite(terminal.store) as stores:
            await write(stores)

    asyncio.run(body())


async def crowd(stores: Stores) -> list[RunId]:
    """A parent of 80: two failed, three that wait, five that run, one of them cancelled, the rest done."""
    ids = [ROOT.child(str(number)) for number in range(80)]
    await write_run(stores, ROOT, children=ids)
    for number, child in enumerate(ids):
        parent, end = ParentRun(ROOT, 1), RunStatus.COMPLETED
        if number in (40, 70):
            await write_run(stores, child, parent=parent, after=[failed("no_luck")], end=RunStatus.FAILED)
        elif number in (3, 33, 63):
            await write_run(stores, child, parent=parent, after=[waits_for_signal("go")])
        elif number < 8:
            await write_run(stores, child, parent=parent)
        else:
            await write_run(stores, child, parent=parent, end=RunStatus.CANCELLED if number == 9 else end)
    return ids


def picture(root: Member, asked: RunId, width: int = 100, *, shows_all: bool = False) -> list[str]:
    """The lines of a family's picture."""
    console = Console(width=width, no_color=True)
    with console.capture() as captured:
        console.print(FamilyTree(asked, shows_all=shows_all).drawn(root, console))
    return captured.get().splitlines()


async def test_of_many_children_those_are_shown_that_need_attention() -> None:
    """The most urgent first, then how many others there are; whoever was asked for is always there."""
    stores = Stores.in_memory()
    ids = await crowd(stores)
    root = await FamilyReader(stores, ROOT).read()
    lines = picture(root, ROOT)
    assert [line.split()[1] for line in lines[1:-1]] == [
        str(ids[number])[:13] for number in (40, 70, 3, 33, 63, 0, 1, 2, 4, 5, 6, 7)
    ]
    assert "✗ failed: no_luck" in lines[1]
    assert lines[-1] == "└── … and 1 cancelled, 67 completed"
    asked = picture(root, ids[77])
    assert "this" in asked[1]
    assert asked[-1].endswith("66 completed")
    assert len(picture(root, ROOT, shows_all=True)) == 81


async def test_what_needs_attention_is_shown_with_its_ancestors() -> None:
    """Though these are done."""
    stores = Stores.in_memory()
    await crowd(stores)
    busy, left = RunId.for_invocation("busy"), RunId.for_invocation("left")
    root_of_all, others = RunId.for_invocation("all"), [RunId.random() for _ in range(60)]
    await write_run(stores, root_of_all, children=[*others, busy])
    for each in others:
        await write_run(stores, each, parent=ParentRun(root_of_all, 1), end=RunStatus.COMPLETED)
    await write_run(stores, busy, parent=ParentRun(root_of_all, 1), children=[left], end=RunStatus.COMPLETED)
    await write_run(stores, left, parent=ParentRun(busy, 2))
    lines = picture(await FamilyReader(stores, root_of_all).read(), root_of_all)
    assert lines[1].startswith(f"├── {busy[:13]}")
    assert lines[2].startswith(f"│   └── {left[:13]}")
    assert lines[3:] == ["└── … and 60 completed"]


async def test_more_than_fifty_that_need_attention() -> None:
    """The rest is counted by how it stands."""
    stores = Stores.in_memory()
    ids = [ROOT.child(str(number)) for number in range(60)]
    await write_run(stores, ROOT, children=ids)
    for child in ids[:55]:
        await write_run(stores, child, parent=ParentRun(ROOT, 1))
    lines = picture(await FamilyReader(stores, ROOT).read(), ROOT)
    assert len(lines) == 52
    assert sum("missing" in line for line in lines[:-1]) == 5
    assert lines[-1] == "└── … and 10 running"


async def test_a_deep_family_stays_on_the_screen() -> None:
    """What lies too deep to be set off says how deep it lies; and its JSON is whole."""
    stores, ids = Stores.in_memory(), [ROOT]
    for depth in range(1200):
        ids.append(ids[-1].child("next"))
        await write_run(
            stores, ids[-2], parent=ParentRun(ids[-3], depth) if depth else None, children=[ids[-1]]
        )
    root = await FamilyReader(stores, ROOT).read()
    lines = picture(root, ROOT, width=80)
    assert len(lines) == 1201
    assert max(map(len, lines)) <= 80
    assert lines[1000].endswith("1000 deep")
    assert family_text(root).count('"run_id"') == 1201


async def test_the_text_for_programs_is_json() -> None:
    """Exactly as ``json`` would write it."""
    stores = Stores.in_memory()
    await crowd(stores)
    root = await FamilyReader(stores, ROOT).read()

    def nested(member: Member) -> Any:
        return member.to_json() | {"children": [nested(child) for child in member.children]}

    assert family_text(root) == json.dumps(nested(root), sort_keys=True)


def test_the_tree_of_a_program_and_of_a_person(terminal: Terminal) -> None:
    """Any member names the family; what nobody began is an error with a hint."""

    async def write(stores: Stores) -> None:
        await write_run(stores, ROOT, children=[ROOT.child("a"), ROOT.child("b")])
        await write_run(stores, ROOT.child("a"), parent=ParentRun(ROOT, 1), end=RunStatus.COMPLETED)

    fill(terminal, write)
    tree = terminal.read("run", "tree", ROOT.child("a"))
    assert (tree["run_id"], [each["phase"] for each in tree["children"]]) == (ROOT, ["Completed", None])
    assert [each["error"] for each in tree["children"]] == [None, "run_not_found"]
    code, out, _ = terminal.type("run", "tree", ROOT[:8])
    assert code == 0
    assert "? missing" in out
    for words in ([RunId.random()], ["ffff"], [RunId.random(), "--follow"]):
        assert terminal.error("run", "tree", *words) == (2, "run_not_found")
    assert terminal.error("run", "tree", "not-an-id") == (2, "run_not_found")


@pytest.mark.parametrize(("end", "code"), [(RunStatus.COMPLETED, 0), (RunStatus.FAILED, 1), (None, 1)])
def test_following_ends_with_the_root(terminal: Terminal, end: RunStatus | None, code: int) -> None:
    """And has its exit code; one that is missing will not be seen to end."""

    async def write(stores: Stores) -> None:
        if end is not None:
            await write_run(stores, ROOT, children=[ROOT.child("a")], end=end)
        await write_run(stores, ROOT.child("a"), parent=ParentRun(ROOT, 1))

    fill(terminal, write)
    exit_code, out, _ = terminal.type("run", "tree", ROOT.child("a"), "--follow")
    assert (exit_code, len(out.splitlines())) == (code, 2)
    exit_code, out, _ = terminal.type("run", "tree", ROOT.child("a"), "--follow", "--json")
    assert exit_code == code
    assert json.loads(out)["data"]["run_id"] == ROOT


async def test_following_tells_what_changes() -> None:
    """A line for each member that stands otherwise, and none for the others."""
    stores = Stores.in_memory()
    ids = await crowd(stores)
    reader, tree = FamilyReader(stores, ROOT), FamilyTree(ROOT, shows_all=False)
    assert tree.changes(await reader.read()) == []
    assert tree.changes(await reader.read()) == []
    await stores.commit([], [Append(ids[0], 2, [RunCompleted(RunStatus.CANCELLED)])])
    (line,) = tree.changes(await reader.read())
    assert line.startswith(f"{ids[0][:13]}  job 1  ■ cancelled")


async def test_a_run_tells_of_its_children(capsys: pytest.CaptureFixture[str]) -> None:
    """How they begin and end, what they wait for and why they failed; their states are theirs."""
    stores, child = Stores.in_memory(), ROOT.child("a")
    await write_run(stores, ROOT, children=[child])
    await write_run(
        stores,
        child,
        parent=ParentRun(ROOT, 1),
        after=[waits_for_signal("go"), failed("no_luck")],
        end=RunStatus.FAILED,
    )
    progress = Progress(Output(as_json=False), ROOT)
    for run_id in (ROOT, child):
        for envelope in await stores.events.read_range(run_id, 1):
            progress.take(run_id, envelope.event, 1000.0)
    name = f"child {child[:13]}"
    assert capsys.readouterr().out.splitlines() == [
        f"run {ROOT} started",
        "job.main.work entered",
        f"{name} of job started",
        f"{name}: job.main.work waits for the signal go",
        f"{name} failed in 0 ms: no_luck: it failed",
    ]


def test_a_worker_tells_of_children(terminal: Terminal) -> None:
    """Each is taken up, and ends or waits; with one place to execute at a time too."""
    at = ("--app", "tests.cli.orders:app")
    key = ("--key", "k", "--input", '["tea", "milk", "saffron"]')
    assert terminal.type("run", "start", "order", "--detach", *key, *at)[0] == 0
    code, out, _ = terminal.type("worker", "--until-idle", "--concurrency", "1", *at)
    tree = terminal.read("run", "tree", RunId.for_invocation("k"))
    (greeting, *items) = tree["children"]
    assert code == 0
    assert sorted(out.splitlines()[1:]) == sorted(
        [
            *(f"run {each['run_id']} taken up" for each in (tree, greeting, *items)),
            f"run {greeting['run_id']} waits for the signal written",
            f"run {items[0]['run_id']} completed",
            f"run {items[1]['run_id']} failed",
            f"run {items[2]['run_id']} waits for the signal found",
            f"run {tree['run_id']} waits for child {items[2]['run_id'][:13]}",
        ]
    )
    assert terminal.type("run", "signal", items[2]["run_id"], "found")[0] == 0
    assert terminal.read("worker", "--until-idle", *at) == {"completed": 2, "failed": 0}


nap, parting = perdure.op("nap"), perdure.op("parting")


@nap.state
async def rest(io: IoProvider) -> None:
    """For a moment."""
    await io.sleep(timedelta(milliseconds=300))


@parting.state
async def leave() -> None:
    """Without waiting for the child."""
    await perdure.spawn(nap, close="abandon")


app = App([nap, parting])


def test_a_worker_with_children_is_not_idle(terminal: Terminal) -> None:
    """Though the run that it took up has ended."""
    at = ("--app", "tests.unit.test_cli_family:app")
    assert terminal.type("run", "start", "parting", "--detach", "--key", "k", *at)[0] == 0
    assert terminal.read("worker", "--until-idle", *at) == {"completed": 2, "failed": 0}


@pytest.mark.parametrize("given", ["0", "x", "-1", "1.5"])
def test_a_concurrency_that_is_none(terminal: Terminal, given: str) -> None:
    """It is told as usage."""
    assert terminal.error("worker", "--until-idle", f"--concurrency={given}") == (2, "usage")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 ms"),
        (0.25, "250 ms"),
        (59.9, "59.9 s"),
        (61, "1 min 1 s"),
        (7380, "2 h 3 min"),
        (9e4, "1 d 1 h"),
    ],
)
def test_how_long_something_took(seconds: float, words: str) -> None:
    """In the two largest units."""
    assert span(seconds) == words
