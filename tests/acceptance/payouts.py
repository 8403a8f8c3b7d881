"""Invoices that are paid while payer and bank die: what the tests and the campaign share.

A *life* is one batch, from its first process to its end: processes are killed, the ledger is looked at
after each, and whatever is in doubt is resolved by what the ledger says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import tempfile
from collections.abc import Collection, Iterator, Mapping
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from examples.payouts import KEYED_HOSTS_VARIABLE
from perdure import RunId, Stores
from perdure.engine.history import RunView
from perdure.engine.recovery import read_view
from tests.acceptance.payout_processes import APP, Done, Processes

RUN = RunId("00000000-0000-0000-0000-0000000000dd")
POINTS = ("commit.before", "transport.before", "transport.after")
IN_DOUBT = "effect_in_doubt "
_PROCESSES_MAX = 100
_LEDGER_TRIES_MAX = 10_000


class Setting(NamedTuple):
    """What one life is about: the bank's seed, whether it honours keys, and how much there is to pay.

    The payer waits ``patience_ms`` for an answer; one that is late takes up to one and a half as long.
    """

    seed: int
    honoured: bool
    invoices: int = 3
    patience_ms: int = 200

    @property
    def ids(self) -> list[str]:
        """The invoices."""
        return [f"{self.seed}-{number}" for number in range(self.invoices)]

    @property
    def bank_words(self) -> list[str]:
        """How the bank is started."""
        keys = "honoured" if self.honoured else "ignored"
        return ["--seed", str(self.seed), "--keys", keys, "--late-ms", str(self.patience_ms * 3 // 2)]

    @property
    def environment(self) -> dict[str, str]:
        """What the payer is told of the bank."""
        return {KEYED_HOSTS_VARIABLE: "127.0.0.1" if self.honoured else ""}

    def batch(self, address: str) -> dict[str, Any]:
        """The operation's input."""
        invoices = [{"id": name, "cents": cents_of(name)} for name in self.ids]
        return {"bank": address, "invoices": invoices, "timeout_ms": self.patience_ms}


class Kill(NamedTuple):
    """SIGKILL at the ``hit``-th passing of ``point`` in a life's ``process``-th process, from 0 on."""

    process: int
    point: str
    hit: int

    def __str__(self) -> str:
        return f"process {self.process} killed at {self.point}:{self.hit}"


