"""Audits of a small repository in processes that are killed: what several tests and campaigns share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perdure import ArtifactId, DomainEvent, RunId, Stores
from perdure.engine.recovery import read_view
from perdure.model.events import FACT_RECORDED
from perdure.sdk.reading import status_of
from perdure.stores.reading import read_json

APP = "examples.repo_audit:app"
ROOT = Path(__file__).resolve().parents[2]


class Audits:
    """A repository, a git that counts its calls, and a folder for stores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.log = folder / "calls.log"
        self.git = folder / "counting-git"
        self.git.write_text(f'#!/bin/sh\necho "$*" >> {self.log}\n{_EXEC_GIT}')
        self.git.chmod(0o755)
        make_repository(self.repository, [("a.py", "one"), ("b.md", "two"), ("a.py", "three")])

    def command(self, store: Path, *words: str) -> list[str]:
        """A command line of ours."""
        return [sys.executable, "-m", "perdure", *words, "--store", str(store), "--app", APP]

    def start(self, store: Path, run_id: RunId, *words: str) -> list[str]:
        """The command that starts an audit."""
        given = json.dumps({"path": str(self.repository)})
        return self.command(store, "run", "start", "repo_audit", "--run-id", run_id, "--input", given, *words)

    def resume(self, store: Path, run_id: RunId, *words: str) -> list[str]:
        """The command that resumes it."""
        return self.command(store, "run", "resume", run_id, *words)

    def environment(self) -> dict[str, str]:
        """Ours, with the git that counts."""
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return {**os.environ, "REPO_AUDIT_GIT": str(self.git), "PYTHONPATH": path}

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, or to its death."""
        return subprocess.run(
            command,
            env=self.environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def calls(self) -> list[str]:
        """What git was asked since the last look."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


# The transport passes on no search path, so the wrapper brings its own.
_EXEC_GIT = f'PATH={os.environ.get("PATH", "/usr/bin:/bin")} exec git "$@"\n'


def git(path: Path, *argv: str, stdin: bytes | None = None) -> str:
    """What git prints, run in ``path`` as nobody in particular."""
    people = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(path)}
    for role in ("AUTHOR", "COMMITTER"):
        people |= {f"GIT_{role}_NAME": "Ada", f"GIT_{role}_EMAIL": "ada@example.org"}
        people |= {f"GIT_{role}_DATE": "2024-01-01T00:00:00Z"}
    done = subprocess.run(
        ["git", "-C", str(path), *argv],
        env={**os.environ, **people},
        input=stdin,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode("utf-8", "replace")


def make_repository(path: Path, commits: Sequence[tuple[str, str]]) -> None:
    """A repository with one commit a pair: a file's name, and the message, which is its content too."""
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    for name, message in commits:
        (path / name).write_text(message + "\n")
        git(path, "add", "-A")
        git(path, "commit", "-q", "-m", message)


async def facts_recorded(store: Path, run_id: RunId) -> int:
    """How many facts the run has learned from git."""
    async with Stores.sqlite(store) as stores:
        stream = await stores.events.read_range(run_id, 1)
        return sum(
            isinstance(each.event, DomainEvent) and each.event.name == FACT_RECORDED for each in stream
        )


async def head(store: Path, run_id: RunId) -> int:
    """How many events the run has; 0 for one that was never begun."""
    async with Stores.sqlite(store) as stores:
        return await stores.events.head_seq(run_id)


async def ending(store: Path, run_id: RunId) -> tuple[str, str | None]:
    """The run's phase and its final snapshot."""
    async with Stores.sqlite(store) as stores:
        view = await read_view(stores, run_id)
        return view.phase.value, None if view.ended is None else view.ended.final_snapshot_id


async def result_of(store: Path, run_id: RunId) -> tuple[Any, str]:
    """The audit's summary and its report for a person."""
    async with Stores.sqlite(store) as stores:
        status = await status_of(stores, run_id)
        (report,) = [each["artifact_id"] for each in status["outputs"] if each["name"] == "report.md"]
        context, _ = await read_json(stores.artifacts, ArtifactId(status["final_snapshot_id"]))
        markdown = (await stores.artifacts.get(ArtifactId(report))).decode()
        return context["repo_audit.main.summary"], markdown
