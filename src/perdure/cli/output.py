"""What a person, or a program, gets to see."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from perdure.canonical import CanonicalJsonError
from perdure.errors import InvalidShapeError, Json, PerdureError
from perdure.ids import InvalidIdError

EXIT_COMPLETED, EXIT_FAILED, EXIT_USAGE, EXIT_STORE, EXIT_INTERRUPTED = 0, 1, 2, 3, 130

_USAGE_CODES = frozenset(
    {
        "app_invalid",
        "app_not_found",
        "failpoint_invalid",
        "input_malformed",
        "op_not_found",
        "run_ambiguous",
        "run_not_found",
        "artifact_not_found",
        "effect_not_in_doubt",
        "letter_invalid",
        "run_already_terminal",
        "app_import_failed",
        "context_key_unknown",
        "fact_unknown",
        "input_invalid",
        "op_expand_failed",
        "op_invalid",
        "snapshot_not_found",
        "store_not_found",
        "store_scheme_unknown",
        "usage",
    }
)


_WHOLE = frozenset({"run", "op", "#", "phase", "time (UTC)", "started (UTC)"})


class UsageError(PerdureError):
    """What was typed makes no sense; exit code 2."""


def exit_code_of(error: PerdureError) -> int:
    """2 for what the caller got wrong, 3 for what the store or the history did."""
    given = (CanonicalJsonError, InvalidIdError, InvalidShapeError)
    usage = error.code in _USAGE_CODES or isinstance(error, given)
    return EXIT_USAGE if usage else EXIT_STORE


class Output:
    """Prints results to standard output, and errors to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def is_live(self) -> bool:
        """Whether somebody watches on a terminal."""
        return not self.as_json and sys.stdout.isatty()

    def data(self, data: Json) -> None:
        """The result for a program: one line of JSON."""
        print(json.dumps({"status": "success", "data": data}, ensure_ascii=False, sort_keys=True))

    def line(self, text: str = "") -> None:
        """A line for a person."""
        if not self.as_json:
            print(text, flush=True)

    def heading(self, text: str) -> None:
        """A line that begins a part."""
        from rich.text import Text

        self.console().print(Text(text, style="bold"))

    def json(self, value: Json) -> None:
        """A JSON value for a person."""
        print(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table for a person, as wide as the terminal at most."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for column in columns:
            table.add_column(column, overflow="fold", no_wrap=column in _WHOLE)
        for row in rows:
            table.add_row(*[Text(visible(str(cell))) for cell in row])
        self.console().print(table)

    def error(self, code: str, message: str, hint: str) -> None:
        """An error, and what to do next."""
        if self.as_json:
            body = {"status": "error", "error": {"code": code, "message": message, "hint": hint}}
            print(json.dumps(body, ensure_ascii=False, sort_keys=True), file=sys.stderr)
            return
        from rich.text import Text

        console = self.console(stderr=True)
        console.print(Text.assemble(("error: ", "bold red"), (code, "bold"), ": ", visible(message)))
        if hint:
            console.print(Text.assemble(("hint:  ", "bold"), visible(hint)))

    def console(self, *, stderr: bool = False) -> Any:
        """Where rich text goes: as wide as the terminal is now, without colours if NO_COLOR is set."""
        from rich.console import Console

        return Console(stderr=stderr, highlight=False, soft_wrap=False)


def when(millis: int | None) -> str:
    """A moment for a person, in UTC."""
    if millis is None:
        return "—"
    return datetime.fromtimestamp(millis / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def minute(millis: int | None) -> str:
    """A moment for a person, in UTC, where there is little room."""
    return when(millis)[:16]


def visible(text: str) -> str:
    """``text`` without characters that would move a terminal's cursor or change its colours."""
    return "".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in text)
