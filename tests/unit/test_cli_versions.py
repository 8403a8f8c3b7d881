"""Commands where versions are missing, and forks as commands; the screens show the ordinary cases."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import BlockingIo
from perdure.cli import main
from perdure.cli.forking import value_arguments
from perdure.cli.output import UsageError


def version(number: str) -> perdure.Op[str, str]:
    greet = perdure.op("greet", number, input=str, output=str)

    @greet.state
    def hello(name: str) -> str:
        return f"hello {name} by {number}"

    @greet.state
    def bye(hello: str, io: BlockingIo) -> str:
        return f"{hello}, bye by {number}"

    return greet


both = perdure.App([version("1"), version("2")])
newer = perdure.App([version("2")])


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Types a command against one store: its exit code, and what it printed."""
    monkeypatch.setenv("COLUMNS", "200")

    def type_words(*words: str, app: str = "both") -> tuple[int, str, str]:
        where = ["--store", str(tmp_path / "runs.db")]
        source = [] if words[:2] in (("run", "status"), ("run", "events")) else ["--app", f"{__name__}:{app}"]
        code = main([*words, *where, *source])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return type_words


def test_a_worker_says_once_what_it_cannot_drive(typed: Any, caplog: pytest.LogCaptureFixture) -> None:
    """And leaves it for another, untouched."""
    for key in ("a", "b"):
        typed("run", "start", "greet", "--op-version", "1", "--key", key, "--input", '"ann"', "--detach")
    with caplog.at_level(logging.WARNING, "perdure"):
        code, out, _ = typed("worker", "--until-idle", "--poll-seconds", "0.01", app="newer")
    assert code == 0
    assert out.count("--blocked-by-version") == 1
    assert "taken up" not in out
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert all("run_blocked_by_version" in each for each in told)
    _, out, _ = typed("run", "list", "--blocked-by-version", "--json", app="newer")
    blocked = json.loads(out)["data"]
    assert [each["events"] for each in blocked] == [1, 1]
    assert blocked[0]["missing"] == [{"step_id": "main", "op_id": "greet", "op_version": "1"}]
    assert typed("worker", "--until-idle")[1].count("completed") == 2
    assert typed("run", "list", "--blocked-by-version", app="newer")[1].startswith("no run is blocked")


def test_a_fork_is_shown_as_one(typed: Any) -> None:
    """Where it comes from, by whom, why, and what was set."""
    typed("run", "start", "greet", "--op-version", "1", "--key", "a", "--input", '"ann"')
    run_id = str(perdure.RunId.for_invocation("a"))
    words = ("run", "fork", run_id[:8], "--at", "bye", "--set", 'hello="hi"', "--op-version", "2")
    code, out, _ = typed(*words, "--key", "f", "--by", "bob", "--why", "a try")
    assert code == 0
    assert 'bye: "hi, bye by 2"' in out
    assert "1 state carried over; it begins at greet.main.bye" in out
    fork_id = str(perdure.RunId.for_invocation("f"))
    _, out, _ = typed("run", "status", fork_id)
    assert f"fork     of {run_id} at greet.main.bye, by bob: a try" in out
    assert "set      greet.main.hello" in out
    _, out, _ = typed("run", "events", fork_id)
    assert f"forked_from={run_id}" in out
    assert f"run_id={run_id} state_id=greet.main.bye seq=4" in out
    code, out, _ = typed(
        "run", "fork", fork_id, "--at", "bye", "--id", str(perdure.RunId.random()), "--detach"
    )
    assert (code, "is left to a worker" in out) == (0, True)
    _, out, _ = typed("worker", "--until-idle")
    assert "completed" in out
    assert typed("run", "replay", fork_id)[0] == 0


def test_two_names_of_one_value_are_not_set_to_two(typed: Any) -> None:
    """Nobody could say which of them holds, and no run is begun."""
    typed("run", "start", "greet", "--op-version", "1", "--key", "a", "--input", '"ann"')
    run_id = str(perdure.RunId.for_invocation("a"))
    sets = ("--set", 'hello="hi"', "--set", 'greet.main.hello="ho"')
    code, _, error = typed("run", "fork", run_id, "--at", "bye", *sets, "--op-version", "2")
    assert (code, "fork_key_twice" in error, "hint:" in error) == (2, True, True)
    assert len(json.loads(typed("run", "list", "--json")[1])["data"]) == 1


def test_what_is_set_is_key_and_value() -> None:
    """Each key once, and the value JSON."""
    assert value_arguments(("a=1", 'b={"c": "="}', "d=null")) == {"a": 1, "b": {"c": "="}, "d": None}
    for words in (("a",), ("=1",), ("a=1", "a=2"), ("a=yes",)):
        with pytest.raises(UsageError):
            value_arguments(words)


def test_options_of_lists_that_exclude_each_other(typed: Any) -> None:
    """What is blocked is unfinished."""
    typed("run", "start", "greet", "--input", '"ann"')
    for options in (("--in-doubt",), ("--roots",), ("--phase", "completed")):
        code, _, error = typed("run", "list", "--blocked-by-version", *options)
        assert (code, "goes with --label and --limit alone" in error) == (2, True)
