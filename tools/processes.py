"""Child processes: their environment, their output, and how they end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tools.terminal import say

ROOT = Path(__file__).resolve().parents[1]

# What a person's shell may hold that would make a run here differ from a run elsewhere.
UNWANTED = (
    "PERDURE_STORE",
    "PYTHONDONTWRITEBYTECODE",
    "PIP_PREFIX",
    "PIP_TARGET",
    "PIP_USER",
    "PYTHONHASHSEED",
    "PYTHONHOME",
    "PYTHONPATH",
    "VIRTUAL_ENV",
)


def clean_environment(environ: Mapping[str, str], **extra: str) -> dict[str, str]:
    """The environment for children: the caller's, without what would change the outcome."""
    kept = {name: value for name, value in environ.items() if name not in UNWANTED}
    kept.update(extra)
    return kept


def call(command: Sequence[str], **extra: str) -> int:
    """Runs a command in the repository with the terminal as it is; Ctrl-C lets it finish its own farewell."""
    with subprocess.Popen(command, cwd=ROOT, env=clean_environment(os.environ, **extra)) as child:
        try:
            return child.wait()
        except BaseException:
            end(child)
            raise


def end(child: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Waits a little for a child that got the same Ctrl-C, then makes it stop."""
    for signal_number in (0, signal.SIGTERM, signal.SIGKILL):
        child.send_signal(signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(3)
            return


def capture(command: Sequence[str], note: Callable[[str], None]) -> tuple[int, list[str]]:
    """Runs a command, gives each line of its output to `note`, returns its exit code and all lines."""
    lines: list[str] = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=clean_environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                lines.append(line.rstrip())
                note(lines[-1])
            return child.wait(), lines
        except BaseException:
            end(child)
            raise


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time prepares a folder; the others wait and then find it ready."""
    import fcntl  # absent on Windows, which `dev.py` has turned away by now

    with open(folder.with_name(folder.name + ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"{folder.name}: being prepared by another process, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
