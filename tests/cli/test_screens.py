"""Every command's screens, at 80 and 200 columns, as they were looked at and found good.

``PERDURE_UPDATE_SCREENS=1`` writes those that changed anew, to be looked at.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from cyclopts import App as CommandApp

from perdure.cli import main
from perdure.cli.commands import cli
from perdure.cli.common import APP_VARIABLE, STORE_VARIABLE
from tests.cli.orders import CROWD, PARENT, SAFFRON, fill_with_family
from tests.cli.shop import (
    COMPLETED,
    DETACHED,
    DOUBTFUL,
    FAILED,
    IN_DOUBT,
    PAUSED,
    SLEEPING,
    WAITING,
    fill,
    fill_with_one_due,
)
from tests.cli.timetable import SCHEDULED, fill_with_schedules

COLUMNS = (80, 200)
SCREENS = Path(__file__).parent / "screens"
UPDATE = "PERDURE_UPDATE_SCREENS"
ORDER = '{"item": "tea", "count": 3}'
HERE = "tests.cli.shop"
FAMILY = ("--store", "family.db")
TIMETABLE = ("--store", "timetable.db")
FAMILY_APP = (*FAMILY, "--app", "tests.cli.orders:app")

COMMANDS = (
    "run start",
    "run resume",
    "run fork",
    "run status",
    "run list",
    "run events",
    "run context",
    "run facts",
    "run replay",
    "run watch",
    "run tree",
    "run signal",
    "run cancel",
    "run terminate",
    "run pause",
    "run unpause",
    "run resolve",
    "run delete",
    "schedule create",
    "schedule list",
    "schedule show",
    "schedule pause",
    "schedule resume",
    "schedule trigger",
    "schedule backfill",
    "schedule delete",
    "op list",
    "op show",
    "op check",
    "store init",
    "store migrate",
    "store info",
    "store prune",
    "artifact get",
    "worker",
    "demo",
    "--install-completion",
)
GROUPS = ("", "run", "schedule", "op", "store", "artifact")

CASES: dict[str, list[str]] = {
    **{f"help {command}".strip(): [*command.split(), "--help"] for command in GROUPS + COMMANDS},
    "run start": ["run", "start", "checkout", "--key", "k", "--label", "customer=7", "--input", ORDER],
    "run start json": ["run", "start", "checkout", "--key", "k", "--input", ORDER, "--json"],
    "run start detached": ["run", "start", "checkout", "--key", "k", "--input", ORDER, "--detach"],
    "run start failing": ["run", "start", "refund", "--key", "k", "--input", ORDER, "--max-attempts", "1"],
    "run start wrong input": ["run", "start", "checkout", "--input", '{"item": 7, "count": "x"}'],
    "run start unknown": ["run", "start", "chekout"],
    "run resume": ["run", "resume", DETACHED[:8]],
    "run resume ended": ["run", "resume", COMPLETED],
    "run fork": [
        *("run", "fork", COMPLETED, "--at", "receipt", "--set", "price=5", "--key", "k"),
        *("--by", "ann", "--why", "the price was wrong"),
    ],
    "run fork json": ["run", "fork", COMPLETED, "--at", "receipt", "--key", "k", "--by", "ann", "--json"],
    "run fork unreached": ["run", "fork", COMPLETED, "--at", "nowhere"],
    "run fork no version": ["run", "fork", COMPLETED, "--at", "receipt", "--op-version", "9"],
    "run fork no such key": ["run", "fork", COMPLETED, "--at", "receipt", "--set", "prize=5"],
    "run fork no value": ["run", "fork", COMPLETED, "--at", "receipt", "--set", "price"],
    "run status": ["run", "status", COMPLETED],
    "run status failed": ["run", "status", FAILED],
    "run status unfinished": ["run", "status", DETACHED],
    "run status unknown": ["run", "status", "00000000-0000-0000-0000-000000000000"],
    "run list": ["run", "list"],
    "run list labelled": ["run", "list", "--label", "customer=7", "--json"],
    "run list blocked": ["run", "list", "--blocked-by-version", "--app", "tests.cli.orders:app"],
    "run list blocked json": [
        *("run", "list", "--blocked-by-version", "--limit", "1", "--json", "--app", "tests.cli.orders:app"),
    ],
    "run list not blocked": ["run", "list", "--blocked-by-version"],
    "run list none": ["run", "list", "--phase", "cancelled"],
    "run events": ["run", "events", COMPLETED],
    "run events failed": ["run", "events", FAILED, "--from", "3"],
    "run context": ["run", "context", COMPLETED],
    "run context at": ["run", "context", COMPLETED, "--at", "price", "--key", "checkout.main.price"],
    "run context nowhere": ["run", "context", FAILED, "--at", "payment"],
    "run facts": ["run", "facts", COMPLETED],
    "run facts one": ["run", "facts", COMPLETED, "--key", "price"],
    "run facts unknown": ["run", "facts", COMPLETED, "--key", "prise"],
    "run replay": ["run", "replay", COMPLETED],
    "run replay changed": ["run", "replay", COMPLETED, "--app", f"{HERE}:changed"],
    "run watch": ["run", "watch", COMPLETED],
    "run tree": ["run", "tree", PARENT, *FAMILY],
    "run tree of a child": ["run", "tree", SAFFRON, *FAMILY],
    "run tree crowded": ["run", "tree", CROWD, *FAMILY],
    "run tree alone": ["run", "tree", COMPLETED, "--follow"],
    "run tree json": ["run", "tree", PARENT, "--json", *FAMILY],
    "run tree unknown": ["run", "tree", "ffffffff", *FAMILY],
    "run status parent": ["run", "status", PARENT, *FAMILY],
    "run status child": ["run", "status", SAFFRON, *FAMILY],
    "run list roots": ["run", "list", "--roots", *FAMILY],
    "run resume waiting for a child": ["run", "resume", PARENT, *FAMILY_APP],
    "run cancel parent": ["run", "cancel", PARENT, "--why", "ordered twice", "--by", "ann", *FAMILY_APP],
    "run pause parent": ["run", "pause", PARENT, "--why", "the shop is closed", "--by", "ann", *FAMILY],
    "run start parked": ["run", "start", "purchase", "--key", "k", "--input", ORDER],
    "run start parked json": ["run", "start", "purchase", "--key", "k", "--input", ORDER, "--json"],
    "run start asleep": ["run", "start", "harvest", "--key", "k", "--input", ORDER],
    "run resume waiting": ["run", "resume", WAITING],
    "run resume in doubt": ["run", "resume", IN_DOUBT],
    "run resume paused": ["run", "resume", PAUSED],
    "run status waiting": ["run", "status", WAITING],
    "run status asleep": ["run", "status", SLEEPING],
    "run status paused": ["run", "status", PAUSED],
    "run status in doubt": ["run", "status", IN_DOUBT],
    "run status in doubt json": ["run", "status", IN_DOUBT, "--json"],
    "run list running": ["run", "list", "--phase", "running"],
    "run list in doubt": ["run", "list", "--in-doubt"],
    "run events waiting": ["run", "events", WAITING],
    "run events in doubt": ["run", "events", IN_DOUBT],
    "run signal": ["run", "signal", WAITING, "approval", '{"granted": true}', "--by", "ann"],
    "run signal json": ["run", "signal", WAITING, "approval", "true", "--by", "ann", "--json"],
    "run signal unknown": ["run", "signal", "00000000-0000-0000-0000-000000000000", "approval"],
    "run signal ended": ["run", "signal", COMPLETED, "approval", "true", "--by", "ann"],
    "run signal secret": [
        "run",
        "signal",
        WAITING,
        "login",
        '{"password": "hunter22hunter22"}',
        "--by",
        "ann",
    ],
    "run signal float": ["run", "signal", WAITING, "approval", '{"share": 0.5}', "--by", "ann"],
    "run signal no json": ["run", "signal", WAITING, "approval", "yes", "--by", "ann"],
    "run signal no name": ["run", "signal", WAITING, "", "true", "--by", "ann"],
    "run cancel": ["run", "cancel", IN_DOUBT, "--why", "ordered twice", "--by", "ann"],
    "run cancel cleaning up": ["run", "cancel", WAITING, "--why", "ordered twice", "--by", "ann"],
    "run cancel ended": ["run", "cancel", COMPLETED, "--why", "ordered twice", "--by", "ann"],
    "run cancel unexplained": ["run", "cancel", WAITING],
    "run terminate": ["run", "terminate", WAITING, "--why", "its cleaning up hangs", "--by", "ann"],
    "run pause": ["run", "pause", WAITING, "--why", "the buyer is away", "--by", "ann"],
    "run unpause": ["run", "unpause", PAUSED, "--by", "ann"],
    "run resolve": [
        *("run", "resolve", IN_DOUBT, "--effect", DOUBTFUL, "--happened", '{"receipt": 7}'),
        *("--by", "ann", "--why", "it is on the statement"),
    ],
    "run resolve not happened": [
        *("run", "resolve", IN_DOUBT, "--effect", DOUBTFUL, "--did-not-happen"),
        *("--by", "ann", "--why", "it is not on the statement"),
    ],
    "run resolve not in doubt": [
        *("run", "resolve", IN_DOUBT, "--effect", "another", "--did-not-happen", "--by", "ann", "--why", "?"),
    ],
    "run resolve undecided": ["run", "resolve", IN_DOUBT, "--effect", DOUBTFUL, "--by", "ann", "--why", "?"],
    "run resolve both": [
        *("run", "resolve", IN_DOUBT, "--effect", DOUBTFUL, "--happened", "7", "--did-not-happen"),
        *("--by", "ann", "--why", "?"),
    ],
    "run delete": ["run", "delete", COMPLETED, FAILED],
    "run delete json": ["run", "delete", COMPLETED, "--json"],
    "run delete unfinished": ["run", "delete", COMPLETED, WAITING],
    "run delete parent": ["run", "delete", CROWD, *FAMILY],
    "run delete child": ["run", "delete", PARENT.child("child:order.main.items|tea"), *FAMILY],
    "run list scheduled": ["run", "list", *TIMETABLE],
    "run status scheduled": ["run", "status", SCHEDULED, *TIMETABLE],
    "schedule create": [
        *("schedule", "create", "monthly", "checkout", "--cron", "0 9 L * *", "--zone", "Europe/Berlin"),
        *("--starts", "2100-01-01", "--overlap", "queue", "--input", ORDER, *TIMETABLE),
    ],
    "schedule create json": [
        *(
            "schedule",
            "create",
            "often",
            "checkout",
            "--every",
            "1h30m",
            "--jitter",
            "45s",
            "--catchup",
            "2d",
        ),
        *("--starts", "2100-01-01T00:00+01:00", "--ends", "2101-01-01", "--anchor", "2100-01-01T00:10"),
        *("--max-runs", "9", "--label", "customer=7", "--input", ORDER, "--json", *TIMETABLE),
    ],
    "schedule create again": [
        *("schedule", "create", "nightly", "checkout", "--every", "1h", "--input", ORDER, *TIMETABLE),
    ],
    "schedule create never": [
        *("schedule", "create", "leap", "checkout", "--cron", "0 9 30 FEB *", "--input", ORDER),
    ],
    "schedule create wrong cron": [
        *("schedule", "create", "leap", "checkout", "--cron", "0 25 * * *", "--input", ORDER),
    ],
    "schedule create wrong zone": [
        *("schedule", "create", "leap", "checkout", "--every", "1h", "--zone", "Europe/Berln"),
    ],
    "schedule create wrong input": [
        "schedule",
        "create",
        "leap",
        "checkout",
        "--every",
        "1h",
        "--input",
        "7",
    ],
    "schedule create wrong time": ["schedule", "create", "leap", "checkout", "--every", "90"],
    "schedule create wrong moment": [
        *("schedule", "create", "leap", "checkout", "--every", "1h", "--starts", "soon"),
    ],
    "schedule list": ["schedule", "list", *TIMETABLE],
    "schedule list json": ["schedule", "list", "--json", *TIMETABLE],
    "schedule list none": ["schedule", "list"],
    "schedule show": ["schedule", "show", "nightly", *TIMETABLE],
    "schedule show json": ["schedule", "show", "nightly", "--json", *TIMETABLE],
    "schedule show paused": ["schedule", "show", "weekly", *TIMETABLE],
    "schedule show waiting": ["schedule", "show", "hourly", *TIMETABLE],
    "schedule show new": ["schedule", "show", "unborn", *TIMETABLE],
    "schedule show unknown": ["schedule", "show", "daily", *TIMETABLE],
    "schedule pause": ["schedule", "pause", "nightly", "--why", "enough", "--by", "ann", *TIMETABLE],
    "schedule pause unexplained": ["schedule", "pause", "nightly", *TIMETABLE],
    "schedule resume": ["schedule", "resume", "weekly", *TIMETABLE],
    "schedule trigger": ["schedule", "trigger", "nightly", *TIMETABLE],
    "schedule trigger json": ["schedule", "trigger", "nightly", "--json", *TIMETABLE],
    "schedule backfill": [
        *("schedule", "backfill", "nightly", "--from", "2025-12-01", "--until", "2025-12-05", *TIMETABLE),
    ],
    "schedule backfill future": [
        *("schedule", "backfill", "nightly", "--from", "2099-12-01", "--until", "2099-12-05", *TIMETABLE),
    ],
    "schedule backfill json": ["schedule", "backfill", "weekly", "--from", "nevermore", "--json", *TIMETABLE],
    "schedule delete": ["schedule", "delete", "nightly", *TIMETABLE],
    "schedule delete json": ["schedule", "delete", "nightly", "--json", *TIMETABLE],
    "op list": ["op", "list"],
    "op show": ["op", "show", "checkout"],
    "op show pipeline": ["op", "show", "delivery"],
    "op show svg": ["op", "show", "delivery", "--svg", "delivery.svg"],
    "op check": ["op", "check"],
    "op check mistaken": ["op", "check", "--app", f"{HERE}:mistaken"],
    "op check mistaken json": ["op", "check", "wrong", "--app", f"{HERE}:mistaken", "--json"],
    "store init": ["store", "init", "--store", "new.db"],
    "store migrate": ["store", "migrate"],
    "store info": ["store", "info"],
    "store info missing": ["store", "info", "--store", "missing.db"],
    "store prune": ["store", "prune"],
    "store prune some": ["store", "prune", "--status", "completed", "--keep-last", "0", "--older-than", "0s"],
    "store prune json": ["store", "prune", "--keep-last", "1", "--json"],
    "store prune apply": ["store", "prune", "--keep-last", "0", "--apply", "--compact"],
    "store prune compact": ["store", "prune", "--compact"],
    "store prune young": ["store", "prune", "--older-than", "a week"],
    "artifact get": ["artifact", "get", hashlib.sha256(b"{}").hexdigest(), "--json"],
    "artifact get missing": ["artifact", "get", "0" * 64],
    "worker": ["worker", "--until-idle"],
    "worker retention": ["worker", "--until-idle", "--retention", "1w"],
    "worker waiting": ["worker", "--until-idle", "--store", "due.db"],
    "demo": ["demo"],
    "install-completion": ["--install-completion", "--shell", "bash", "--output", "completion.bash"],
    "unknown command": ["run", "strat"],
    "app missing": ["op", "list", "--app", "tests.cli.nowhere:app"],
}

NOON_SECONDS = 1_795_176_000.0
"""2026-11-20 12:00 UTC; what is looked at was written on the first of January."""
_CHANGING = (
    (r"\b\d+(\.\d+)? m?s\b", "N ms"),  # how long something took
    (r"\b\d+ d \d+ h\b", "N d"),
    (r"\d+\.\d [kM]B\b", "N kB"),
    (r'"created_millis": \d+', '"created_millis": N'),
)
_TRIGGERED = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


def commands(app: CommandApp, before: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command below ``app``, as it is typed; help and versions are no commands."""
    for name in app:
        if name in (*app.help_flags, *app.version_flags):
            continue
        words = (*before, name)
        if app[name].default_command is None:
            yield from commands(app[name], words)
        else:
            yield " ".join(words)


