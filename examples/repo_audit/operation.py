"""The operation: nine states, each with one question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from itertools import pairwise

from examples.repo_audit.git import Git
from examples.repo_audit.languages import language_of
from examples.repo_audit.report import json_report, markdown_report
from perdure import (
    ArtifactKind,
    Context,
    DependencyEdge,
    ErrorCategory,
    ErrorInfo,
    IoProvider,
    OpId,
    OpPath,
    Recorder,
    SideEffectKind,
    StateError,
    StateGraph,
    StateId,
    StateMeta,
    StateNode,
)
from perdure.errors import Json

Body = Callable[[Git, Context, Recorder], Awaitable[None]]

COMMITS_A_PAGE = 2000
_TOP = 10
_MARK = "[redacted:"


class RepoAudit:
    """``repo_audit``: input ``{"path": …}``; exports the summary and the ids of two reports."""

    op_id = OpId("repo_audit")
    op_version = "1"
    imports: tuple[str, ...] = ()
    exports = ("summary", "markdown_report", "json_report")

    def __init__(self, git: str) -> None:
        self._git = git

    def expand(self, op_path: OpPath, config: Json, input: Json) -> StateGraph:  # noqa: A002 — the term
        path = input.get("path") if isinstance(input, dict) else None
        if not isinstance(path, str) or not path:
            raise ValueError
        bodies: list[tuple[str, Body]] = [
            ("locate", _locate),
            ("commits", _commits),
            ("authors", _authors),
            ("recent", _recent),
            ("files", _files),
            ("lines", _lines),
            ("churn", _churn),
            ("summarize", _summarize),
            ("report", _report),
        ]
        nodes = [
            StateNode(StateId(f"{op_path}.{name}"), _State(self._git, path, name, body))
            for name, body in bodies
        ]
        edges = [DependencyEdge(before.id, after.id) for before, after in pairwise(nodes)]
        return StateGraph(nodes, edges)


class _State:
    def __init__(self, git: str, path: str, name: str, body: Body) -> None:
        self._git, self._path, self._name, self._body = git, path, name, body

    def meta(self) -> StateMeta:
        return StateMeta(
            tags=(self._name,), side_effects=SideEffectKind.READ_ONLY_IO, timeout=timedelta(minutes=10)
        )

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await self._body(Git(self._git, self._path, io), ctx, rec)


async def _locate(git: Git, ctx: Context, rec: Recorder) -> None:
    if not await git.is_repository():
        raise StateError(
            ErrorInfo(
                "not_a_repository",
                ErrorCategory.PARSING_INPUT,
                False,
                "git finds no repository there, or it is broken",
            )
        )
    # The odd second pattern makes git answer with nothing, not with a failure, where HEAD has no commit yet.
    head = await git.lines("head", "rev-list", "--ignore-missing", "-n1", "HEAD", "--glob=refs/none")
    ctx.write("head", head[0] if head else None)
    ctx.write("left_out", [])


async def _commits(git: Git, ctx: Context, rec: Recorder) -> None:
    head = ctx.read("head")
    if head is None:
        ctx.write("commits", {"count": 0, "merges": 0, "first_seconds": None, "last_seconds": None})
        return
    count = await git.lines("commits:count", "rev-list", "--count", head)
    merges = await git.lines("commits:merges", "rev-list", "--count", "--merges", head)
    last = await git.lines("commits:last", "log", "-n1", "--format=%ct", head)
    roots = await git.lines("commits:roots", "log", "--max-parents=0", "--format=%ct", head)
    ctx.write(
        "commits",
        {
            "count": int(count[0]),
            "merges": int(merges[0]),
            "first_seconds": min(map(int, roots), default=None),
            "last_seconds": int(last[0]),
        },
    )


async def _authors(git: Git, ctx: Context, rec: Recorder) -> None:
    commits: Counter[str] = Counter()
    if ctx.read("head") is not None:
        lines = await git.lines("authors", "log", "--format=%an <%ae>", ctx.read("head"))
        commits.update(lines)
        _note_left_out(ctx, "authors", commits)
    top = [{"name": name, "commits": count} for name, count in _largest(commits)]
    ctx.write("authors", {"count": len(commits), "top": top})


async def _recent(git: Git, ctx: Context, rec: Recorder) -> None:
    subjects: list[Json] = []
    if ctx.read("head") is not None:
        lines = await git.lines("recent", "log", f"-n{_TOP}", "--format=%h %s", ctx.read("head"))
        subjects = [{"commit": line.partition(" ")[0], "subject": line.partition(" ")[2]} for line in lines]
        _note_left_out(ctx, "messages", lines)
    ctx.write("recent", subjects)


async def _files(git: Git, ctx: Context, rec: Recorder) -> None:
    sizes: dict[str, int] = {}
    submodules = 0
    if ctx.read("head") is not None:
        lines = await git.lines("files", "ls-tree", "-r", "-l", "--full-tree", ctx.read("head"))
        for line in lines:
            attributes, _, path = line.partition("\t")
            words = attributes.split()
            if len(words) == 4 and words[3].isdigit():
                sizes[path] = int(words[3])
            elif len(words) == 4:
                submodules += 1
        _note_left_out(ctx, "paths", lines)
    languages: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for path, size in sizes.items():
        languages[language_of(path)] += size
        counts[language_of(path)] += 1
    ctx.write(
        "files",
        {
            "count": len(sizes),
            "submodules": submodules,
            "bytes": sum(sizes.values()),
            "largest": [{"path": path, "bytes": size} for path, size in _largest(Counter(sizes))],
            "languages": [
                {"language": name, "bytes": size, "files": counts[name]}
                for name, size in sorted(languages.items(), key=lambda item: (-item[1], item[0]))
            ],
        },
    )


async def _lines(git: Git, ctx: Context, rec: Recorder) -> None:
    lines: Counter[str] = Counter()
    binary = 0
    if ctx.read("head") is not None:
        # Everything is new against the empty tree, whose name depends on the repository's hash.
        empty = await git.lines("lines:empty_tree", "hash-object", "-t", "tree", "--stdin")
        argv = ("diff", "--numstat", "--no-renames", "--no-ext-diff", "--no-textconv")
        for line in await git.lines("lines", *argv, empty[0], ctx.read("head")):
            added, _, rest = line.partition("\t")
            if added.isdigit():
                lines[language_of(rest.partition("\t")[2])] += int(added)
            else:
                binary += 1
    ctx.write(
        "lines",
        {
            "count": lines.total(),
            "binary_files": binary,
            "languages": [{"language": name, "lines": count} for name, count in _largest(lines, 100)],
        },
    )


async def _churn(git: Git, ctx: Context, rec: Recorder) -> None:
    changes: Counter[str] = Counter()
    lines_changed: Counter[str] = Counter()
    added_total = deleted_total = 0
    argv = ("log", "--numstat", "--format=", "--no-renames", "--no-ext-diff", "--no-textconv")
    for page in range(-(-ctx.read("commits")["count"] // COMMITS_A_PAGE)):
        window = (f"--skip={page * COMMITS_A_PAGE}", f"-n{COMMITS_A_PAGE}", ctx.read("head"))
        for line in await git.lines(f"churn:{page}", *argv, *window):
            added, deleted, path = [*line.split("\t", 2), "", ""][:3]
            changes[path] += 1
            if added.isdigit() and deleted.isdigit():
                lines_changed[path] += int(added) + int(deleted)
                added_total += int(added)
                deleted_total += int(deleted)
    ctx.write(
        "churn",
        {
            "added": added_total,
            "deleted": deleted_total,
            "most_changed": [
                {"path": path, "commits": count, "lines": lines_changed[path]}
                for path, count in _largest(changes)
            ],
        },
    )


async def _summarize(git: Git, ctx: Context, rec: Recorder) -> None:
    lines = {entry["language"]: entry["lines"] for entry in ctx.read("lines")["languages"]}
    ctx.write(
        "summary",
        {
            "head": ctx.read("head"),
            "commits": ctx.read("commits"),
            "authors": ctx.read("authors"),
            "recent": ctx.read("recent"),
            "files": {key: value for key, value in ctx.read("files").items() if key != "languages"},
            "languages": [
                {**entry, "lines": lines.get(entry["language"], 0)}
                for entry in ctx.read("files")["languages"]
            ],
            "lines": ctx.read("lines")["count"],
            "binary_files": ctx.read("lines")["binary_files"],
            "churn": ctx.read("churn"),
            "left_out": ctx.read("left_out"),
        },
    )


async def _report(git: Git, ctx: Context, rec: Recorder) -> None:
    summary = ctx.read("summary")
    for key, name, data in [
        ("markdown_report", "report.md", markdown_report(summary)),
        ("json_report", "report.json", json_report(summary)),
    ]:
        ctx.write(key, await rec.artifact(ArtifactKind.OUTPUT, data, {"name": name}))


def _note_left_out(ctx: Context, what: str, lines: Iterable[str]) -> None:
    count = sum(_MARK in line for line in lines)
    if count:
        ctx.write("left_out", [*ctx.read("left_out"), {"what": what, "count": count}])


def _largest(counts: Counter[str], most: int = _TOP) -> list[tuple[str, int]]:
    """The largest counts, ties by name: the same answer gives the same context."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
