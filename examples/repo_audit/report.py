"""The two reports, from the summary."""

from __future__ import annotations

from datetime import UTC, datetime

from perdure.canonical import encode
from perdure.errors import Json
from perdure.secrets import redact

_SUBJECT_CHARACTERS_MAX = 72
_TEXT_COLUMNS = frozenset({"language", "author", "path", "commit", "subject"})


def json_report(summary: Json) -> bytes:
    """The summary as canonical JSON."""
    return encode(redact(summary)[0])


def markdown_report(summary: Json) -> bytes:
    """The summary for a person."""
    commits, files, churn = summary["commits"], summary["files"], summary["churn"]
    lines = ["# Repository audit", ""]
    if summary["head"] is None:
        lines += ["The repository has no commits yet.", ""]
    lines += [
        (
            f"- {commits['count']:,} commits, {commits['merges']:,} of them merges, "
            f"from {_day(commits['first_seconds'])} to {_day(commits['last_seconds'])}"
        ),
        f"- {summary['authors']['count']:,} authors",
        (
            f"- {files['count']:,} files, {_size(files['bytes'])}, {summary['lines']:,} lines; "
            f"{summary['binary_files']:,} binary files, {files['submodules']:,} submodules"
        ),
        f"- {churn['added']:,} lines added and {churn['deleted']:,} deleted in all",
        "",
    ]
    lines += _table(
        "Languages",
        ["language", "files", "lines", "size"],
        [
            [each["language"], each["files"], each["lines"], _size(each["bytes"])]
            for each in summary["languages"]
        ],
    )
    lines += _table(
        "Authors",
        ["author", "commits"],
        [[each["name"], each["commits"]] for each in summary["authors"]["top"]],
    )
    lines += _table(
        "Largest files", ["path", "size"], [[each["path"], _size(each["bytes"])] for each in files["largest"]]
    )
    lines += _table(
        "Most changed files",
        ["path", "commits", "lines"],
        [[each["path"], each["commits"], each["lines"]] for each in churn["most_changed"]],
    )
    lines += _table(
        "Latest commits",
        ["commit", "subject"],
        [[each["commit"], each["subject"][:_SUBJECT_CHARACTERS_MAX]] for each in summary["recent"]],
    )
    if summary["left_out"]:
        lines += [
            "## Left out",
            "",
            "What looks like a secret was taken out before anything was written:",
            "",
        ]
        lines += [f"- in {each['count']:,} {each['what']}" for each in summary["left_out"]] + [""]
    text, _ = redact("\n".join(lines))
    return str(text).encode("utf-8", "backslashreplace")


def _table(title: str, head: list[str], rows: list[list[Json]]) -> list[str]:
    if not rows:
        return []
    cells = [[_cell(value) for value in row] for row in rows]
    return [
        f"## {title}",
        "",
        f"| {' | '.join(head)} |",
        f"|{'|'.join(' --- ' if name in _TEXT_COLUMNS else ' ---: ' for name in head)}|",
        *[f"| {' | '.join(row)} |" for row in cells],
        "",
    ]


def _cell(value: Json) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "".join(each if each.isprintable() else "\ufffd" for each in str(value)).replace("|", "\\|")


def _size(count: int) -> str:
    unit = 0
    while count >= 10_000 and unit < 3:
        count //= 1000
        unit += 1
    return f"{count:,} {('B', 'kB', 'MB', 'GB')[unit]}"


def _day(seconds: int | None) -> str:
    return "—" if seconds is None else datetime.fromtimestamp(seconds, UTC).date().isoformat()
