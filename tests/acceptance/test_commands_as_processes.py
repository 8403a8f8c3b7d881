"""Commands as processes: a worker that is stopped, a terminal that is watched, a shell that completes."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PERDURE = (sys.executable, "-m", "perdure")
APP = """
import asyncio, os
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
    ours = {"PERDURE_STORE": str(folder / "runs.db"), "PERDURE_APP": "app:waits", "COLUMNS": "80"}
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


def test_a_shell_completes(folder: Path) -> None:
    """After one command."""
    done = command(folder, "--install-completion", SHELL="/bin/bash")
    assert done.returncode == 0, done.stderr
    written = [path for path in folder.rglob("*") if path.is_file() and "completion" in str(path)]
    assert any("perdure" in path.read_text() for path in written)
