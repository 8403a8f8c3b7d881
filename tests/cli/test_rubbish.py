"""What a person may type, send or take away by mistake: a clear message, an exit code, and no harm."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import App, IoProvider, RunId, RunPhase, Stores, op
from perdure.cli import main
from perdure.clock import SystemClock
from perdure.failpoints import Failpoints
from perdure.ids import ArtifactId
from perdure.model.events import ArtifactKind
from perdure.stores import locations
from perdure.stores.memory import MemoryState, MemoryStore
from tests.unit.test_cli import RUN, Terminal

HERE = "tests.cli.test_rubbish"
APP = ("--app", f"{HERE}:app")
START = ("run", "start", "same")
CONTROLS = "\x1b[31m\x9b2J\u202e"

same = op("same")


@same.state
def told(input: Any) -> Any:  # noqa: A002 — the term
    """What it was given."""
    return input


gate = threading.Event()
guarded = op("guarded", output=str)


@guarded.state
def passed() -> str:
    """Waits until it may."""
    gate.wait()
    return "through"


nap = op("nap", input=int)


@nap.state
async def rested(input: int, io: IoProvider) -> None:  # noqa: A002 — the term
    """Sleeps for so many milliseconds."""
    await io.sleep(timedelta(milliseconds=input))


app = App([same, guarded, nap])


def needy(what: str) -> App:
    """No way to get an app."""
    return app


def raising() -> App:
    """Nor this."""
    raise ValueError("out of order")


def leaving() -> App:
    """Nor this."""
    sys.exit()


def stopped() -> App:
    """Ctrl-C, while it is being made."""
    os.kill(os.getpid(), signal.SIGINT)
    return app


async def asynchronous() -> App:
    """Nor this."""
    return app


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal in an empty folder, and an empty store."""
    monkeypatch.chdir(tmp_path)
    made = Terminal(tmp_path / "runs.db", capsys)
    assert made.type("store", "init")[0] == 0
    return made


@pytest.mark.parametrize(
    ("words", "code"),
    [
        *(
            (["run", "list", "--limit", each], "usage")
            for each in ("0", "-1", "1.5", "1_0", "١", "9" * 30, "")
        ),
        *((["run", "events", RUN, "--from", each], "usage") for each in ("0", "-1", str(2**63))),
        (["run", "events", RUN, "--to", "0"], "usage"),
        *((["worker", *APP, "--poll-seconds", each], "usage") for each in ("0", "-1", "nan", "inf", "x")),
        ([*START, *APP, "--max-attempts", "0"], "usage"),
        ([*START, *APP, "--key", ""], "usage"),
        ([*START, *APP, "--key", "\udcff"], "usage"),
        ([*START, *APP, "--label", "a=1", "--label", "a=2"], "usage"),
        ([*START, *APP, "--input", "1.5"], "float_not_allowed"),
        ([*START, *APP, "--input", '{"password": "hunter2"}'], "secrets_detected"),
        ([*START, *APP, "--label", "password=hunter2"], "secrets_detected"),
        ([*START, *APP, "--op-config", '{"password": "hunter2"}'], "secrets_detected"),
        ([*START, *APP, "--op-config", "1.5"], "op_config_not_canonical"),
        ([*START, *APP, "--context", '{"x": 1.5}'], "context_not_canonical"),
        ([*START, *APP, "--input", "[" * 600 + "]" * 600], "value_too_deep"),
        ([*START, *APP, "--input", "[" * 100_000], "input_malformed"),
        (["op", "list", "--app", "json:dumps"], "app_import_failed"),
        (["op", "list", "--app", f"{HERE}:leaving"], "app_import_failed"),
        (["op", "list", "--app", f"{HERE}:needy"], "app_import_failed"),
        (["op", "list", "--app", f"{HERE}:raising"], "app_import_failed"),
        (["op", "list", "--app", f"{HERE}:asynchronous"], "app_invalid"),
        (["op", "list", "--app", "os:path"], "app_invalid"),
        *((["op", "list", "--app", each], "app_not_found") for each in ("", ":", ".:app", "../x:app", "os")),
        (["op", "show", "same", *APP, "--svg", "."], "usage"),
    ],
)
def test_what_makes_no_sense_is_refused(terminal: Terminal, words: list[str], code: str) -> None:
    """As usage, before anything is written."""
    assert terminal.error(*words) == (2, code)
    assert terminal.read("run", "list") == []


