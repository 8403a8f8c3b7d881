"""What a state's function has around it, so that it can spawn children."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar

from perdure.errors import ErrorCategory, StateError
from perdure.model.handler import IoProvider


class Spawner:
    """Names the children of one attempt at a state, or of an item of a map in it."""

    def __init__(self, io: IoProvider, place: str) -> None:
        self.io = io
        self._place = place
        self._counts: Counter[str] = Counter()

    def key_of(self, op_id: str, name: str | None) -> str:
        """What tells the next child from all others of the run: a name, or its number among its like."""
        if name is None:
            number = self._counts[op_id]
            self._counts[op_id] += 1
            return f"{self._place}|{op_id}|{number}"
        if not name or not name.isprintable() or not name[0].isalpha() or "|" in name:
            raise StateError.of(
                "child_name_invalid",
                "a child's name is a short printable text that begins with a letter, without |",
                category=ErrorCategory.PARSING_INPUT,
            )
        return f"{self._place}|{name}"


SPAWNER: ContextVar[Spawner | None] = ContextVar("SPAWNER", default=None)
"""Who spawns for the function that is running."""
