"""What a person, or a program, gets to see."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from perdure.canonical import CanonicalJsonError
from perdure.errors import CorruptionError, InvalidShapeError, Json, PerdureError
from perdure.ids import InvalidIdError

EXIT_COMPLETED, EXIT_FAILED, EXIT_USAGE, EXIT_STORE = 0, 1, 2, 3

_USAGE_CODES = frozenset(
    {
        "app_import_failed",
        "app_invalid",
        "app_not_found",
        "artifact_not_found",
        "config_invalid",
        "context_key_unknown",
        "context_not_canonical",
        "context_write_conflict",
        "effect_not_in_doubt",
        "effect_under_way",
        "fact_unknown",
        "failpoint_invalid",
        "fork_key_twice",
        "fork_key_unknown",
        "fork_order_changed",
        "fork_state_not_reached",
        "fork_states_not_in_plan",
        "input_invalid",
        "input_malformed",
        "letter_invalid",
        "op_config_not_canonical",
        "op_expand_failed",
        "op_invalid",
        "op_not_found",
        "os_error",
        "run_already_terminal",
        "run_ambiguous",
        "run_blocked_by_version",
        "run_has_children",
        "run_not_ended",
        "run_not_found",
        "run_parent_unfinished",
        "run_referred_to",
        "schedule_cron_invalid",
        "schedule_exists",
        "schedule_invalid",
        "schedule_never_due",
        "schedule_not_found",
        "schedule_zone_unknown",
        "secrets_detected",
        "signal_invalid",
        "signal_unknown",
        "snapshot_not_found",
        "store_not_found",
        "store_scheme_unknown",
        "usage",
    }
)


_WHOLE = frozenset(
    {"run", "op", "#", "phase", "time (UTC)", "started (UTC)", "schedule", "due", "next due", "overlap"}
)
_WIDTH_MIN = 60
"""A narrower terminal wraps its lines itself: a table as narrow as that would lose columns."""


class UsageError(PerdureError):
    """What was typed makes no sense; exit code 2."""


def exit_code_of(error: PerdureError) -> int:
    """2 for what the caller got wrong, 3 for what the store or the history did."""
    if isinstance(error, CorruptionError):
        return EXIT_STORE
    kinds = (InvalidIdError, InvalidShapeError, CanonicalJsonError)
    return EXIT_USAGE if error.code in _USAGE_CODES or isinstance(error, kinds) else EXIT_STORE


class Output:
    """Prints results to standard output, and errors to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._refused: OSError | None = None

    @property
    def is_live(self) -> bool:
        """Whether somebody watches on a terminal."""
        return not self.as_json and sys.stdout.isatty()

    def data(self, data: Json) -> None:
        """The result for a program: one line of JSON."""
        self.data_text(json.dumps(data, sort_keys=True))

    def data_text(self, text: str) -> None:
        """As :meth:`data`, of what is JSON text already."""
        print(f'{{"data": {text}, "status": "success"}}')

    def answer(self, data: Json, *lines: str) -> None:
        """A command's whole result: ``data`` for a program, or the lines for a person."""
        if self.as_json:
            self.data(data)
        for line in lines:
            self.line(line)

    def line(self, text: str = "") -> None:
        """A line for a person."""
        if not self.as_json:
            print(visible(text), flush=True)

    @contextmanager
    def unstoppable(self) -> Iterator[None]:
        """Write about work that goes on, and ends as it ends, though it cannot be written about."""
        try:
            yield
        except OSError as error:
            self._refused = self._refused or error
            send_nowhere(sys.stdout)

    def report(self, text: str) -> None:
        """A line for a person, as in :meth:`unstoppable`."""
        with self.unstoppable():
            self.line(text)

    def end(self) -> None:
        """Raise what kept :meth:`unstoppable` work from being written about; that nobody read is no error."""
        if self._refused is not None and not isinstance(self._refused, BrokenPipeError):
            raise self._refused

    def heading(self, text: str) -> None:
        """A line that begins a part."""
        from rich.text import Text

        self.console().print(Text(text, style="bold"))

    def json(self, value: Json) -> None:
        """A JSON value for a person."""
        print(visible_json(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)))

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
        try:
            self._error(code, message, hint)
        except OSError:
            send_nowhere(sys.stderr)  # nobody is left to be told

    def _error(self, code: str, message: str, hint: str) -> None:
        if self.as_json:
            body = {"status": "error", "error": {"code": code, "message": message, "hint": hint}}
            print(json.dumps(body, sort_keys=True), file=sys.stderr, flush=True)
            return
        from rich.text import Text

        console = self.console(stderr=True)
        console.print(Text.assemble(("error: ", "bold red"), (code, "bold"), ": ", visible(message)))
        if hint:
            console.print(Text.assemble(("hint:  ", "bold"), visible(hint)))

    def console(self, *, stderr: bool = False) -> Any:
        """Where rich text goes: as wide as the terminal is now, without colours if NO_COLOR is set."""
        from rich.console import Console

        class PipeConsole(Console):
            def on_broken_pipe(self) -> None:
                raise BrokenPipeError  # rich would exit with 1 here, as if a run had failed

        console = PipeConsole(stderr=stderr, highlight=False, soft_wrap=False)
        console.width = max(console.width, _WIDTH_MIN)
        return console


def send_nowhere(stream: TextIO) -> None:
    """Have what is written to ``stream``, and what it still holds, vanish."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def when(millis: int | None) -> str:
    """A moment for a person, in UTC."""
    if millis is None:
        return "—"
    return datetime.fromtimestamp(millis / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def minute(millis: int | None) -> str:
    """A moment for a person, in UTC, where there is little room."""
    return when(millis)[:16]


UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
"""Seconds by the letter that stands for them where a person types a time."""


def span(seconds: float) -> str:
    """How long something took, for a person."""
    seconds = max(seconds, 0.0)
    if seconds < 60:
        return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if minutes < 60:
        return f"{minutes} min {int(seconds % 60)} s"
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def visible(text: str) -> str:
    """``text`` without characters that would move a terminal's cursor or change its colours."""
    return "".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in text)


def visible_json(text: str) -> str:
    """As :func:`visible`, for JSON, which has escapes for such characters."""
    return "".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text)