def test_every_command_has_its_screens() -> None:
    """One of its help, and one at least of what it does."""
    assert sorted(commands(cli)) == sorted(COMMANDS)
    shown = [" ".join(words) for words in CASES.values()]
    for command in COMMANDS:
        assert f"{command} --help" in shown
        assert [each for each in shown if f"{each} ".startswith(f"{command} ") and "--help" not in each]


def test_no_screen_is_left_of_a_case_that_went() -> None:
    """Each file is compared with what a command shows today."""
    compared = {f"{name.replace(' ', '-')}.{columns}.txt" for name in CASES for columns in COLUMNS}
    assert {path.name for path in SCREENS.iterdir()} <= compared


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with runs."""
    path = tmp_path_factory.mktemp("filled") / "runs.db"
    asyncio.run(fill(str(path)))
    asyncio.run(fill_with_one_due(str(path.with_name("due.db"))))
    asyncio.run(fill_with_family(str(path.with_name("family.db"))))
    asyncio.run(fill_with_schedules(str(path.with_name("timetable.db"))))
    return path


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("name", CASES)
def test_a_screen(
    name: str,
    columns: int,
    filled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It is as it was, has no colours in a pipe, and no line of a table is wider than the terminal."""
    for name_of_store in ("runs.db", "due.db", "family.db", "timetable.db"):
        shutil.copy(filled.with_name(name_of_store), tmp_path)
    root = str(Path(__file__).parents[2])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv(STORE_VARIABLE, "runs.db")
    monkeypatch.setenv(APP_VARIABLE, f"{HERE}:app")
    # How wide an age is depends on the hour of the day.
    monkeypatch.setattr("perdure.cli.family.time", SimpleNamespace(time=lambda: NOON_SECONDS))
    code = main(CASES[name])
    out, error = capfd.readouterr()  # of the processes that a command starts, too
    screen = f"$ perdure {' '.join(CASES[name])}\n{out}{error}[exit code {code}]\n"
    for drawn in tmp_path.glob("*.svg"):
        screen += f"$ cat {drawn.name}\n{drawn.read_text()}"
    screen = screen.replace(str(tmp_path), "FOLDER").replace(root, "ROOT")
    screen = "".join(f"{line.rstrip()}\n" for line in screen.splitlines())
    for pattern, replacement in _CHANGING:
        screen = re.sub(pattern, replacement, screen)
    if name.startswith("schedule trigger"):
        screen = _TRIGGERED.sub("RUN", screen)  # its id follows from the moment
    assert "\x1b" not in screen
    assert "Traceback" not in screen
    assert not [line for line in screen.splitlines() if set("│╭─") & set(line) and len(line) > columns]
    path = SCREENS / f"{name.replace(' ', '-')}.{columns}.txt"
    if os.environ.get(UPDATE):
        path.parent.mkdir(exist_ok=True)
        path.write_text(screen)
    assert screen == path.read_text()
