"""Virtual environments, built from locks."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.processes import ROOT, alone, capture
from tools.pythons import Interpreter, running_python
from tools.terminal import Stop, elapsed, say

STAMP = "perdure-ready.json"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lock_file(name: str) -> Path:
    return ROOT / "requirements" / f"{name}.txt"


class Environment:
    """A virtual environment in the repository, built from a lock and stamped when complete.

    The stamp names the Python, the place, the project file and the lock that it was built from. It is
    removed before anything is changed and written last, so an interrupted build never has one.
    """

    def __init__(self, folder: Path, base: Interpreter) -> None:
        self.folder = folder
        self.base = base
        self.python = str(folder / "bin" / "python")

    def __repr__(self) -> str:
        return f"Environment({self.folder.name}, Python {self.base.version})"

    def stamp(self) -> dict[str, str]:
        """What the environment was last completed from; empty if it is not complete."""
        try:
            data = json.loads((self.folder / STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def foundation(self) -> dict[str, str]:
        """What cannot change under a virtual environment: scripts in it name its own place."""
        return {"python": self.base.version, "prefix": self.base.prefix, "folder": str(self.folder)}

    def has_foundation(self) -> bool:
        stamp = self.stamp()
        return os.path.exists(self.python) and all(stamp.get(k) == v for k, v in self.foundation().items())

    def satisfies(self, lock: str) -> bool:
        """True if it is complete for this lock: the test lock holds all that the run lock does."""
        stamp = self.stamp()
        return (
            self.has_foundation()
            and stamp.get("project") == sha256(ROOT / "pyproject.toml")
            and any(
                stamp.get("lock") == name and stamp.get("lock_hash") == sha256(lock_file(name))
                for name in {lock, "test"}
            )
        )

    def ready(self, lock: str) -> Environment:
        """Builds or completes it, unless it satisfies the lock already. Raises Stop when it cannot."""
        if self.satisfies(lock):
            return self
        with alone(self.folder):
            if not self.satisfies(lock):
                self.build(lock)
        return self

    def build(self, lock: str) -> None:
        started = time.monotonic()
        say(f"Preparing {self.folder.name} (Python {self.base.version}, requirements/{lock}.txt) ...")
        if not self.has_foundation():
            self.create()
        content = {
            **self.foundation(),
            "project": sha256(ROOT / "pyproject.toml"),
            "lock": lock,
            "lock_hash": sha256(lock_file(lock)),
        }
        (self.folder / STAMP).unlink(missing_ok=True)
        self.pip(
            f"installing {count(lock)} packages",
            # Of most modules that come along with the tools nothing is ever compiled then.
            [
                "install",
                "--no-compile",
                "--require-hashes",
                "--only-binary",
                ":all:",
                "-r",
                str(lock_file(lock)),
            ],
        )
        self.pip("installing perdure", ["install", "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
        # Compiled once, so that the first run is as quick as the second.
        self.watched("compiling", [self.python, "-m", "compileall", "-q", str(ROOT / "src")])
        self.write_stamp(content)
        say(f"  {self.folder.name} is ready ({elapsed(time.monotonic() - started)})")

    def create(self) -> None:
        """Makes the bare environment. What is left of another one goes: half of it may be missing."""
        if os.path.lexists(self.folder):
            say(f"  {self.folder.name} is incomplete, or of another Python or place: building it anew")
            (self.folder / STAMP).unlink(missing_ok=True)
        command = [self.base.path, "-m", "venv", "--clear", str(self.folder)]
        code, lines = self.watched("making the environment", command)
        if code:
            raise Stop(
                f"Python {self.base.version} could not make a virtual environment.\n"
                "It needs the standard modules venv and ensurepip. On Debian and Ubuntu:\n"
                f"    apt install python{self.base.minor}-venv\n" + quoted(lines)
            )
        self.write_stamp(self.foundation())

    def write_stamp(self, content: Mapping[str, str]) -> None:
        partial = self.folder / (STAMP + ".new")
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        partial.replace(self.folder / STAMP)

    def pip(self, title: str, arguments: Sequence[str]) -> None:
        options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        code, lines = self.watched(title, [self.python, "-m", "pip", *arguments, *options])
        if code:
            raise Stop(f"{title} failed: {diagnosis(lines)}\n" + quoted(lines))

    def watched(self, title: str, command: Sequence[str]) -> tuple[int, list[str]]:
        """Runs a command with its latest line shown in place, where there is a terminal to show it on."""
        live = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns - 1
        started = time.monotonic()

        def note(line: str) -> None:
            if live:
                print("\r\033[K" + f"  {title}: {line.strip()}"[:width], end="", flush=True)

        if not live:
            say(f"  {title} ...")
        try:
            return capture(command, note)
        finally:
            if live:
                print("\r\033[K", end="")
                say(f"  {title} ({elapsed(time.monotonic() - started)})")


def count(lock: str) -> int:
    """How many packages a lock names."""
    return len(re.findall(r"^[\w.-]+==", lock_file(lock).read_text(encoding="utf-8"), re.MULTILINE))


def diagnosis(lines: Sequence[str]) -> str:
    """What to do about a failed installation, from what pip wrote."""
    text = "\n".join(lines)
    if "DO NOT MATCH THE HASHES" in text:
        return (
            "a package differs from the one that was locked, and was refused.\n"
            "If the lock is meant to change: python3 dev.py lock"
        )
    # Without an answer from the index pip ends with "from versions: none", whatever the cause.
    if re.search(r"connection|timed out|name resolution|ProxyError|SSLError|versions: none", text, re.I):
        return (
            "the package index could not be reached.\n"
            "Check the network, and what pip is told about an index or a proxy: python3 -m pip config list"
        )
    if "No space left" in text:
        return "the disk is full."
    return "pip said:"


def quoted(lines: Sequence[str]) -> str:
    return "\n".join(f"    | {line}" for line in [one for one in lines if one.strip()][-8:])


def current(lock: str) -> Environment:
    """`.venv`, under the running Python, ready for this lock."""
    return Environment(ROOT / ".venv", running_python()).ready(lock)
