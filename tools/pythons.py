"""The Pythons of this machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tools.processes import clean_environment

SUPPORTED = ((3, 11), (3, 12), (3, 13))

PROBE = (
    "import ensurepip, platform, sys, venv;"
    "print(sys.executable, platform.python_version(), sys.base_prefix, sep='\\n')"
)


class Interpreter(NamedTuple):
    """A Python that was really run and can make virtual environments."""

    path: str
    version: str
    prefix: str  # where it is installed: one Python has many paths, and this stays

    @property
    def minor(self) -> str:
        return ".".join(self.version.split(".")[:2])


def probe(python: str) -> Interpreter | None:
    """Runs a candidate: being on PATH proves nothing (version managers leave stubs, distributions leave
    out `ensurepip`)."""
    try:
        done = subprocess.run(
            [python, "-c", PROBE],
            env=clean_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    answer = done.stdout.splitlines()
    return Interpreter(*answer) if done.returncode == 0 and len(answer) == 3 else None


def candidates(minor: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Where a Python of this minor version may be: every folder on PATH, then pyenv's, newest first."""
    for folder in environ.get("PATH", "").split(os.pathsep):
        python = Path(folder) / f"python{minor}"
        if folder and os.access(python, os.X_OK):
            yield str(python)
    root = Path(environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    releases = [
        release
        for release in root.glob(f"versions/{minor}.*")
        if re.fullmatch(re.escape(minor) + r"\.\d+", release.name)
    ]
    for release in sorted(releases, key=lambda one: int(one.name.rpartition(".")[2]), reverse=True):
        yield str(release / "bin" / "python")


def find_python(minor: str, environ: Mapping[str, str]) -> Interpreter | None:
    """The first Python of this minor version that really runs, or None."""
    for candidate in candidates(minor, environ):
        found = probe(candidate)
        if found is not None and found.minor == minor:
            return found
    return None


def running_python() -> Interpreter:
    """The Python under our feet; its base where we were started from inside a virtual environment."""
    base = str(getattr(sys, "_base_executable", "") or sys.executable)
    return Interpreter(base, platform.python_version(), sys.base_prefix)
