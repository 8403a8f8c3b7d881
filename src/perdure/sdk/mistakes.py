"""What is wrong with a definition, in its author's words, with the place in their code."""

from __future__ import annotations

import inspect
import linecache
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from perdure.errors import ErrorCategory, InvalidPlanError, Json


class Place(NamedTuple):
    """A line in somebody's file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Mistake(NamedTuple):
    """One thing to mend before an operation can run."""

    code: str
    message: str
    place: Place
    hint: str

    def to_json(self) -> Json:
        """``{"code", "message", "file", "line", "hint"}``."""
        return {
            "code": self.code,
            "message": self.message,
            "file": self.place.file,
            "line": self.place.line,
            "hint": self.hint,
        }


def place_of(function: Callable[..., Any]) -> Place:
    """Where a function's ``def`` stands, past its decorators."""
    code = inspect.unwrap(function).__code__
    line = code.co_firstlineno
    if code.co_name == "<lambda>":
        return Place(code.co_filename, line)
    for number in range(line, line + 50):
        if linecache.getline(code.co_filename, number).lstrip().startswith(("def ", "async def ")):
            line = number
            break
    return Place(code.co_filename, line)


def place_of_caller(levels: int) -> Place:
    """The line that called, ``levels`` calls up from the function that asks."""
    frame = sys._getframe(levels + 1)
    return Place(frame.f_code.co_filename, frame.f_lineno)


def refuse_mistakes(name: str, mistakes: Sequence[Mistake]) -> None:
    """Raise ``InvalidPlanError`` (``op_invalid``) with the first of ``mistakes``, if there are any."""
    if not mistakes:
        return
    first, more = mistakes[0], len(mistakes) - 1
    tail = f" (and {more} more; `perdure op check` shows all)" if more else ""
    raise InvalidPlanError.of(
        "op_invalid",
        f"{name}: {first.message}, at {first.place}{tail}",
        category=ErrorCategory.PARSING_INPUT,
        details={"op_id": name, "mistakes": [each.code for each in mistakes]},
        hint=first.hint,
    )
