"""The demo: a run is killed half-way, resumed and replayed, with commands that anybody can type."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from perdure.cli.output import EXIT_COMPLETED, EXIT_USAGE, Output

APP = "perdure.demo:app"
KEY = "demo"
ORDER = '{"item": "tea", "count": 3}'
_LOG_VARIABLE = "PERDURE_DEMO_LOG"
# After this commit the warehouse's answer is durable, and nothing of its state is.
_KILL_AFTER = "commit.after:4=kill"


def demo(*, folder: Path | None = None) -> int:
    """Run a small shop's checkout, kill it half-way, resume it, and replay it. Offline; takes seconds.

    perdure demo

    Parameters
    ----------
    folder
        Where to keep the demo's store, to look at it afterwards; a temporary folder unless given.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        return _tell(folder)
    with tempfile.TemporaryDirectory(prefix="perdure-demo-") as temporary:
        return _tell(Path(temporary))


def _tell(folder: Path) -> int:
    from perdure.ids import RunId

    output = Output(as_json=False)
    run_id = RunId.for_invocation(KEY)
    store, log = folder / "runs.db", folder / "asked.log"
    environ = os.environ | {_LOG_VARIABLE: str(log), "PERDURE_STORE": str(store)}

    def tell(text: str) -> None:
        output.line()
        output.heading(text)

    def type_in(*words: str, hidden: tuple[str, ...] = ()) -> int:
        output.line(f"$ {shlex.join(['perdure', *words])}")
        command = [sys.executable, "-m", "perdure", *words, *hidden]
        return subprocess.run(command, env=environ, check=False).returncode

    tell("1. A checkout asks three services and writes a receipt. Its process is killed half-way.")
    start = ("run", "start", "checkout", "--app", APP, "--key", KEY, "--input", ORDER)
    code = type_in(*start, hidden=("--failpoint", _KILL_AFTER))
    if code >= 0:
        if code == EXIT_COMPLETED:
            output.line("this order was run here before; choose another folder")
        return code or EXIT_USAGE
    output.line(f"(kill -9) asked so far: {_asked(log)}")

    tell("2. Another process resumes it. What was answered is not asked again.")
    type_in("run", "resume", run_id[:8], "--app", APP)
    output.line(f"asked in all: {_asked(log)}")

    tell("3. Every answer is a recorded fact.")
    type_in("run", "facts", run_id[:8])

    tell("4. From the facts alone every state is derived again: the same hashes.")
    code = type_in("run", "replay", run_id[:8], "--app", APP)
    output.line()
    output.line("The shop is one page of Python: python -c 'import perdure.demo; help(perdure.demo)'")
    return code or EXIT_COMPLETED


def _asked(log: Path) -> str:
    services = log.read_text().split() if log.exists() else []
    return ", ".join(f"{name} {services.count(name)}x" for name in dict.fromkeys(services)) or "nobody"
