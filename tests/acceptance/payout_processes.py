"""Payers and banks as processes: by an interpreter each, as users have them, or by forks, for campaigns."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Protocol, cast

import httpx

from examples.payouts import bank
from perdure.cli.common import Common, Source
from perdure.errors import PerdureError

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Command:
    """A command of ``perdure run``, of the function's name."""

    function: Callable[..., int]
    arguments: tuple[str, ...]
    options: Mapping[str, str | bool | tuple[str, ...]]
    store: Path
    app: str | None = None

    @property
    def words(self) -> list[str]:
        """As a user types it."""
        words = ["run", self.function.__name__, *self.arguments, "--store", str(self.store), "--json"]
        if self.app is not None:
            words += ["--app", self.app]
        for name, value in self.options.items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                words += [option] if value else []
            else:
                words += [word for each in _all(value) for word in (option, each)]
        return words

    def __call__(self) -> int:
        """What the words come to, without the time that it takes to read them; the exit code."""
        common, source = Common(str(self.store), json=True), Source(self.app)
        return self.function(*self.arguments, **self.options, common=common, source=source)


class Done(NamedTuple):
    """How a process ended."""

    code: int
    out: str
    error: str


class Processes(Protocol):
    """How processes are made."""

    def perdure(self, command: Command, environment: Mapping[str, str]) -> Done:
        """Run a command to its end, or to its death."""

    def bank(self, words: list[str]) -> contextlib.AbstractContextManager[str]:
        """A bank for as long as the context lasts; its address."""


class Interpreters:
    """Processes as users make them: ``python -m …``."""

    def perdure(self, command: Command, environment: Mapping[str, str]) -> Done:
        return self.typed(command.words, environment)

    def typed(self, words: list[str], environment: Mapping[str, str]) -> Done:
        """Run a command of these words to its end, or to its death."""
        done = subprocess.run(
            [sys.executable, "-m", "perdure", *words],
            env={**_environment(), **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def bank(self, words: list[str]) -> Iterator[str]:
        with (
            tempfile.TemporaryDirectory(prefix="bank-") as folder,
            subprocess.Popen(
                [sys.executable, "-m", "examples.payouts.bank", *_bank_words(words, folder)],
                env=_environment(),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            ) as process,
        ):
            assert process.stdout is not None
            try:
                yield _address(process.stdout.readline())
            finally:
                process.terminate()


class Forks:
    """Processes without an interpreter's start, made by a process that has no threads.

    A payer lives until it is killed, as a worker does: it takes one command after the other.
    """

    def __init__(self, rehearse: Callable[[Processes], object]) -> None:
        """``rehearse`` goes through what payers will do, here: what is slow once is done before any fork."""
        self._payer: tuple[int, Connection] | None = None
        # What children must not hold open: they would not see each other's end, nor ours.
        self._mine: set[int] = set()
        httpx.create_ssl_context = cache(httpx.create_ssl_context)
        # httpcore tries this import for each request, and one that fails looks through every folder again.
        sys.modules.setdefault("sniffio", cast("ModuleType", None))
        self._is_rehearsing = True
        rehearse(self)
        self._is_rehearsing = False
        assert threading.active_count() == 1
        gc.collect()
        gc.freeze()  # a collection in a child would touch, and so copy, all that was here before it

    def perdure(self, command: Command, environment: Mapping[str, str]) -> Done:
        if self._is_rehearsing:
            return _obey(command, environment)
        child, line = self._payer = self._payer or self._fork_payer()
        line.send((command, dict(environment)))
        try:
            done = line.recv()
        except (EOFError, ConnectionError):
            self._payer = None
            self._mine.discard(line.fileno())
            line.close()
            return Done(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "", "")
        assert isinstance(done, Done)
        return done

    def _fork_payer(self) -> tuple[int, Connection]:
        ours, theirs = Pipe()
        self._mine.add(ours.fileno())

        def run() -> int:
            with contextlib.suppress(EOFError, ConnectionError):  # whoever gave commands has gone
                while True:
                    theirs.send(_obey(*theirs.recv()))
            return 0

        child = self._fork(run)
        theirs.close()
        return child, ours

    @contextlib.contextmanager
    def bank(self, words: list[str]) -> Iterator[str]:
        with tempfile.TemporaryDirectory(prefix="bank-") as folder:
            heard, told = os.pipe()
            watched, held = os.pipe()
            self._mine.add(held)

            def run() -> int:
                os.dup2(watched, 0)
                os.dup2(told, 1)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                return bank.main(_bank_words(words, folder))

            child = self._fork(run)
            os.close(told)
            os.close(watched)
            try:
                with os.fdopen(heard) as out:
                    yield _address(out.readline())
            finally:
                self._mine.discard(held)
                os.close(held)
                os.waitpid(child, 0)

    def _fork(self, run: Callable[[], int]) -> int:
        """A child that ends with what ``run`` gives; its id."""
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            for each in self._mine:
                os.close(each)
            code = run()
        finally:
            if sys.exception() is not None:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _obey(command: Command, environment: Mapping[str, str]) -> Done:
    """Run a command in this process."""
    os.environ.update(environment)
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as error,
    ):
        try:
            code = command()
        except PerdureError as problem:
            code = 1
            error.write(str(problem))
    return Done(code, out.getvalue(), error.getvalue())


def _all(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,)


def _bank_words(words: list[str], folder: str) -> list[str]:
    return [*words, "--until-eof", "--ledger", str(Path(folder) / "ledger.jsonl")]


def _address(line: str) -> str:
    """The address in the line that a bank prints first."""
    (word,) = [word.rstrip(",") for word in line.split() if word.startswith("http://")]
    return word


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}
