"""The audit of repositories as they are found in the wild."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from perdure import RunId
from tests.acceptance.audits import Audits, git, make_repository, result_of

RUN = RunId("00000000-0000-0000-0000-0000000000bb")


class Auditor:
    """Audits one repository and keeps what came out."""

    def __init__(self, folder: Path) -> None:
        self.audits = Audits(folder)
        self.store = folder / "runs.db"

    def audit(self, repository: Path) -> tuple[Any, str]:
        self.audits.repository = repository
        done = self.audits.run(self.audits.start(self.store, RUN))
        assert done.returncode == 0, done.stdout + done.stderr
        return asyncio.run(result_of(self.store, RUN))


@pytest.fixture
def auditor(tmp_path: Path) -> Auditor:
    """An auditor of one repository."""
    return Auditor(tmp_path)


def test_a_small_repository(auditor: Auditor, tmp_path: Path) -> None:
    """Commits, authors, files, languages, churn; a report for a person."""
    summary, report = auditor.audit(tmp_path / "repository")
    assert summary["commits"]["count"] == 3
    assert summary["authors"] == {"count": 1, "top": [{"commits": 3, "name": "Ada <ada@example.org>"}]}
    assert summary["files"]["count"] == 2
    assert summary["files"]["bytes"] == len("three\ntwo\n")
    assert [each["language"] for each in summary["languages"]] == ["Python", "Markdown"]
    assert summary["lines"] == 2
    assert summary["churn"]["most_changed"][0] == {"path": "a.py", "commits": 2, "lines": 3}
    assert [each["subject"] for each in summary["recent"]] == ["three", "two", "one"]
    assert summary["left_out"] == []
    assert "# Repository audit" in report
    assert "| Python | 1 | 1 | 6 B |" in report


@pytest.mark.parametrize("bare", [True, False])
def test_a_repository_without_commits(auditor: Auditor, tmp_path: Path, bare: bool) -> None:
    """There is nothing to tell, and that is told."""
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q", *(["--bare"] if bare else []))
    summary, report = auditor.audit(empty)
    assert (summary["head"], summary["commits"]["count"], summary["files"]["count"]) == (None, 0, 0)
    assert "no commits yet" in report


def test_one_commit_on_no_branch_and_in_a_bare_clone(auditor: Auditor, tmp_path: Path) -> None:
    """A detached HEAD and no working tree make no difference."""
    one = tmp_path / "one"
    make_repository(one, [("a.rs", "only")])
    git(one, "checkout", "-q", "--detach")
    git(tmp_path, "clone", "-q", "--bare", str(one), "bare")
    for repository in (one, tmp_path / "bare"):
        auditor.store = tmp_path / f"{repository.name}.db"
        assert auditor.audit(repository)[0]["commits"]["count"] == 1


def test_secrets_are_left_out_and_that_is_said(auditor: Auditor, tmp_path: Path) -> None:
    """In messages, paths and authors; nothing of them is in the store."""
    leaky = tmp_path / "leaky"
    token = "ghp_" + "a1B2" * 9
    make_repository(leaky, [("plain.txt", f"use {token} for now"), (f"{token}.txt", "fine")])
    (leaky / "more.txt").write_text("x")
    git(leaky, "add", "-A")
    git(leaky, "commit", "-q", "-m", "more", f"--author=password=hunter2hunter2 <{token}@example.org>")
    summary, report = auditor.audit(leaky)
    assert {each["what"] for each in summary["left_out"]} == {"authors", "messages", "paths"}
    assert "[redacted:github_token]" in report
    assert "Left out" in report
    stored = b"".join(file.read_bytes() for file in tmp_path.glob("runs.db*") if file.is_file())
    assert token.encode() not in stored
    assert b"hunter2hunter2" not in stored


def test_names_in_any_encoding(auditor: Auditor, tmp_path: Path) -> None:
    """Bytes that are no UTF-8, line ends, tabs and quotes in names and messages."""
    odd = tmp_path / "odd"
    stream = (
        b"commit refs/heads/main\nauthor J\xf6rg <j\xf6rg@example.org> 1700000000 +0000\n"
        b"committer J\xf6rg <j\xf6rg@example.org> 1700000000 +0000\ndata 4\ncaf\xe9\n"
        b'M 100644 inline "caf\\351\\n\\t\\"x.py"\ndata 2\nx\n\n'
        b'M 100644 inline "\xe6\xbc\xa2.py"\ndata 2\ny\n\n'
    )
    odd.mkdir()
    git(odd, "init", "-q", "-b", "main")
    git(odd, "fast-import", "--quiet", stdin=stream)
    summary, _ = auditor.audit(odd)
    assert summary["files"]["count"] == 2
    assert summary["languages"] == [{"bytes": 4, "files": 2, "language": "Python", "lines": 2}]
    assert summary["authors"]["top"][0]["name"] == "J\\xf6rg <j\\xf6rg@example.org>"
    assert summary["recent"][0]["subject"] == "caf\\xe9"


def test_what_is_no_repository_fails_the_run(auditor: Auditor, tmp_path: Path) -> None:
    """``not_a_repository``; exit code 1."""
    auditor.audits.repository = tmp_path / "nothing"
    done = auditor.audits.run(auditor.audits.start(auditor.store, RUN))
    assert done.returncode == 1
    assert "not_a_repository" in done.stdout


@pytest.mark.timeout(300)
def test_twenty_thousand_commits(auditor: Auditor, tmp_path: Path) -> None:
    """A long history is asked for in pages."""
    large = tmp_path / "large"
    large.mkdir()
    git(large, "init", "-q", "-b", "main")
    commits = [
        f"commit refs/heads/main\ncommitter Ada <ada@example.org> {1_600_000_000 + number} +0000\n"
        f"data 2\nc\n\nM 100644 inline f{number % 50}.py\ndata {len(str(number)) + 1}\n{number}\n\n"
        for number in range(20_000)
    ]
    git(large, "fast-import", "--quiet", stdin="".join(commits).encode())
    summary, _ = auditor.audit(large)
    assert summary["commits"]["count"] == 20_000
    assert summary["churn"]["added"] == 20_000
    assert summary["churn"]["most_changed"][0] == {"path": "f0.py", "commits": 400, "lines": 799}
