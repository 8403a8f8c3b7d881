"""What the commands share: options, stores, apps, and how arguments become values."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from json import JSONDecodeError
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from cyclopts import Parameter, Token

from perdure.cli.output import UNITS, UsageError
from perdure.engine.starting import run_id_of
from perdure.errors import Json
from perdure.failpoints import Failpoints
from perdure.ids import RunId
from perdure.sdk import App, load_app
from perdure.sdk.app import Definition
from perdure.stores.bundle import Stores
from perdure.stores.locations import file_of

STORE_VARIABLE = "PERDURE_STORE"
APP_VARIABLE = "PERDURE_APP"
SHOWN_ID_CHARACTERS = 13
"""How much of a run's id a table shows: enough to name the run with."""

_UNITS = UNITS | {"w": 7 * UNITS["d"]}

T = TypeVar("T")


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every command takes."""

    store: Annotated[str | None, Parameter(env_var=STORE_VARIABLE)] = None
    """Where runs are kept: a path or an address such as sqlite:PATH."""
    json: Annotated[bool, Parameter(negative=())] = False
    """Print JSON, for programs."""


@Parameter(name="*")
@dataclass(frozen=True)
class Source:
    """Where operations come from."""

    app: Annotated[str | None, Parameter(env_var=APP_VARIABLE)] = None
    """The app that knows the operations: module:attribute."""


COMMON, SOURCE = Common(), Source()
Hidden = Annotated[tuple[str, ...], Parameter(show=False)]


def whole(_: type, tokens: Sequence[Token]) -> int:
    """A whole number from 1 on, as a person writes it."""
    token = tokens[0]
    if re.fullmatch("[1-9][0-9]{0,17}", token.value) is None:
        raise UsageError.of("usage", f"{token.keyword} is a whole number, 1 or more")
    return int(token.value)


def age(_: type, tokens: Sequence[Token]) -> timedelta:
    """A time as a person writes it, such as ``30d``."""
    token = tokens[0]
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", token.value)
    if match is None:
        raise UsageError.of("usage", f"{token.keyword} is a number with one of s, m, h, d, w, such as 30d")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


Age = Annotated[timedelta | None, Parameter(converter=age)]
Whole = Annotated[int, Parameter(converter=whole)]
JsonText = Annotated[str | None, Parameter(allow_leading_hyphen=True)]
"""A JSON value on the command line; see :func:`json_argument`. It may be ``-``, or a negative number."""


def reading(common: Common, read: Callable[[Stores], Awaitable[T]], *, makes: bool = False) -> T:
    """What ``read`` gives for the stores that were asked for.

    Raises ``UsageError`` (``store_not_found``) where there are none, unless it ``makes`` them: a misspelt
    path must not become an empty store.
    """
    if not makes:
        must_exist(common)

    async def body() -> T:
        async with open_stores(common) as stores:
            return await read(stores)

    return asyncio.run(body())


def open_stores(common: Common, failpoints: Failpoints | None = None) -> Stores:
    """The stores that were asked for."""
    return Stores.open(store_url(common), failpoints)


def must_exist(common: Common) -> None:
    """Raise ``UsageError`` (``store_not_found``) if the store that was asked for is not there."""
    path = file_of(store_url(common))
    if path is not None and not path.exists():
        raise UsageError.of(
            "store_not_found",
            f"there is no store at {path}",
            hint="make one with `perdure store init`, or by starting a run",
        )


def store_url(common: Common) -> str:
    """The address of the store that was asked for."""
    # An empty variable is one that is not set; an empty option is a mistake, and must not mean another store.
    if common.store is None or (not common.store and os.environ.get(STORE_VARIABLE) == ""):
        return str(default_store_path())
    return common.store


def default_store_path() -> Path:
    """``runs.db`` in the user's data folder."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "perdure" / "runs.db"


def wanted_app(source: Source) -> App:
    """The app that was named, or all installed ones together."""
    if source.app:
        return load_app(source.app)
    from importlib.metadata import entry_points

    apps = [load_app(entry.value) for entry in entry_points(group="perdure.ops")]
    if not apps:
        raise UsageError.of(
            "app_not_found",
            "no app was named, and none is installed",
            hint=f"name one with --app module:attribute, or in {APP_VARIABLE}",
        )
    definitions: list[Definition] = []
    for app in apps:
        definitions += app.definitions
    return App(
        ops=definitions,
        transports=[factory for app in apps for factory in app.transports.factories],
        secrets=[each for app in apps for each in app.secrets],
    )


def json_argument(text: str | None, default: Json, what: str) -> Json:
    """The JSON of an argument: given as it is, as ``@FILE``, or ``-`` for standard input."""
    if text is None:
        return default

    def refuse(_: str) -> NoReturn:
        raise ValueError

    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8-sig")
        return json.loads(text, parse_constant=refuse)
    except OSError as error:
        raise UsageError.of(
            "input_malformed", f"{what}: the file cannot be read: {error.strerror}"
        ) from error
    except RecursionError as error:
        raise UsageError.of("input_malformed", f"{what} is nested too deep") from error
    except ValueError as error:
        place = f": {error.msg} at {error.lineno}:{error.colno}" if isinstance(error, JSONDecodeError) else ""
        raise UsageError.of(
            "input_malformed",
            f"{what} is not JSON{place}",
            hint='quote it for the shell: \'{"path": "."}\'; a text has quotes of its own: \'"yes"\'',
        ) from error


def typed_command(name: str, common: Common, source: Source, *words: str) -> str:
    """A command as the same person would type it; what their environment says need not be typed."""
    options: list[str] = []
    for option, value, variable in (
        ("--app", source.app, APP_VARIABLE),
        ("--store", common.store, STORE_VARIABLE),
    ):
        if value and value != os.environ.get(variable):
            options += [option, value]
    return shlex.join(["perdure", *name.split(), *words, *options])


def new_run_id(run_id: str | None, key: str | None) -> RunId:
    """The id that a new run gets: the one asked for, that of its key, or a random one."""
    if key == "":
        raise UsageError.of("usage", "--key is empty: all runs would be one", hint="is a variable not set?")
    return run_id_of(run_id, key)


def label_arguments(labels: tuple[str, ...]) -> dict[str, str]:
    """Labels from ``name=value`` words."""
    pairs = [label.partition("=") for label in labels]
    if not all(name and sign for name, sign, _ in pairs):
        raise UsageError.of("usage", "a label is name=value")
    values = {name: value for name, _, value in pairs}
    if len(values) < len(pairs):
        raise UsageError.of("usage", "a label is given twice")
    return values


def short(run_id: str) -> str:
    """As much of a run's id as a table shows."""
    return run_id[:SHOWN_ID_CHARACTERS]


def shown(value: Any, characters: int = 60) -> str:
    """A JSON value in at most so many characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= characters else text[: characters - 1] + "…"


def size(count: int) -> str:
    """A number of bytes for a person."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"
