"""The commands: what they print, for a person and for a program, and how they end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from perdure import Context, IoProvider, Recorder, StateMeta, Stores
from perdure.cli import main
from perdure.cli.common import default_store_path
from perdure.errors import Json
from perdure.ids import OpId, OpPath, StateId
from perdure.model.events import ArtifactKind, DomainEvent
from perdure.model.plan import StateGraph, StateNode
from perdure.sdk import App

RUN = "00000000-0000-0000-0000-0000000000dd"


class _Write:
    def meta(self) -> StateMeta:
        return StateMeta()

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.now_millis()
        await rec.emit(DomainEvent("told", {"n": 1}))
        await rec.artifact(ArtifactKind.OUTPUT, b"\x00\xffbytes", {"name": "out.bin"})


class _Raise(_Write):
    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        raise ValueError("no luck")


class _Op:
    op_version = "1"
    imports: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()

    def __init__(self, name: str, state: _Write) -> None:
        self.op_id = OpId(name)
        self._state = state

    def expand(self, op_path: OpPath, config: Json, input: Json) -> StateGraph:  # noqa: A002 — the term
        return StateGraph([StateNode(StateId(f"{op_path}.only"), self._state)])


app = App(ops=[_Op("writes", _Write()), _Op("raises", _Raise())])
not_an_app = 7


class Terminal:
    """Types commands against one store, and reads what comes out."""

    def __init__(self, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.store = store
        self._capsys = capsys

    def type(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        at = [] if words[:1] == ("--version",) else ["--store", str(self.store)]
        code = main([*words, *at])
        out, error = self._capsys.readouterr()
        return code, out, error

    def read(self, *words: str) -> Any:
        """The data of a command that must succeed."""
        code, out, error = self.type(*words, "--json")
        assert code in (0, 1), error
        answer = json.loads(out)
        assert answer["status"] == "success"
        return answer["data"]

    def error(self, *words: str) -> tuple[int, str]:
        """Exit code and error code of a command that must fail, with a hint, for both kinds of reader."""
        code, out, text = self.type(*words)
        assert "Traceback" not in text
        again, out, line = self.type(*words, "--json")
        assert (code, out) == (again, "")
        answer = json.loads(line)
        assert answer["status"] == "error"
        assert answer["error"]["code"] in text
        assert answer["error"]["message"]
        assert answer["error"]["hint"]
        return code, answer["error"]["code"]


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """A terminal, and an empty store."""
    made = Terminal(tmp_path / "runs.db", capsys)
    assert made.type("store", "init")[0] == 0
    return made


APP = ("--app", "tests.unit.test_cli:app")


def test_a_run_from_start_to_artifact(terminal: Terminal, tmp_path: Path) -> None:
    """Every command, one after the other."""
    code, out, _ = terminal.type("run", "start", "writes", "--run-id", RUN, *APP)
    assert code == 0
    assert "writes.main.only completed" in out
    assert "run 00000000-0000 completed" in out
    assert [each["run_id"] for each in terminal.read("run", "list", "--phase", "completed")] == [RUN]
    assert terminal.read("run", "list", "--phase", "failed") == []
    status = terminal.read("run", "status", RUN)
    assert (status["phase"], status["facts"], status["outputs"][0]["name"]) == ("Completed", 1, "out.bin")
    assert "out.bin" in terminal.type("run", "status", RUN[:8])[1]
    assert len(terminal.read("run", "events", RUN)) == status["events"] == 7
    assert len(terminal.read("run", "events", RUN, "--engine")) == 5
    assert [each["seq"] for each in terminal.read("run", "events", RUN, "--from", "2", "--to", "3")] == [2, 3]
    assert "StateCompleted" in terminal.type("run", "events", RUN)[1]
    target = tmp_path / "out.bin"
    artifact_id = status["outputs"][0]["artifact_id"]
    assert terminal.type("artifact", "get", artifact_id, "--output", str(target))[0] == 0
    assert target.read_bytes() == b"\x00\xffbytes"
    assert terminal.read("artifact", "get", artifact_id)["bytes"] == 7
    assert terminal.read("run", "resume", RUN, *APP)["phase"] == "Completed"
    assert {each["op_id"] for each in terminal.read("op", "list", *APP)} == {"writes", "raises"}
    assert "raises" in terminal.type("op", "list", *APP)[1]
    assert "writes" in terminal.type("run", "list")[1]


def test_a_failed_run_exits_with_one(terminal: Terminal) -> None:
    """And says why, in every place."""
    code, out, _ = terminal.type("run", "start", "raises", "--run-id", RUN, *APP)
    assert code == 1
    assert "handler_raised: ValueError: no luck" in out
    assert terminal.read("run", "status", RUN)["states"][0]["error"]["code"] == "handler_raised"
    assert "no luck" in terminal.type("run", "events", RUN)[1]


def test_a_stopped_run_resumes(terminal: Terminal) -> None:
    """A failpoint leaves it open."""
    started = terminal.read("run", "start", "writes", "--key", "k", "--failpoint", "handler.after=stop", *APP)
    assert started["phase"] == "Running"
    assert "open" in terminal.type("run", "status", started["run_id"])[1]
    assert terminal.type("run", "resume", started["run_id"][:6], *APP)[0] == 0
    again = terminal.read("run", "start", "writes", "--key", "k", *APP)
    assert (again["run_id"], again["phase"]) == (started["run_id"], "Completed")


def test_input_comes_from_a_file_or_as_it_is(terminal: Terminal, tmp_path: Path) -> None:
    """What is not JSON is refused before anything is written."""
    given = tmp_path / "input.json"
    given.write_text('{"a": 1}')
    assert terminal.read("run", "start", "writes", "--input", f"@{given}", *APP)["phase"] == "Completed"
    for bad in ("{bad", "@missing.json", "NaN"):
        assert terminal.error("run", "start", "writes", "--input", bad, *APP) == (2, "input_malformed")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["frobnicate"], "usage"),
        (["run", "status"], "usage"),
        (["run", "list", "--phase", "odd"], "usage"),
        (["run", "status", "abc"], "run_ambiguous"),
        (["run", "status", "abcd"], "run_not_found"),
        (["run", "status", "0" * 35 + "\n"], "invalid_id"),
        (["run", "events", RUN], "run_not_found"),
        (["run", "resume", RUN, *APP], "run_not_found"),
        (["run", "start", "nothing", *APP], "op_not_found"),
        (["run", "start", "writes"], "app_not_found"),
        (["run", "start", "writes", "--app", "no.such:app"], "app_not_found"),
        (["run", "start", "writes", "--app", "tests.unit.test_cli:not_an_app"], "app_invalid"),
        (["run", "start", "writes", "--failpoint", "odd", *APP], "failpoint_invalid"),
        (["run", "start", "writes", "--run-id", "odd", *APP], "invalid_id"),
        (["artifact", "get", "odd"], "invalid_id"),
        (["artifact", "get", "0" * 64], "artifact_not_found"),
    ],
)
def test_what_makes_no_sense_exits_with_two(terminal: Terminal, words: list[str], code: str) -> None:
    """With a code and a hint."""
    assert terminal.error(*words) == (2, code)


def test_a_store_that_cannot_be_used_exits_with_three(terminal: Terminal) -> None:
    """Nothing is written to a file that is not ours."""
    terminal.store.write_bytes(b"no database at all" * 1000)
    assert terminal.error("run", "list") == (3, "store_corrupt")


def test_an_ambiguous_beginning_names_the_runs(terminal: Terminal) -> None:
    """Type more of the id."""

    async def fill() -> None:
        async with Stores.sqlite(terminal.store) as stores:
            from perdure import RunId

            for last in "12":
                run_id = RunId(f"00000000-0000-0000-0000-00000000000{last}")
                await stores.events.append(run_id, 0, [DomainEvent("x")])

    asyncio.run(fill())
    assert terminal.error("run", "status", "0000") == (2, "run_ambiguous")
    assert len(terminal.read("run", "list")) == 2
    assert (
        terminal.error("run", "resume", "00000000-0000-0000-0000-000000000001", *APP)[1]
        == "missing_run_started"
    )


def test_version_and_default_place(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The version is quick; runs are kept in the user's data folder."""
    assert terminal.type("--version")[1].startswith("perdure 0.")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_store_path() == tmp_path / "perdure" / "runs.db"