@pytest.mark.parametrize("words", [["artifact", "get", "0"], ["run", "resume", "0" * 40, *APP]])
def test_a_bad_id_says_what_such_an_id_looks_like(terminal: Terminal, words: list[str]) -> None:
    """Not what other ids look like."""
    hint = " ".join(terminal.type(*words)[2].partition("hint:")[2].split())
    assert hint.startswith(("an artifact's id is 64", "a run's id is a UUID"))


@pytest.mark.parametrize(
    "words",
    [
        ["run", "list"],
        ["run", "status", RUN],
        ["run", "watch", RUN],
        ["run", "resume", RUN, *APP],
        ["artifact", "get", "0" * 64],
        ["store", "migrate"],
    ],
)
def test_a_misspelt_path_does_not_become_a_store(
    terminal: Terminal, tmp_path: Path, words: list[str]
) -> None:
    """Only what writes makes one, and the folders to it."""
    terminal.store = tmp_path / "misspelt" / "runs.db"
    assert terminal.error(*words) == (2, "store_not_found")
    assert not (tmp_path / "misspelt").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["missing", "--every", "1h"], "op_not_found"),
        (["same", "--every", "1h", "--zone", "Nowhere"], "schedule_zone_unknown"),
        (["same", "--every", "1h", "--label", "password=hunter2"], "secrets_detected"),
        (["same", "--every", "1h", "--input", "1.5"], "float_not_allowed"),
    ],
)
def test_a_schedule_that_is_refused_leaves_no_store(
    terminal: Terminal, tmp_path: Path, words: list[str], code: str
) -> None:
    """As with a run: what is checked is checked before anything is made."""
    terminal.store = tmp_path / "misspelt" / "runs.db"
    assert terminal.error("schedule", "create", "hourly", *words, *APP) == (2, code)
    assert not (tmp_path / "misspelt").exists()


