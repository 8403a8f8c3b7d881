"""Invoices are paid once, whatever dies: the payer, the bank, or the line between them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.payouts import KEYED_HOSTS_VARIABLE, app
from perdure import Engine, Failpoints, JsonContext, RunConfig, RunId, RunPhase, StartRun, Stores
from perdure.engine.letters import ResolveLetter
from perdure.sdk import manifest_for
from perdure.sdk.reading import exports_of, list_summaries
from tests.acceptance.payout_processes import ROOT, Interpreters
from tests.acceptance.payouts import (
    APP,
    POINTS,
    Family,
    Life,
    Setting,
    check_doubts,
    check_end,
    check_truth,
    every_kill,
    family_in,
    ledger_at,
)

SEEDS = range(1, 11)
_STINTS_MAX = 100
_NEVER = 10**6


@pytest.mark.parametrize(
    ("setting", "points"),
    [
        (Setting(28, honoured=True, invoices=1, patience_ms=5000), ("commit.before",)),
        (Setting(28, honoured=False, invoices=1, patience_ms=5000), ("transport.after",)),
    ],
)
def test_killed_at_every_durable_write(setting: Setting, points: tuple[str, ...]) -> None:
    """Interpreters, as users start them."""
    total = sum((life for _, life in every_kill(Interpreters(), setting, points)), Life(0, 0, 0))
    assert total.kills >= len(points)
    assert bool(total.resolved) is not setting.honoured


def test_a_person_says_what_happened_and_a_worker_goes_on(tmp_path: Path) -> None:
    """The bank pays one invoice, hangs up when it has paid another, and before it pays the third."""
    setting, processes = Setting(743, honoured=False, patience_ms=5000), Interpreters()
    store = tmp_path / "runs.db"

    def perdure(*words: str) -> Any:
        environment = setting.environment | {"PERDURE_STORE": str(store), "PERDURE_APP": APP}
        done = processes.typed([*words, "--json"], environment)
        assert done.code == 0, done.out + done.error
        return json.loads(done.out)["data"]

    with processes.bank(setting.bank_words) as address:
        given = json.dumps(setting.batch(address))
        perdure("run", "start", "payouts", "--run-id", setting.run_id, "--input", given)
        in_doubt = {setting.invoice_of(each["run_id"]): each for each in perdure("run", "list", "--in-doubt")}
        ledger = ledger_at(address)
        assert sorted(in_doubt) == setting.ids[1:]
        assert [len(ledger.receipts(invoice)) for invoice in setting.ids] == [1, 1, 0]
        for invoice, child in in_doubt.items():
            receipts = ledger.receipts(invoice)
            happened = ["--happened", json.dumps({"json": {"receipt": receipts[0]}})] if receipts else []
            said = ["--effect", child["in_doubt"][0], "--why", "the ledger"]
            perdure("run", "resolve", child["run_id"], *said, *(happened or ["--did-not-happen"]))
        perdure("worker", "--until-idle")
        assert {each["phase"] for each in perdure("run", "list")} == {"Completed"}
        result = perdure("run", "resume", setting.run_id)["result"]
        check_end(result["report"], asyncio.run(_family_at(store)), ledger_at(address), setting)


async def _family_at(store: Path) -> Family:
    async with Stores.sqlite(store) as stores:
        return await family_in(stores)


def test_a_campaign_of_one_seed() -> None:
    """One invoice, either kind of bank, every point, and processes that are killed while they recover."""
    words = ["--example", "payouts", "--seeds", "1", "--seed", "96", "--invoices", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "paid exactly once, twice: 0" in done.stdout


@pytest.mark.parametrize("honoured", [True, False])
async def test_many_seeds(honoured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stints that stop somewhere in one process, against a real bank that dies as it likes."""
    monkeypatch.setenv(KEYED_HOSTS_VARIABLE, Setting(0, honoured).environment[KEYED_HOSTS_VARIABLE])
    with Interpreters().bank(Setting(0, honoured).bank_words) as address:
        for seed in SEEDS:
            with _telling_the_seed(seed):
                await _live_in_process(Setting(seed, honoured), address, random.Random(seed))


@contextlib.contextmanager
def _telling_the_seed(seed: int) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


async def _live_in_process(setting: Setting, address: str, rng: random.Random) -> None:
    """One family: each stint stops one run at a point of chance, or goes on to the end or to doubts."""
    ours, stores, run_id = app(), Stores.in_memory(), setting.run_id
    started = await _start_of(ours, stores, run_id, setting.batch(address))
    try:
        for stint in range(_STINTS_MAX):
            point, hit = rng.choice(POINTS), rng.randrange(1, 20) if rng.random() < 0.7 else _NEVER
            failpoints = Failpoints.parse([f"{point}:{hit}=stop"])
            engine = Engine(ours.resolver, transports=ours.transports, failpoints=failpoints)
            if stint == 0 or not await stores.events.head_seq(run_id):
                result = await engine.start(stores, started)
            else:
                result = await engine.resume(stores, run_id)
            family, ledger = await family_in(stores), ledger_at(address).of(setting.ids)
            check_truth(family, ledger, setting)
            if result.phase is not RunPhase.RUNNING:
                assert result.phase is RunPhase.COMPLETED
                exports = await exports_of(stores, ours.resolver.planner, result)
                check_end(exports["report"], family, ledger, setting)
                return
            in_doubt = await list_summaries(stores, labels={}, limit=100, in_doubt=True)
            if failpoints.hits.get(point, 0) < hit:
                assert not setting.honoured
                check_doubts(in_doubt, str(result.waiting_for))
            known = [each for each in in_doubt if not each.effects_in_doubt[0]["may_be_under_way"]]
            if known and not setting.honoured:
                child = rng.choice(known)
                receipts = ledger.receipts(setting.invoice_of(child.run_id))
                answer = {"json": {"receipt": receipts[0]}} if receipts else None
                word = ResolveLetter(child.in_doubt[0], bool(receipts), answer, "auditor", "the ledger")
                await engine.send(stores, child.run_id, word, f"letter {stint}")
                if rng.random() < 0.5:
                    await engine.resume(stores, child.run_id)
        raise AssertionError(f"the run has not ended after {_STINTS_MAX} stints")
    finally:
        await ours.transports.aclose()
        await stores.close()


async def _start_of(ours: Any, stores: Stores, run_id: RunId, given: Any) -> StartRun:
    found, config = ours.startable("payouts"), RunConfig()
    manifest = manifest_for(found.pipeline_of(), found.input_json(given), config)
    return StartRun(
        manifest,
        await stores.put_manifest(manifest),
        ours.resolver.resolve(manifest),
        config,
        JsonContext({}),
        run_id,
    )
