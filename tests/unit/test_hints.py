"""Every error says what to do next."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import perdure
from perdure.hints import HINTS

SOURCES = sorted(Path(perdure.__file__ or "").parent.rglob("*.py"))


def raised() -> Iterator[tuple[str, bool, str]]:
    """Each code in a call of ``X.of``, whether a hint stands beside it, and where."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            code = node.args[0]
            if node.func.attr == "of" and isinstance(code, ast.Constant) and isinstance(code.value, str):
                hinted = any(each.arg == "hint" for each in node.keywords)
                yield code.value, hinted, f"{path.name}:{node.lineno}"


def test_every_code_has_a_hint() -> None:
    """In the table, or where it is raised."""
    assert sorted(each for each in raised() if not each[1] and each[0] not in HINTS) == []


def test_every_hint_has_its_code() -> None:
    """What nobody raises any more needs no hint. Some codes are put together from parts."""
    text = "\n".join(path.read_text() for path in SOURCES if path.name != "hints.py")
    assert [
        code for code in HINTS if f'"{code}"' not in text and not code.startswith(("artifact_", "files_not_"))
    ] == []
