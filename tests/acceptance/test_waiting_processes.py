"""Runs that wait, as processes see them: several workers, signals and stops from a shell, a dying worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PERDURE = (sys.executable, "-m", "perdure")
APP = """
import os
import perdure
from perdure import IoCall, IoProvider

listens = perdure.op("listens", output=int)

@listens.state
async def go(io: IoProvider, input: int) -> int:
    signal = await io.wait_signal("go")
    with open("woken", "a") as woken:
        woken.write(f"{input}\\n")
    return input + signal.value

runs_on = perdure.op("runs_on")

@runs_on.state
async def endless(io: IoProvider) -> None:
    script = "sleep 1000 & echo $! > child; echo $$ > parent.new; mv parent.new parent; wait"
    await io.call(IoCall("exec", {
        "kind": "run_program_v1", "program_path": "/bin/sh", "argv": ["-c", script], "output": "text",
        "env": {"PATH": os.environ["PATH"], "PWD": os.getcwd()},
    }, fact_key="endless"))

app = perdure.App([listens, runs_on], [perdure.exec_transport(["/bin/sh"])])
"""
RUNS = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an app."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def environ(folder: Path) -> dict[str, str]:
    """The environment of commands in ``folder``."""
    ours = {"PERDURE_STORE": str(folder / "runs.db"), "PERDURE_APP": "app:app", "COLUMNS": "80"}
    return {**os.environ, **ours, "HOME": str(folder)}


def command(folder: Path, *words: str) -> Any:
    """What a command prints as JSON."""
    done = subprocess.run(
        [*PERDURE, *words, "--json"], cwd=folder, env=environ(folder), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)["data"]


@contextmanager
def worker(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A worker that is there."""
    with subprocess.Popen(
        [*PERDURE, "worker", "--poll-seconds", "0.1"],
        cwd=folder,
        env=environ(folder),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "worker ready" in process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def phases(folder: Path) -> list[str]:
    """The phases of all runs."""
    return [each["phase"] for each in command(folder, "run", "list")]


def test_every_run_is_woken_once_whoever_does_it(folder: Path) -> None:
    """Two workers share a store; one is killed and another takes its place."""
    runs = [command(folder, "run", "start", "listens", "--input", str(n))["run_id"] for n in range(RUNS)]
    assert [each["waiting_for"] for each in command(folder, "run", "list")] == ["signal go"] * RUNS
    with worker(folder) as first, worker(folder):
        for number, run_id in enumerate(runs):
            if number == RUNS // 2:
                first.kill()
                first.wait()
            command(folder, "run", "signal", run_id, "go", "100", "--id", f"letter {number}")
        with worker(folder):
            while "Running" in phases(folder):
                pass
    assert phases(folder) == ["Completed"] * RUNS
    woken = (folder / "woken").read_text().split()
    # Who is killed after the line was written and before its state was, leaves one that is written again.
    assert set(woken) == set(map(str, range(RUNS)))
    assert len(woken) <= RUNS + 1


def test_cancelling_ends_what_the_handler_started(folder: Path) -> None:
    """The program's whole process group, though another process sends the letter."""
    run_id = command(folder, "run", "start", "runs_on", "--detach")["run_id"]
    with worker(folder):
        while not (folder / "parent").exists():
            pass
        pids = [int((folder / name).read_text()) for name in ("parent", "child")]
        assert all(map(lives, pids))
        command(folder, "run", "cancel", run_id, "--why", "enough", "--by", "ann")
        while phases(folder) != ["Cancelled"]:
            pass
        while any(map(lives, pids)):
            pass
    status = command(folder, "run", "status", run_id)
    assert status["stop"] == {"by": "ann", "reason": "enough"}
    assert status["states"][0]["error"]["code"] == "run_cancelled"


def lives(pid: int) -> bool:
    """Whether a process is there, and more than a name."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_nothing_is_lost_when_nobody_is_there(folder: Path) -> None:
    """A letter waits for a worker; a parked run is cancelled without one."""
    first, second = (
        command(folder, "run", "start", "listens", "--input", str(n))["run_id"] for n in range(2)
    )
    assert command(folder, "run", "signal", first, "go", "5")["letters_unread"] == 1
    assert command(folder, "run", "cancel", second, "--why", "enough")["phase"] == "Cancelled"
    subprocess.run([*PERDURE, "worker", "--until-idle"], cwd=folder, env=environ(folder), check=True)
    assert sorted(phases(folder)) == ["Cancelled", "Completed"]
    assert command(folder, "run", "context", first)["context"] == {"listens.main.go": 5}


def test_a_stopped_worker_is_not_left_behind(folder: Path) -> None:
    """SIGTERM ends a worker that has nothing to do at once."""
    with worker(folder) as idle:
        idle.send_signal(signal.SIGTERM)
        assert idle.wait() == 0