@pytest.mark.parametrize("given", [" [1]", "\ufeff[1]"], ids=["plain", "marked"])
def test_input_comes_from_standard_input_or_a_file_of_any_editor(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """``-`` alone names the one; the other may begin with a byte order mark. A number may be negative."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("[1]"))
    assert terminal.read(*START, "--input", "-", *APP)["result"] == {"told": [1]}
    (tmp_path / "given.json").write_text(given, encoding="utf-8")
    assert terminal.read(*START, "--input", "@given.json", *APP)["result"] == {"told": [1]}
    assert terminal.read(*START, "--input", "-7", *APP)["result"] == {"told": -7}


def test_nothing_moves_the_terminal_s_cursor(terminal: Terminal) -> None:
    """Whatever a run holds is shown, and for programs it is the same."""
    words = ("--key", "k", "--input", f'"{CONTROLS[5:]}"', "--context", f'{{"{CONTROLS[5:]}": 1}}')
    run_id = terminal.read(*START, *words, "--label", f"{CONTROLS}={CONTROLS}", *APP)["run_id"]
    for command in ("status", "context", "events", "facts"):
        code, out, error = terminal.type("run", command, run_id)
        assert (code, error) == (0, "")
        assert not [each for each in out if not each.isprintable() and each != "\n"]
    assert terminal.type("run", "list")[1].isprintable() is False
    assert "\x1b" not in terminal.type("run", "list")[1]
    assert terminal.read("run", "context", run_id)["context"][CONTROLS[5:]] == 1
    assert terminal.read("run", "status", run_id)["labels"] == {CONTROLS: CONTROLS}


def test_no_events_are_told_so(terminal: Terminal) -> None:
    """Instead of an empty table; a number that is too large for a store is one that no event has."""
    run_id = terminal.read(*START, *APP)["run_id"]
    assert terminal.type("run", "events", run_id, "--from", "999999")[1] == "no events\n"
    assert terminal.type("run", "events", run_id, "--from", "3", "--to", "2")[1] == "no events\n"
    whole = terminal.read("run", "context", run_id)
    assert terminal.read("run", "context", run_id, "--at", "9" * 5000) == whole


def test_a_command_to_go_on_with_can_be_typed(terminal: Terminal) -> None:
    """With the store, unless the environment names it."""
    out = terminal.type(*START, "--key", "k", *APP)[1]
    assert f"perdure run status {RunId.for_invocation('k')[:13]} --store {terminal.store}" in out


def test_a_narrow_terminal_shows_all_columns(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wraps the lines; a table as narrow as that would have none left."""
    run_id = terminal.read(*START, *APP)["run_id"]
    monkeypatch.setenv("COLUMNS", "10")
    assert run_id[:13] in terminal.type("run", "list")[1]


@pytest.mark.parametrize("store", ["x" * 300, "/dev/null", ":memory:", ""])
@pytest.mark.parametrize("words", [["run", "list"], ["store", "init"], ["worker", "--until-idle", *APP]])
def test_a_path_that_cannot_be_a_store(
    words: list[str],
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever the command: nothing is made, and no other store is used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert main([*words, "--store", store]) == 3
    assert "store_path_invalid" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    """So the demo cannot begin."""
    assert main(["demo", "--folder", str(terminal.store)]) == 2
    assert "os_error: File exists" in capsys.readouterr().err


class Stuck(MemoryStore):
    """Never writes anything, and has the process interrupted when it should."""

    async def put(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
        raise AssertionError


def open_stuck(rest: str, failpoints: Failpoints | None = None) -> Stores:
    """The factory of ``stuck:`` addresses."""
    store = Stuck(MemoryState(), SystemClock())
    return Stores(store, store, store, store)


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kind of store above; afterwards an interruption is pytest's again."""
    monkeypatch.setitem(locations.FACTORIES, "stuck", f"{HERE}:open_stuck")
    # Whatever another test has left behind: an event loop heeds interruptions only where this one is set.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("kinds")
def test_interrupted_before_anything_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to resume, and nobody is told to."""
    assert main([*START, "--input", "1", *APP, "--store", "stuck:"]) == 130
    told = capsys.readouterr().err
    assert "not begun" in told
    assert "resume" not in told


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize("words", [("op", "list"), ("worker",), ("schedule", "create", "a", "same")])
def test_an_interruption_is_told(terminal: Terminal, words: tuple[str, ...]) -> None:
    """Also to a program, which would wait for its document otherwise."""
    assert terminal.error(*words, "--app", f"{HERE}:stopped") == (130, "interrupted")


@pytest.mark.usefixtures("kinds")
def test_a_worker_leaves_others_their_runs(terminal: Terminal) -> None:
    """What a live owner drives is not its to take up."""
    gate.clear()
    with perdure.open(terminal.store, app=app) as client:
        run = client.start(guarded)
        words = ("worker", "--until-idle", "--poll-seconds", "0.01", *APP)
        assert main([*words, "--store", str(terminal.store)]) == 0
        gate.set()
        assert run.result() == "through"
    out = terminal.type("run", "list")[1]
    assert "taken up" not in out
    assert f"run {run.id}" not in out


def test_a_worker_is_idle_when_nothing_is_due_soon(terminal: Terminal) -> None:
    """What is due within a second is driven to its end, what is due in a minute is left waiting."""

    async def park() -> list[RunId]:
        naps = [900, 60_000]
        async with perdure.open(terminal.store, app, recover=False, park_after=timedelta()) as client:
            runs = [await client.start(nap, each, detach=True) for each in naps]
            for run in runs:
                await perdure.Engine(app.resolver, park_after=timedelta()).resume(client.stores, run.id)
            return [run.id for run in runs]

    soon, later = asyncio.run(park())
    code, out, _ = terminal.type("worker", "--until-idle", *APP)
    assert code == 0
    assert f"run {soon} completed" in out
    assert later not in out
    assert terminal.read("run", "status", later)["phase"] == RunPhase.RUNNING.value
