"""Commands as processes: a worker that is stopped, a terminal that is watched, a shell that completes."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perdure import RunId

PERDURE = (sys.executable, "-m", "perdure")
APP = """
import asyncio, os, threading
import perdure

waits = perdure.op("waits", output=str)

@waits.state
async def first() -> str:
    return "done"

@waits.state
async def second(first: str) -> str:
    if "PATIENT" in os.environ:
        await asyncio.Event().wait()
    return first

fails = perdure.op("fails")

@fails.state
async def broken() -> None:
    raise ValueError("no luck")

blocks = perdure.op("blocks")

@blocks.state
def for_ever() -> None:
    print("in a thread", flush=True)
    threading.Event().wait()

app = perdure.App([waits, fails, blocks])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an app, and a store with a run that nobody drives."""
    (tmp_path / "app.py").write_text(APP)
    done = command(tmp_path, "run", "start", "waits", "--key", "k", "--detach")
    assert "is left to a worker" in done.stdout
    return tmp_path


def environ(folder: Path, **extra: str) -> dict[str, str]:
    """The environment of commands in ``folder``."""
    ours = {"PERDURE_STORE": str(folder / "runs.db"), "PERDURE_APP": "app:app", "COLUMNS": "80"}
    return {**os.environ, **ours, "HOME": str(folder), **extra}


def command(folder: Path, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """A command, from start to end."""
    return subprocess.run(
        [*PERDURE, *words], cwd=folder, env=environ(folder, **extra), capture_output=True, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_is_stopped_and_another_goes_on(folder: Path, number: signal.Signals) -> None:
    """What it drove is as it was, and the next one ends it."""
    with subprocess.Popen(
        [*PERDURE, "worker"],
        cwd=folder,
        env=environ(folder, PATIENT="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        assert "worker ready" in worker.stdout.readline()
        assert "taken up" in worker.stdout.readline()
        while '"states_completed": 1' not in command(folder, "run", "list", "--json").stdout:
            assert worker.poll() is None
        worker.send_signal(number)
        out, error = worker.communicate()
    assert worker.returncode == 0
    assert "what it drove can be resumed" in out
    assert error == ""
    assert '"phase": "Running"' in command(folder, "run", "list", "--json").stdout
    done = command(folder, "worker", "--until-idle")
    assert "completed" in done.stdout
    assert '"phase": "Completed"' in command(folder, "run", "list", "--json").stdout


def on_a_terminal(folder: Path, *words: str, **extra: str) -> str:
    """Everything that a command writes to a terminal."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [*PERDURE, *words],
        cwd=folder,
        env=environ(folder, TERM="xterm", **extra),
        stdout=follower,
        stderr=follower,
    ) as child:
        os.close(follower)
        written = b""
        try:
            while piece := os.read(leader, 65536):
                written += piece
        except OSError:  # how Linux says that the last writer has gone
            pass
        child.wait()
    os.close(leader)
    return written.decode()


def test_a_terminal_shows_a_live_table(folder: Path) -> None:
    """It is drawn over and over, in colours unless they are not wanted; a pipe gets lines."""
    shown = on_a_terminal(folder, "run", "start", "waits", "--key", "other")
    assert "waits.main.second" in shown
    assert "completed" in shown
    assert "\x1b[32m" in shown
    plain = on_a_terminal(folder, "run", "start", "waits", "--key", "another", NO_COLOR="1")
    assert "waits.main.second" in plain
    assert "\x1b[32m" not in plain
    assert "\x1b" not in command(folder, "run", "start", "waits", "--key", "third").stdout


