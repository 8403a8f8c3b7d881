"""Invoices that are paid while payer and bank die: what the tests and the campaign share.

A *life* is one batch, from its start to its end: a *family* of runs, the batch's own and one child for each
invoice. A *stint* is one command that drives it: it ends with the run, with doubts, or with a SIGKILL. The
ledger is looked at after each, and whatever is in doubt is resolved by what it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import tempfile
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from examples.payouts import KEYED_HOSTS_VARIABLE
from perdure import RunId, RunPhase, Stores
from perdure.cli.driving import resume, start
from perdure.cli.telling import resolve
from perdure.engine.history import RunView
from perdure.engine.recovery import read_view
from perdure.sdk.reading import RunSummary, list_summaries
from tests.acceptance.payout_processes import Command, Done, Processes

APP = "examples.payouts:app"
IN_DOUBT = "effect_in_doubt "
POINTS = ("commit.before", "transport.before", "transport.after")
_STINTS_MAX = 100
_NEVER = 10**6
_LEDGER_TRIES_MAX = 10_000
T = TypeVar("T")
Family = dict[RunId, RunView]
"""Every run of a life, by id."""


class Setting(NamedTuple):
    """What one life is about: the bank's seed, whether it honours keys, and how much there is to pay.

    The payer waits ``patience_ms`` for an answer; one that is late takes up to one and a half as long.
    Lives of several numbers may share a bank, and have the same troubles with it.
    """

    seed: int
    honoured: bool
    invoices: int = 3
    patience_ms: int = 100
    number: int = 0

    @property
    def run_id(self) -> RunId:
        """The run."""
        return RunId(f"00000000-0000-0000-0000-{self.number:012x}")

    @property
    def ids(self) -> list[str]:
        """The invoices."""
        return [f"{self.number}/{self.seed}-{invoice}" for invoice in range(self.invoices)]

    def child_of(self, invoice: str) -> RunId:
        """The run that pays an invoice."""
        return self.run_id.child(f"child:payouts.main.pay_each|invoice {invoice}")

    def invoice_of(self, child: RunId) -> str:
        """The invoice that a run pays."""
        (invoice,) = [each for each in self.ids if self.child_of(each) == child]
        return invoice

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
    """SIGKILL at the ``hit``-th passing of ``point`` in a life's ``stint``-th stint, from 0 on."""

    stint: int
    point: str
    hit: int

    def __str__(self) -> str:
        return f"stint {self.stint} killed at {self.point}:{self.hit}"


class Life(NamedTuple):
    """What became of a life, and how often each point was passed in each stint of one without a kill."""

    stints: int
    kills: int
    resolved: int
    passed: tuple[Mapping[str, int], ...] = ()

    def __add__(self, other: object) -> Life:
        assert isinstance(other, Life)
        return Life(self.stints + other.stints, self.kills + other.kills, self.resolved + other.resolved)


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


async def family_in(stores: Stores) -> Family:
    """The runs of a store that holds one life."""
    return {run_id: await read_view(stores, run_id) for run_id in await stores.events.list_runs()}


def check_truth(family: Family, ledger: Ledger, setting: Setting) -> None:
    """Nothing was paid twice, histories say of each payment what the bank says, and children are linked."""
    check_links(family, setting)
    for invoice in setting.ids:
        child, receipts = family.get(setting.child_of(invoice)), ledger.receipts(invoice)
        effects = [] if child is None else [*child.effects.values()]
        assert len(effects) <= 1, f"{invoice} is paid by several effects"
        effect = effects[0] if effects else None
        said = None if effect is None else effect.outcome
        asked, intents = ledger.asked.get(invoice, 0), 0 if effect is None else effect.intents
        assert len(receipts) <= 1, f"{invoice} was paid {len(receipts)} times"
        assert effect is not None or not asked, f"{invoice} was asked for, unannounced"
        # Each intent stands for one request, where asking twice may be paying twice.
        assert setting.honoured or asked <= intents, f"{invoice}: {asked} requests, {intents} intents"
        assert said != "applied" or receipts, f"{invoice} was not paid, and the history says that it was"
        assert said != "not_applied" or not receipts, f"{invoice} was paid, and the history says: not applied"


def check_links(family: Family, setting: Setting) -> None:
    """The parent knows each child, each child its parent, and there is nobody else."""
    parent = family.get(setting.run_id)
    linked = set() if parent is None else set(parent.children)
    children = {run_id: view for run_id, view in family.items() if run_id != setting.run_id}
    assert children.keys() == linked, f"children are {sorted(children)}, linked are {sorted(linked)}"
    assert linked <= set(map(setting.child_of, setting.ids)), "a child is no invoice's"
    for run_id, view in children.items():
        link = None if view.started is None else view.started.parent
        assert link is not None, f"child {run_id} knows no parent"
        assert link.run_id == setting.run_id, f"child {run_id} has another parent"


def check_end(result: Mapping[str, Any], family: Family, ledger: Ledger, setting: Setting) -> None:
    """Every invoice was paid once, the report is that of the bank, and all of the family has ended."""
    paid = {each["invoice"]: each["receipt"] for each in ledger.payments}
    assert sorted(paid) == sorted(setting.ids)
    assert len(ledger.payments) == len(paid)
    assert {each["invoice"]: each["receipt"] for each in result["payments"]} == paid
    assert result["cents"] == sum(map(cents_of, setting.ids))
    assert len(family) == 1 + len(setting.ids)
    for run_id, view in family.items():
        assert view.phase is RunPhase.COMPLETED, f"run {run_id} is {view.phase.value}"
        assert not view.open_attempts, f"run {run_id} has ended with an open attempt"
    assert all(child.has_ended for child in family[setting.run_id].children.values())


