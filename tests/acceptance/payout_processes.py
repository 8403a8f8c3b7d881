"""Payers and banks as processes: by an interpreter each, as users have them, or by forks, for campaigns."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol

import httpx

from examples.payouts import bank
from perdure.cli import main as perdure

ROOT = Path(__file__).resolve().parents[2]
APP = "examples.payouts:app"


class Done(NamedTuple):
    """How a process ended."""

    code: int
    out: str
    error: str


class Processes(Protocol):
    """How processes are made."""

    def perdure(self, words: list[str], environment: Mapping[str, str]) -> Done:
        """Run a command to its end, or to its death."""

    def bank(self, words: list[str]) -> contextlib.AbstractContextManager[str]:
        """A bank for as long as the context lasts; its address."""


class Interpreters:
    """Processes as users make them: ``python -m …``."""

    def perdure(self, words: list[str], environment: Mapping[str, str]) -> Done:
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
    """Processes without an interpreter's start, made by a process that has no threads."""

    def __init__(self) -> None:
        # Whatever is slow and the same for all is done now, so that no child has to.
        httpx.create_ssl_context = cache(httpx.create_ssl_context)
        with (
            tempfile.TemporaryDirectory() as folder,
            self.bank(["--late-ms", "1"]) as address,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            given = json.dumps({"bank": address, "invoices": [{"id": "a", "cents": 1}]})
            store = str(Path(folder) / "runs.db")
            perdure(["run", "start", "payouts", "--input", given, "--store", store, "--app", APP, "--json"])
        assert threading.active_count() == 1

    def perdure(self, words: list[str], environment: Mapping[str, str]) -> Done:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:

            def run() -> int:
                os.dup2(out.fileno(), 1)
                os.dup2(error.fileno(), 2)
                os.environ.update(environment)
                return perdure(words)

            code = os.waitstatus_to_exitcode(os.waitpid(_fork(run), 0)[1])
            out.seek(0)
            error.seek(0)
            return Done(code, out.read().decode(), error.read().decode())

    @contextlib.contextmanager
    def bank(self, words: list[str]) -> Iterator[str]:
        with tempfile.TemporaryDirectory(prefix="bank-") as folder:
            heard, told = os.pipe()
            watched, held = os.pipe()

            def run() -> int:
                os.close(held)
                os.dup2(watched, 0)
                os.dup2(told, 1)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                return bank.main(_bank_words(words, folder))

            child = _fork(run)
            os.close(told)
            os.close(watched)
            try:
                with os.fdopen(heard) as out:
                    yield _address(out.readline())
            finally:
                os.close(held)
                os.waitpid(child, 0)


def _fork(run: Callable[[], int]) -> int:
    """A child that ends with what ``run`` gives; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        code = run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _bank_words(words: list[str], folder: str) -> list[str]:
    return [*words, "--until-eof", "--ledger", str(Path(folder) / "ledger.jsonl")]


def _address(line: str) -> str:
    """The address in the line that a bank prints first."""
    (word,) = [word.rstrip(",") for word in line.split() if word.startswith("http://")]
    return word


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}
