"""Payouts by many seeds, each killed at every durable write in turn, several at a time."""

from __future__ import annotations

import multiprocessing
import random
import signal
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from tests.acceptance.payout_processes import Forks, Processes
from tests.acceptance.payouts import Life, Setting, every_kill, live

# The bank hangs up on the first request, pays at the second one.
_DOUBTFUL = Setting(29, honoured=False, invoices=1)


class Told(NamedTuple):
    """What a worker says of one seed's payouts; ``problem`` is empty if all was well."""

    setting: Setting
    lives: int
    life: Life
    problem: str


def pay(seeds: Sequence[int], invoices: int, workers: int) -> int:
    """Pay by banks that honour keys and by banks that do not; stop where something is not as it should be."""
    settings = [Setting(seed, honoured, invoices) for seed in seeds for honoured in (True, False)]
    begun, seconds, lives, total = time.monotonic(), 0.0, 0, Life(0, 0, 0)
    # Workers are processes of their own: they fork, and so may have no threads.
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="payouts-") as folder,
        context.Pool(workers, _prepare_worker, [folder]) as pool,
    ):
        for number, told in enumerate(pool.imap_unordered(_every_kill, settings), 1):
            lives, total = lives + told.lives, total + told.life
            seconds = time.monotonic() - begun
            left = seconds / number * (len(settings) - number)
            keys = "honoured" if told.setting.honoured else "ignored"
            print(
                f"{number}/{len(settings)}: seed {told.setting.seed}, keys {keys}: {told.lives} runs, "
                f"{told.life.kills} kills, {told.life.resolved} doubts resolved; {_minutes(left)} left",
                flush=True,
            )
            if told.problem:
                again = f"--example payouts --seeds 1 --seed {told.setting.seed} --invoices {invoices}"
                print(f"{told.problem}\nrun it alone with: python3 dev.py faults {again}")
                return 1
    # More than one payment of an invoice would have been a problem, and so would none.
    print(
        f"{len(seeds)} seeds, {lives} runs, {total.kills} kills, {total.resolved} doubts resolved, "
        f"{lives * invoices} invoices paid exactly once, twice: 0; {_minutes(seconds)}"
    )
    return 0


def _minutes(seconds: float) -> str:
    return "{}:{:02} min".format(*divmod(round(seconds), 60))


def _prepare_worker(folder: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the campaign's, which ends its workers
    tempfile.tempdir = folder  # a worker that is ended does not clear up


@cache
def _forks() -> Forks:
    return Forks(_rehearse)


def _rehearse(processes: Processes) -> None:
    """Start, be in doubt, resolve, resume: every command that a payer is given."""
    with processes.bank(_DOUBTFUL.bank_words) as address:
        assert live(processes, _DOUBTFUL, address, None, random.Random()).resolved


def _every_kill(setting: Setting) -> Told:
    lives, total = 0, Life(0, 0, 0)
    try:
        for _, life in every_kill(_forks(), setting):
            lives, total = lives + 1, total + life
    except AssertionError as error:
        return Told(setting, lives, total, str(error))
    return Told(setting, lives, total, "")