def check_doubts(in_doubt: Collection[RunSummary], waiting_for: str) -> None:
    """The batch waits for the children that are in doubt, each of which can be told of its one effect."""
    assert {f"child {each.run_id}" for each in in_doubt} == set(waiting_for.split(", ")) != {""}
    for each in in_doubt:
        (effect,) = each.effects_in_doubt
        assert each.waiting_for == f"{IN_DOUBT}{effect['key']}"
        assert not effect["may_be_under_way"]


def live(processes: Processes, setting: Setting, address: str, kill: Kill | None, rng: random.Random) -> Life:
    """Live one life with the bank at ``address``; ``AssertionError`` where something is not as it should be.

    Half of the stints that follow a kill are killed too, somewhere.
    """
    with tempfile.TemporaryDirectory(prefix="payouts-") as folder:
        payer = _Payer(processes, setting, address, Path(folder) / "runs.db")
        kills = resolved = 0
        family, passed = Family(), list[Mapping[str, int]]()
        for stint in range(_STINTS_MAX):
            struck = kill if kill is not None and kill.stint == stint else None
            if kills == 1 and rng.random() < 0.5:
                struck = Kill(stint, rng.choice(POINTS), rng.randrange(1, 20))
            done = payer.drive(struck, is_begun=bool(family))
            ledger, family = ledger_at(address).of(setting.ids), payer.family()
            check_truth(family, ledger, setting)
            if done.code == -signal.SIGKILL:
                kills += 1
                continue
            assert done.code == 0, done.out + done.error
            told = json.loads(done.out)["data"]
            passed.append(told["failpoints_passed"])
            if told["phase"] == "Completed":
                check_end(told["result"]["report"], family, ledger, setting)
                return Life(stint + 1, kills, resolved, () if kills else tuple(passed))
            assert not setting.honoured, "nobody has to be asked where keys are honoured"
            in_doubt = payer.in_doubt()
            check_doubts(in_doubt, told["waiting_for"])
            for each in in_doubt:
                payer.resolve(each, ledger)
            resolved += len(in_doubt)
    raise AssertionError(f"the run has not ended after {_STINTS_MAX} stints")


class _Payer:
    """One family, as commands drive it."""

    def __init__(self, processes: Processes, setting: Setting, address: str, store: Path) -> None:
        self._processes = processes
        self._setting = setting
        self._address = address
        self._store = store

    def family(self) -> Family:
        """The histories of all runs; none if the batch was never begun."""
        return self._look(family_in) if self._store.exists() else {}

    def in_doubt(self) -> list[RunSummary]:
        """What `run list --in-doubt` shows."""
        return self._look(lambda stores: list_summaries(stores, labels={}, limit=100, in_doubt=True))

    def drive(self, kill: Kill | None, *, is_begun: bool) -> Done:
        """Start the run, or resume it."""
        run_id, kill = self._setting.run_id, kill or Kill(0, POINTS[0], _NEVER)
        options: dict[str, Any] = {"failpoint": (f"{kill.point}:{kill.hit}=kill",)}
        if is_begun:
            return self._perdure(Command(resume, (run_id,), options, self._store, APP))
        options |= {"run_id": run_id, "input": json.dumps(self._setting.batch(self._address))}
        return self._perdure(Command(start, ("payouts",), options, self._store, APP))

    def resolve(self, child: RunSummary, ledger: Ledger) -> None:
        """Say what became of a child's effect, as the ledger has it."""
        receipts = ledger.receipts(self._setting.invoice_of(child.run_id))
        options: dict[str, Any] = {"effect": child.in_doubt[0], "by": "auditor", "why": "the ledger"}
        if receipts:
            options["happened"] = json.dumps({"json": {"receipt": receipts[0]}})
        else:
            options["did_not_happen"] = True
        done = self._perdure(Command(resolve, (child.run_id,), options, self._store))
        assert done.code == 0, done.out + done.error

    def _look(self, read: Callable[[Stores], Coroutine[Any, Any, T]]) -> T:
        async def look() -> T:
            async with Stores.sqlite(self._store) as stores:
                return await read(stores)

        return asyncio.run(look())

    def _perdure(self, command: Command) -> Done:
        return self._processes.perdure(command, self._setting.environment)


def every_kill(
    processes: Processes, setting: Setting, points: tuple[str, ...] = POINTS
) -> Iterator[tuple[Kill | None, Life]]:
    """A calm life, then one for every passing of each point in each stint of it, killed there."""
    rng = random.Random(setting.seed)
    numbers = count()
    with processes.bank(setting.bank_words) as address:

        def one(kill: Kill | None) -> Life:
            try:
                return live(processes, setting._replace(number=next(numbers)), address, kill, rng)
            except AssertionError as error:
                raise AssertionError(f"{setting}, {kill}: {error}") from error

        calm = one(None)
        yield None, calm
        for stint, passed in enumerate(calm.passed):
            for point in points:
                for hit in range(1, passed.get(point, 0) + 1):
                    kill = Kill(stint, point, hit)
                    yield kill, one(kill)
