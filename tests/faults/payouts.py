"""Payouts by many seeds, each killed at every durable write in turn, several at a time."""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from tests.acceptance.payout_processes import Forks
from tests.acceptance.payouts import Life, Setting, every_kill


class Told(NamedTuple):
    """What a worker says of one seed's payouts; ``problem`` is empty if all was well."""

    setting: Setting
    lives: int
    life: Life
    problem: str


def pay(seeds: Sequence[int], invoices: int, workers: int) -> int:
    """Pay by banks that honour keys and by banks that do not; stop where something is not as it should be."""
    settings = [Setting(seed, honoured, invoices) for seed in seeds for honoured in (True, False)]
    begun, lives, total = time.monotonic(), 0, Life(0, 0, 0)
    # Workers are processes of their own: they fork, and so may have no threads.
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="payouts-") as folder,
        context.Pool(workers, _prepare_worker, [folder]) as pool,
    ):
        for number, told in enumerate(pool.imap_unordered(_every_kill, settings), 1):
            lives, total = lives + told.lives, total + told.life
            keys = "honoured" if told.setting.honoured else "ignored"
            print(
                f"{number}/{len(settings)}: seed {told.setting.seed}, keys {keys}: {told.lives} runs, "
                f"{told.life.kills} kills, {told.life.resolved} resolved by the ledger",
                flush=True,
            )
            if told.problem:
                again = f"--example payouts --seeds 1 --seed {told.setting.seed} --invoices {invoices}"
                print(f"{told.problem}\nrun again with {again}")
                return 1
    seconds = time.monotonic() - begun
    print(
        f"{len(seeds)} seeds, {lives} runs in {total.processes} processes, {total.kills} kills, "
        f"{total.resolved} effects in doubt resolved, {seconds:.0f} s: every invoice was paid exactly once"
    )
    return 0


def _prepare_worker(folder: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the campaign's, which ends its workers
    tempfile.tempdir = folder  # a worker that is ended does not clear up


@cache
def _forks() -> Forks:
    return Forks()


def _every_kill(setting: Setting) -> Told:
    lives, total = 0, Life(0, 0, 0)
    try:
        for _, life in every_kill(_forks(), setting):
            lives, total = lives + 1, total + life
    except AssertionError as error:
        return Told(setting, lives, total, str(error))
    return Told(setting, lives, total, "")