def test_a_family_is_followed(folder: Path) -> None:
    """On a pipe a line for each change, on a terminal the tree, over and over, in colours."""
    run_id = RunId.for_invocation("k")
    with subprocess.Popen(
        [*PERDURE, "run", "tree", run_id, "--follow"],
        cwd=folder,
        env=environ(folder),
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert "running" in following.stdout.readline()
        assert command(folder, "worker", "--until-idle").returncode == 0
        out, _ = following.communicate()
    assert following.returncode == 0
    assert "completed" in out
    shown = on_a_terminal(folder, "run", "tree", run_id, "--follow")
    assert "\x1b[32m" in shown
    assert "completed" in shown


def test_a_shell_completes(folder: Path) -> None:
    """After one command."""
    done = command(folder, "--install-completion", SHELL="/bin/bash")
    assert done.returncode == 0, done.stderr
    written = [path for path in folder.rglob("*") if path.is_file() and "completion" in str(path)]
    assert any("perdure" in path.read_text() for path in written)


def typed(folder: Path, line: str) -> tuple[int, str]:
    """The exit code of a line of bash, and what it tells."""
    words = ["bash", "-o", "pipefail", "-c", line.replace("perdure", " ".join(PERDURE))]
    done = subprocess.run(words, cwd=folder, env=environ(folder), capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "internal_error" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("option", ["", "--json"])
def test_a_run_goes_on_when_nobody_reads_of_it(folder: Path, option: str) -> None:
    """And the exit code is the run's, whoever has gone: ``head``, or everybody."""
    for key, reader in enumerate(("| head -c 1", ">&- 2>&-")):
        for op_id, code in (("waits", 0), ("fails", 1)):
            line = f"perdure run start {op_id} --key {op_id}{key} {option} {reader}"
            assert typed(folder, line) == (code, "")
    phases = command(folder, "run", "list", "--json").stdout
    assert (phases.count('"Completed"'), phases.count('"Failed"')) == (2, 2)


def test_nobody_reads_what_a_command_shows(folder: Path) -> None:
    """That is no error; a mistake is one even if nobody is told of it."""
    for words in ("--help", "--version", "run list", "run list --json", "op show waits"):
        assert typed(folder, f"perdure {words} | true") == (0, "")
    command(folder, "run", "resume", RunId.for_invocation("k"))
    for words in ("--help", "run list", f"run watch {RunId.for_invocation('k')}", "demo"):
        assert typed(folder, f"perdure {words} >&-") == (0, "")
    for reader in ("2>&1 | true", "2>&-", "--json 2>&-"):
        assert typed(folder, f"perdure run list --odd {reader}") == (2, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without a disk that is always full")
@pytest.mark.parametrize("words", ["--version", "run list --json", "run start waits --key k"])
def test_what_cannot_be_written_is_told(folder: Path, words: str) -> None:
    """A full disk does not look like success, and does not keep a run from its end."""
    code, told = typed(folder, f"perdure {words} >/dev/full")
    assert (code, "os_error" in told) == (2, True)
    done = "Completed" if "start" in words else "Running"
    assert f'"phase": "{done}"' in command(folder, "run", "list", "--json").stdout


def test_text_that_a_stream_cannot_hold_is_escaped(folder: Path) -> None:
    """In a terminal of another century."""
    assert "-----" in command(folder, "run", "list", PYTHONIOENCODING="ascii").stdout
    words = ("run", "start", "waits", "--label", "name=Zoë")
    assert command(folder, *words, PYTHONIOENCODING="ascii").returncode == 0
    assert "Zo\\xeb" in command(folder, "run", "list", PYTHONIOENCODING="ascii").stdout
    assert "Zo\\u00eb" in command(folder, "run", "list", "--json", PYTHONIOENCODING="ascii").stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("words", [["run", "start", "blocks"], ["worker"]])
def test_a_second_signal_leaves_a_thread_behind(
    folder: Path, number: signal.Signals, words: list[str]
) -> None:
    """The first one ends what can be ended, and says so, though a state's function goes on."""
    command(folder, "worker", "--until-idle")
    command(folder, "run", "start", "blocks", "--key", "b", "--detach")
    with subprocess.Popen(
        [*PERDURE, *words],
        cwd=folder,
        env=environ(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert any("in a thread" in line for line in child.stdout)
        child.send_signal(number)
        assert any("nothing is lost" in line or "can be resumed" in line for line in child.stdout)
        child.send_signal(number)
        assert "Traceback" not in child.stdout.read()
    assert child.returncode == -number
    assert '"phase": "Running"' in command(folder, "run", "list", "--json").stdout