class Life(NamedTuple):
    """What became of a life."""

    processes: int
    kills: int
    resolved: int

    def __add__(self, other: object) -> Life:
        assert isinstance(other, Life)
        return Life(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Ledger(NamedTuple):
    """The bank's word on what happened; nothing is under way while it is given."""

    payments: list[dict[str, Any]]
    asked: Mapping[str, int]

    def of(self, invoices: Collection[str]) -> Ledger:
        """What concerns these invoices."""
        return Ledger([each for each in self.payments if each["invoice"] in invoices], self.asked)

    def receipts(self, invoice: str) -> list[int]:
        """Every payment of an invoice."""
        return [each["receipt"] for each in self.payments if each["invoice"] == invoice]


def ledger_at(address: str) -> Ledger:
    """The ledger of the bank at ``address``. It may be dead just now: then it is asked again."""
    for _ in range(_LEDGER_TRIES_MAX):
        connection = HTTPConnection(address.removeprefix("http://"), timeout=10)
        with contextlib.closing(connection), contextlib.suppress(OSError, HTTPException):
            connection.request("GET", "/payments")
            told = json.load(connection.getresponse())
            return Ledger(told["payments"], told["asked"])
    raise AssertionError("the bank has gone for good")


def cents_of(invoice: str) -> int:
    """What is owed by an invoice."""
    return 100 + sum(invoice.encode())


def check_truth(view: RunView | None, ledger: Ledger, setting: Setting) -> None:
    """Nothing was paid twice, and what the history says of each payment is what the bank says."""
    effects = {} if view is None else {effect.fact_key: effect for effect in view.effects.values()}
    for invoice in setting.ids:
        receipts = ledger.receipts(invoice)
        effect = effects.get(f"payment:{invoice}")  # type: ignore[call-overload]  # a key is a string too
        said = None if effect is None else effect.outcome
        asked, intents = ledger.asked.get(invoice, 0), 0 if effect is None else effect.intents
        assert len(receipts) <= 1, f"{invoice} was paid {len(receipts)} times"
        assert effect is not None or not asked, f"{invoice} was asked for, unannounced"
        # Each intent stands for one request, where asking twice may be paying twice.
        assert setting.honoured or asked <= intents, f"{invoice}: {asked} requests, {intents} intents"
        assert said != "applied" or receipts, f"{invoice} was not paid, and the history says that it was"
        assert said != "not_applied" or not receipts, f"{invoice} was paid, and the history says: not applied"


def check_end(result: Mapping[str, Any], ledger: Ledger, setting: Setting) -> None:
    """Every invoice was paid once, and the report is that of the bank."""
    paid = {each["invoice"]: each["receipt"] for each in ledger.payments}
    assert sorted(paid) == sorted(setting.ids)
    assert len(ledger.payments) == len(paid)
    assert {each["invoice"]: each["receipt"] for each in result["payments"]} == paid
    assert result["cents"] == sum(map(cents_of, setting.ids))


def live(processes: Processes, setting: Setting, kill: Kill | None, rng: random.Random) -> Life:
    """Live one life; ``AssertionError`` where something is not as it should be.

    Half of the processes that follow a kill are killed too, somewhere.
    """
    with (
        tempfile.TemporaryDirectory(prefix="payouts-") as folder,
        processes.bank(setting.bank_words) as address,
    ):
        payer = _Payer(processes, setting, address, Path(folder) / "runs.db")
        kills = resolved = 0
        view = None
        for process in range(_PROCESSES_MAX):
            struck = kill if kill is not None and kill.process == process else None
            if kills == 1 and rng.random() < 0.5:
                struck = Kill(process, rng.choice(POINTS), rng.randrange(1, 12))
            done = payer.drive(struck, is_begun=view is not None)
            ledger, view = ledger_at(address), payer.view()
            check_truth(view, ledger, setting)
            if done.code == -signal.SIGKILL:
                kills += 1
                continue
            assert done.code == 0, done.out + done.error
            told = json.loads(done.out)["data"]
            if told["phase"] == "Completed":
                check_end(told["result"]["report"], ledger, setting)
                return Life(process + 1, kills, resolved)
            assert not setting.honoured, "nobody has to be asked where keys are honoured"
            assert view is not None
            assert told["waiting_for"].startswith(IN_DOUBT)
            assert [effect.key for effect in view.in_doubt] == [told["waiting_for"].removeprefix(IN_DOUBT)]
            payer.resolve(str(view.in_doubt[0].fact_key), view.in_doubt[0].key, ledger)
            resolved += 1
    raise AssertionError(f"the run has not ended after {_PROCESSES_MAX} processes")


class _Payer:
    """One run, as its commands drive it."""

    def __init__(self, processes: Processes, setting: Setting, address: str, store: Path) -> None:
        self._processes = processes
        self._setting = setting
        self._address = address
        self._store = store

    def view(self) -> RunView | None:
        """The run's history; None if it was never begun."""

        async def read() -> RunView | None:
            async with Stores.sqlite(self._store) as stores:
                return await read_view(stores, RUN) if await stores.events.head_seq(RUN) else None

        return asyncio.run(read()) if self._store.exists() else None

    def drive(self, kill: Kill | None, *, is_begun: bool) -> Done:
        """Start the run, or resume it."""
        if not is_begun:
            given = json.dumps(self._setting.batch(self._address))
            words = ["run", "start", "payouts", "--run-id", RUN, "--input", given]
        else:
            words = ["run", "resume", RUN]
        if kill is not None:
            words += ["--failpoint", f"{kill.point}:{kill.hit}=kill"]
        return self._perdure(*words, "--app", APP)

    def resolve(self, fact_key: str, effect_key: str, ledger: Ledger) -> None:
        """Say what became of an effect, as the ledger has it."""
        receipts = ledger.receipts(fact_key.removeprefix("payment:"))
        answer = json.dumps({"json": {"receipt": receipts[0]}} if receipts else None)
        what = ["--happened", answer] if receipts else ["--did-not-happen"]
        words = [
            "run",
            "resolve",
            RUN,
            "--effect",
            effect_key,
            *what,
            "--by",
            "auditor",
            "--why",
            "the ledger",
        ]
        done = self._perdure(*words)
        assert done.code == 0, done.out + done.error

    def _perdure(self, *words: str) -> Done:
        return self._processes.perdure(
            [*words, "--store", str(self._store), "--json"], self._setting.environment
        )


def every_kill(
    processes: Processes, setting: Setting, points: tuple[str, ...] = POINTS
) -> Iterator[tuple[Kill | None, Life]]:
    """A calm life, then one for every passing of each point in each process of it, killed there."""
    rng = random.Random(setting.seed)

    def one(kill: Kill | None) -> Life:
        try:
            return live(processes, setting, kill, rng)
        except AssertionError as error:
            raise AssertionError(f"{setting}, {kill}: {error}") from error

    calm = one(None)
    yield None, calm
    for process in range(calm.processes):
        for point in points:
            for hit in count(1):
                kill = Kill(process, point, hit)
                life = one(kill)
                yield kill, life
                if not life.kills:
                    break
