"""An audit that is killed at any durable write, and resumed, ends as if nothing had happened."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from perdure import RunId
from tests.acceptance.audits import ROOT, Audits, ending, facts_recorded, head

RUN = RunId("00000000-0000-0000-0000-0000000000aa")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("point", "step"), [("commit.before", 3), ("commit.after", 1)])
def test_killed_at_every_durable_write(tmp_path: Path, point: str, step: int) -> None:
    """For every n: SIGKILL after the n-th durable write, resume, compare, and count git's calls.

    Before a write, which is after the one before it but for an answer that is lost, every third is enough.
    """
    audits = Audits(tmp_path)
    calm = tmp_path / "calm.db"
    assert audits.run(audits.start(calm, RUN)).returncode == 0
    expected = asyncio.run(ending(calm, RUN))
    questions = audits.calls()
    assert expected[0] == "Completed"
    assert len(set(questions)) == len(questions) == asyncio.run(facts_recorded(calm, RUN))

    write = 1 - step
    while True:
        write += step
        store = tmp_path / f"{write}.db"
        killed = audits.run(audits.start(store, RUN, "--failpoint", f"{point}:{write}=kill"))
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        asked_before = len(audits.calls())
        recorded = asyncio.run(facts_recorded(store, RUN))
        begun = asyncio.run(head(store, RUN))
        again = audits.run(audits.resume(store, RUN) if begun else audits.start(store, RUN))
        assert again.returncode == 0, again.stderr
        assert asyncio.run(ending(store, RUN)) == expected
        # What was recorded is never asked again; one answer at most had no record yet.
        assert len(audits.calls()) == len(questions) - recorded
        assert asked_before - recorded in ((0, 1) if point == "commit.before" else (0,))
    assert write > len(questions)


def test_an_interrupted_audit_says_how_to_go_on(tmp_path: Path) -> None:
    """Ctrl-C leaves a run that resumes, exit code 130, and the command to type."""
    audits = Audits(tmp_path)
    plain = audits.git.read_text()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    audits.git.write_text(
        f'#!/bin/sh\nPATH=/usr/bin:/bin\ncase "$*" in *numstat*) cat {gate};; esac\n{plain}'
    )
    store = tmp_path / "runs.db"

    async def body() -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *audits.start(store, RUN),
            env=audits.environment(),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async for line in process.stdout:
            if b"lines entered" in line:
                break
        process.send_signal(signal.SIGINT)
        _, error = await process.communicate()
        return process.returncode, error.decode()

    code, error = asyncio.run(body())
    assert code == 130
    assert "Traceback" not in error
    assert f"perdure run resume {RUN}" in " ".join(error.split())
    audits.git.write_text(plain)
    assert audits.run(audits.resume(store, RUN)).returncode == 0
    assert asyncio.run(ending(store, RUN))[0] == "Completed"
