#!/usr/bin/env python3
"""Everything a developer does here, from a fresh clone on, with nothing but Python 3.11 or newer.

    python3 dev.py run      the real example on the embedded store, on this repository
    python3 dev.py test     every check, on every supported Python found on this machine

Both build `.venv` from the hash-pinned files in `requirements/` when it is missing or out of date, and
start at once when it is not. Standard library only: this file runs before anything is installed.
"""

# Old Pythons must be able to parse this file, to be told what is wrong: syntax of 3.8, checked by a test.
from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent
SUPPORTED = ((3, 11), (3, 12), (3, 13))
UV = "uv==0.13.8"  # resolves the locks; nothing else needs it
CHECKED = ("src", "tests", "examples", "bench", "dev.py")
STAMP = "perdure-ready.json"
STEPS = ("format", "lint", "types", "layers", "tests", "coverage")

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

# Commands whose words after the name belong to a module of the repository: (module, lock, what it does).
MODULES = {
    "run": ("examples.repo_audit", "run", "run the real example on this repository"),
    "bench": ("bench", "test", "measure, and print ratios"),
    "faults": ("tests.faults", "test", "kill, cut and corrupt, with a printed seed"),
}


class Stop(Exception):
    """Ends the command with a message for the person who started it."""


class Interpreter(NamedTuple):
    """A Python that was really run and can make virtual environments."""

    path: str
    version: str
    prefix: str  # where it is installed: one Python has many paths, and this stays

    @property
    def minor(self) -> str:
        return ".".join(self.version.split(".")[:2])


class Result(NamedTuple):
    """How one step ended. `ok` is None for a step that was not run; `note` then says why."""

    step: str
    ok: bool | None
    seconds: float
    note: str = ""


# --------------------------------------------------------------------------------------------- output


def say(text: str = "") -> None:
    """Prints at once: children write to the same terminal, and the order must hold."""
    print(text, flush=True)


def paint(text: str, colour: int) -> str:
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return f"\033[{colour}m{text}\033[0m"


def elapsed(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def heading(text: str) -> None:
    say()
    say(paint(f"-- {text} ".ljust(78, "-"), 1))


# ------------------------------------------------------------------------------------------ processes


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
    import fcntl  # absent on Windows, which `main` has turned away by now

    with open(folder.with_name(folder.name + ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"{folder.name}: being prepared by another process, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# ---------------------------------------------------------------------------------------- interpreters

PROBE = (
    "import ensurepip, platform, sys, venv;"
    "print(sys.executable, platform.python_version(), sys.base_prefix, sep='\\n')"
)


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


# ---------------------------------------------------------------------------------------- environments


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
            ["install", "--require-hashes", "--only-binary", ":all:", "-r", str(lock_file(lock))],
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


# ----------------------------------------------------------------------------------------------- test


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
        workers = [] if any(one.startswith("-n") for one in self.selection) else ["-n", str(cores())]
        started = time.monotonic()
        command = [environment.python, "-m", "pytest", f"--randomly-seed={self.seed}", *workers, *options]
        code = call([*command, f"--junit-xml={report}", *self.selection], **self.coverage)
        return Result(title, code == 0, time.monotonic() - started, tally(report))

    def tests(self, title: str) -> Result:
        options = ["--cov", "--cov-report=", "--cov-fail-under=0"]
        return self.pytest(title, current("test"), options)

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
            # Snippets, screens, kills, distributions and random histories: slow, and the same in all Pythons.
            slow = ("docs", "acceptance", "cli", "packaging", "faults", "properties")
            ignored = [f"--ignore=tests/{each}" for each in slow]
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


# ------------------------------------------------------------------------------------- other commands


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


# ----------------------------------------------------------------------------------------------- main


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
    if sys.version_info < SUPPORTED[0]:
        found = ".".join(map(str, sys.version_info[:3]))
        say(f"Perdure needs Python 3.11 or newer; this is {found} ({sys.executable}).")
        say("Start it with a newer one, for example: python3.12 dev.py run")
        return 2
    if os.name != "posix":
        say("Set-up works on Linux and macOS; on Windows use the Windows Subsystem for Linux.")
        return 2
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


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Stop, OSError) as stop:
        say(paint("Stopped: ", 31) + str(stop))
        sys.exit(1)
    except KeyboardInterrupt:
        say("\nInterrupted.")
        sys.exit(130)
