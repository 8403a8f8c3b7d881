"""The guide, followed to the letter: files written, commands typed, and what they print compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "docs" / "guide").glob("*.md"))
_BLOCK = re.compile(
    r"^```(\{code-block\} python\n:caption: (\S+)\n\n|console\n)(.*?)^```$", re.DOTALL | re.MULTILINE
)


def blocks(text: str) -> Iterator[tuple[str | None, str]]:
    """A chapter's files, as name and content, and its consoles, with None for a name."""
    for found in _BLOCK.finditer(text):
        yield found[2], found[3]


def commands(console: str) -> Iterator[tuple[str, str]]:
    """Each command of a console, with what it is said to print."""
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def pattern(printed: str) -> str:
    """What a command may print: ``…`` stands for anything in a line, alone in a line for any lines."""
    lines = []
    for line in printed.rstrip().splitlines():
        if line == "…":
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(re.escape(line.rstrip()).replace("…", ".*") + r" *\n")
    return r"\n*" + "".join(lines) + r"\s*"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_block_of_a_chapter_is_executed(chapter: Path) -> None:
    """What a reader sees as code is a file with a name or a console with commands, and nothing else."""
    text = chapter.read_text()
    shown = [
        re.sub(r"\A:caption: .*\n\n", "", token.content)
        for token in MarkdownIt().parse(text)
        if token.type in ("fence", "code_block") and token.info != "{toctree}"
    ]
    assert shown == [content for _, content in blocks(text)]
    assert all(content.startswith("$ ") for name, content in blocks(text) if name is None)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter(chapter: Path, tmp_path: Path) -> None:
    """It works as told, in an empty home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERDURE", "XDG"))}
    environ = kept | {
        "HOME": str(tmp_path / "home"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
        "PYTHONWARNINGS": "ignore",  # a framework's, not ours
    }
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "home").mkdir()
    for name, content in blocks(chapter.read_text()):
        if name is not None:
            (work / name).write_text(content)
            continue
        for command, printed in commands(content):
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=work,
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            assert re.fullmatch(pattern(printed), done.stdout), f"$ {command}\n{done.stdout}"
