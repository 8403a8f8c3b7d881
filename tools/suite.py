"""Every check, in order."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tools.environments import Environment, current
from tools.processes import ROOT, call
from tools.pythons import SUPPORTED, find_python, running_python
from tools.terminal import Stop, elapsed, heading, paint, say

CHECKED = ("src", "tests", "examples", "bench", "tools", "dev.py")
STEPS = ("format", "lint", "types", "layers", "tests", "coverage")


class Result(NamedTuple):
    """How one step ended. `ok` is None for a step that was not run; `note` then says why."""

    step: str
    ok: bool | None
    seconds: float
    note: str = ""


SLOW = ("docs", "acceptance", "packaging", "faults", "properties")
"""Snippets, kills, distributions and random histories."""


class Step(NamedTuple):
    name: str
    title: str
    run: Callable[[], Result]


class Suite:
    """The checks of `test`, in order. Every one runs, whatever became of those before it."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self.fast: bool = options.fast
        self.only: list[str] = options.only
        self.seed: int = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
        self.selection: list[str] = options.pytest
        self.scratch = scratch
        # Shared with no other run: several may work in one folder.
        self.coverage = {"COVERAGE_FILE": str(scratch / "coverage")}
        self.here = running_python()

    def steps(self) -> list[Step]:
        static = [
            ("format", "ruff format --check", ["ruff", "format", "--check", "."]),
            ("lint", "ruff check", ["ruff", "check", "."]),
            ("types", "mypy --strict", ["mypy", *(one for one in CHECKED if (ROOT / one).exists())]),
            ("layers", "lint-imports", ["lint-imports"]),
        ]
        found = [Step(name, title, self.tool(title, command)) for name, title, command in static]
        title = f"pytest, Python {self.here.minor}"
        found.append(Step("tests", title, lambda: self.tests(title)))
        if not self.selection:
            slow = f"pytest, Python {self.here.minor}: {', '.join(SLOW)}"
            found.append(Step("slow", slow, lambda: self.slow_tests(slow)))
        found.append(Step("coverage", "coverage floor", self.floor))
        others = [] if self.fast else [f"{a}.{b}" for a, b in SUPPORTED if f"{a}.{b}" != self.here.minor]
        found.extend(Step(minor, f"pytest, Python {minor}", self.elsewhere(minor)) for minor in others)
        return [step for step in found if not self.only or step.name in self.only]

    def tool(self, title: str, command: Sequence[str]) -> Callable[[], Result]:
        def run() -> Result:
            started = time.monotonic()
            name, *arguments = command
            code = call([str(ROOT / ".venv" / "bin" / name), *arguments])
            return Result(title, code == 0, time.monotonic() - started)

        return run

    def pytest(self, title: str, environment: Environment, options: Sequence[str]) -> Result:
        """Runs the suite in an environment, in a random order that the seed repeats."""
        report = self.scratch / f"{environment.folder.name}.xml"
        is_spread = any(one.startswith("-n") for one in self.selection)
        workers = [] if is_spread else ["-n", str(cores()), "--dist", "worksteal"]
        started = time.monotonic()
        command = [environment.python, "-m", "pytest", f"--randomly-seed={self.seed}", *workers, *options]
        code = call([*command, f"--junit-xml={report}", *self.selection], **self.coverage)
        return Result(title, code == 0, time.monotonic() - started, tally(report))

    def tests(self, title: str) -> Result:
        options = ["--cov", "--cov-report=", "--cov-fail-under=0"]
        # What is measured takes up to twice as long: the slow ones are run without.
        slow = [] if self.selection else [f"--ignore=tests/{each}" for each in SLOW]
        return self.pytest(title, current("test"), [*options, *slow])

    def slow_tests(self, title: str) -> Result:
        return self.pytest(title, current("test"), [f"tests/{each}" for each in SLOW])

    def floor(self) -> Result:
        title = "coverage floor"
        data = self.scratch / "coverage"
        if self.selection:
            return Result(title, None, 0, "not judged on a selection of tests")
        if not data.exists():
            return Result(title, None, 0, "nothing was measured")
        started = time.monotonic()
        code = call([str(ROOT / ".venv" / "bin" / "coverage"), "report"], **self.coverage)
        shutil.copy(data, ROOT / ".coverage")  # for `coverage html` afterwards
        return Result(title, code == 0, time.monotonic() - started)

    def elsewhere(self, minor: str) -> Callable[[], Result]:
        def run() -> Result:
            title = f"pytest, Python {minor}"
            base = find_python(minor, os.environ)
            if base is None:
                return Result(title, None, 0, "not found on this machine")
            environment = Environment(ROOT / f".venv-{minor}", base).ready("test")
            if minor in [f"{a}.{b}" for a, b in SUPPORTED[1:-1]]:
                # What stands between the oldest and the newest breaks where one of these does.
                return self.pytest(title, environment, ["tests/fundamentals"])
            # Slow, and the same in all Pythons; so are the screens, and what stores promise.
            ignored = [f"--ignore=tests/{each}" for each in (*SLOW, "cli", "conformance")]
            return self.pytest(title, environment, ignored)

        return run


def cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS
    return max(2, len(affinity(0)) if affinity else os.cpu_count() or 2)


def tally(report: Path) -> str:
    """`812 passed, 3 skipped`, from a JUnit report; empty if there is none."""
    from xml.etree import ElementTree

    try:
        suites = list(ElementTree.parse(report).iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return ""
    total = {
        word: sum(int(suite.get(word, 0)) for suite in suites)
        for word in ("tests", "failures", "errors", "skipped")
    }
    passed = total["tests"] - total["failures"] - total["errors"] - total["skipped"]
    counts = ((passed, "passed"), (total["failures"], "failed"), (total["errors"], "broken"))
    return ", ".join(f"{n} {word}" for n, word in (*counts, (total["skipped"], "skipped")) if n)


def summary(results: Sequence[Result]) -> list[str]:
    """The table at the end of `test`."""
    width = max(len(result.step) for result in results)
    words = {True: paint("ok     ", 32), False: paint("FAILED ", 31), None: paint("not run", 33)}
    return [
        f"  {result.step:<{width}}  {words[result.ok]}  "
        f"{'' if result.ok is None else elapsed(result.seconds):>12}  {result.note}".rstrip()
        for result in results
    ]


def test(options: argparse.Namespace) -> int:
    started = time.monotonic()
    current("test")
    with tempfile.TemporaryDirectory(prefix="perdure-test-") as scratch:
        suite = Suite(options, Path(scratch))
        results = []
        for step in suite.steps():
            heading(step.title)
            try:
                results.append(step.run())
            except Stop as stop:
                say(str(stop))
                results.append(Result(step.title, False, 0, str(stop).split("\n")[0]))
    heading("Summary")
    for line in summary(results):
        say(line)
    say()
    failed = [result.step for result in results if result.ok is False]
    say(f"Order of the tests: seed {suite.seed} (again: python3 dev.py test --seed {suite.seed})")
    took = elapsed(time.monotonic() - started)
    if failed:
        say(paint(f"FAILED in {took}: {', '.join(failed)}", 31))
        return 1
    say(paint(f"All checks passed in {took}.", 32))
    return 0
