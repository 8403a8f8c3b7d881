"""The commands."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tools.environments import Environment, count, current, lock_file
from tools.processes import ROOT, alone, call, clean_environment
from tools.pythons import SUPPORTED, running_python
from tools.suite import STEPS, test
from tools.terminal import Stop, heading, paint, say

UV = "uv==0.13.8"  # resolves the locks; nothing else needs it

# Commands whose words after the name belong to a module of the repository: (module, lock, what it does).
MODULES = {
    "run": ("examples.repo_audit", "run", "run the real example on this repository"),
    "bench": ("bench", "test", "measure, and print ratios"),
    "faults": ("tests.faults", "test", "kill, cut and corrupt, with a printed seed"),
}


def module(name: str, arguments: Sequence[str]) -> NoReturn:
    """Becomes the module's process, so that a signal sent here reaches what does the work."""
    target, lock, _ = MODULES[name]
    python = current(lock).python
    os.chdir(ROOT)
    sys.stdout.flush()
    os.execve(python, [python, "-m", target, *arguments], clean_environment(os.environ))


def docs(options: argparse.Namespace) -> int:
    """Builds the pages, every warning an error, and follows the guide."""
    python = current("test").python
    pages = ROOT / "docs" / "_build" / "html"
    heading("pages")
    built = call([python, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", str(pages)])
    if built == 0:
        say(f"{pages / 'index.html'}")
    heading("snippets and links")
    return call([python, "-m", "pytest", "tests/docs", *options.pytest]) or built


def peers(_: argparse.Namespace) -> int:
    """Prepares the environment of those that `bench --peers` compares with; its Python is the last line."""
    say(Environment(ROOT / ".venv-peers", running_python()).ready("peers").python)
    return 0


def fix(_: argparse.Namespace) -> int:
    ruff = str(Path(current("test").python).with_name("ruff"))
    checked = call([ruff, "check", "--fix", "."])
    return call([ruff, "format", "."]) or checked


def lock(options: argparse.Namespace) -> int:
    """Resolves the locks for every platform and every supported Python, keeping the pins that still hold."""
    tools = Environment(ROOT / ".venv-tools", running_python())
    with alone(tools.folder):
        if not tools.has_foundation():
            tools.create()
        tools.pip(f"installing {UV}", ["install", "--only-binary", ":all:", UV])
    uv = str(Path(tools.python).with_name("uv"))
    oldest = "{}.{}".format(*SUPPORTED[0])
    with tempfile.TemporaryDirectory(prefix="perdure-lock-") as scratch:
        # The first lock's pins are the second one's preferences: they never differ in a version.
        fresh = Path(scratch) / "requirements.txt"
        if not options.upgrade and lock_file("test").exists():
            shutil.copy(lock_file("test"), fresh)
        for name, group in (("test", "test"), ("run", "build"), ("peers", "peers")):
            heading(f"requirements/{name}.txt")
            command = [uv, "pip", "compile", "pyproject.toml", "--group", group, "--universal", "--quiet"]
            command += ["--python-version", oldest, "--generate-hashes", "--only-binary", ":all:"]
            command += ["--no-header", "--no-emit-index-url", "--no-emit-find-links"]
            if call([*command, "--output-file", str(fresh)]):
                raise Stop(f"requirements/{name}.txt could not be resolved and was left as it is.")
            text = fresh.read_text(encoding="utf-8")
            lock_file(name).write_text(f"# Made by `python3 dev.py lock`.\n{text}", encoding="utf-8")
            say(f"{count(name)} packages")
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="dev.py",
        description="Everything a developer does here. Start with `run` and `test`.",
    )
    commands = top.add_subparsers(dest="command", metavar="command")
    testing = commands.add_parser(
        "test",
        help="run every check, on every supported Python found",
        description="Runs every check. Words after `--` go to pytest, and select tests if you like: "
        "`dev.py test --only tests -- tests/unit -k ids`.",
    )
    testing.add_argument("--fast", action="store_true", help="only under the Python that runs this")
    testing.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="STEP",
        choices=[*STEPS, *(f"{a}.{b}" for a, b in SUPPORTED)],
        help="only this step, may be repeated: %(choices)s",
    )
    testing.add_argument("--seed", type=int, metavar="N", help="repeat the order of an earlier run")
    testing.set_defaults(action=test)
    locking = commands.add_parser("lock", help="resolve requirements/*.txt again from pyproject.toml")
    locking.add_argument("--upgrade", action="store_true", help="to the newest versions, not the locked ones")
    locking.set_defaults(action=lock)
    commands.add_parser("docs", help="build the documentation, and check it").set_defaults(action=docs)
    commands.add_parser("peers", help="prepare what `bench --peers` compares with").set_defaults(action=peers)
    commands.add_parser("fix", help="format, and fix what ruff can").set_defaults(action=fix)
    for name, (target, _, purpose) in MODULES.items():
        commands.add_parser(name, help=f"{purpose}; further words go to `{target}`")
    return top


def main(arguments: Sequence[str]) -> int:
    try:
        return obey(arguments)
    except (Stop, OSError) as stop:
        say(paint("Stopped: ", 31) + str(stop))
        return 1
    except KeyboardInterrupt:
        say("\nInterrupted.")
        return 130


def obey(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] in MODULES:
        rest = list(arguments[1:])
        module(arguments[0], rest[1:] if rest[:1] == ["--"] else rest)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser().parse_args(arguments[:split])
    options.pytest = list(arguments[split + 1 :])
    if options.command is None:
        parser().print_help()
        return 2
    code = options.action(options)
    assert isinstance(code, int)
    return code
