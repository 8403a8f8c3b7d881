"""``python -m tests.faults``: kills real runs, resumes them, and sees that they end as they should.

Audits are killed at random moments, payouts by every seed at every durable write in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from perdure import RunId
from tests.acceptance.audits import ROOT, Audits, ending, head
from tests.faults.payouts import pay


def main() -> int:
    """Kill as asked; stop at the first run that does not end as it should."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--example", choices=["audits", "payouts"], default="audits")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--kills", type=int, default=50, help="of audits, in all")
    parser.add_argument("--seeds", type=int, default=200, help="of payouts: so many, from --seed on")
    parser.add_argument("--invoices", type=int, default=3, help="of payouts: how many a run pays")
    parser.add_argument("--workers", type=int, default=3, help="of payouts: banks at a time")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    if options.example == "payouts":
        seeds = range(options.seed, options.seed + options.seeds)
        return pay(seeds, options.invoices, options.workers)
    return audits_at_random(options)


def audits_at_random(options: argparse.Namespace) -> int:
    """Kill audits at random moments, as many times as asked."""
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        audits = Audits(Path(folder))
        run_id = RunId("00000000-0000-0000-0000-0000000000cc")
        calm = Path(folder) / "calm.db"
        begun = time.monotonic()
        if audits.run(audits.start(calm, run_id)).returncode:
            print("the undisturbed audit fails; nothing to compare with")
            return 1
        length = time.monotonic() - begun
        expected, questions = asyncio.run(ending(calm, run_id)), len(audits.calls())
        kills = rounds = 0
        while kills < options.kills:
            rounds += 1
            store = Path(folder) / f"{rounds}.db"
            killed = _live_dangerously(audits, store, run_id, rng, length, options.kills - kills)
            kills += killed
            found = asyncio.run(ending(store, run_id))
            asked = len(audits.calls())
            print(f"round {rounds}: killed {killed} times, asked git {asked} times, {found[0]}", flush=True)
            # A kill may come between an answer and its record: then that one question is asked again.
            if found != expected or not questions <= asked <= questions + killed:
                print(f"expected {expected} and {questions} questions; run again with --seed {options.seed}")
                return 1
    print(f"{kills} kills in {rounds} runs, every run ended alike")
    return 0


def _live_dangerously(
    audits: Audits, store: Path, run_id: RunId, rng: random.Random, length: float, most: int
) -> int:
    """Drive one audit to its end through random kills; how many there were."""
    kills = 0
    while True:
        known = store.exists() and asyncio.run(head(store, run_id)) > 0
        command = audits.resume(store, run_id) if known else audits.start(store, run_id)
        process = subprocess.Popen(
            command,
            env=audits.environment(),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        limit = rng.uniform(0, length * 1.2) if kills < most else None
        try:
            _, error = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            continue
        if process.returncode:
            sys.stderr.write(error.decode())
            raise SystemExit(1)
        return kills


if __name__ == "__main__":
    sys.exit(main())
