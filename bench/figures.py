"""What a measure gives: values, each with its bar."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

ROUNDS = 7


class Figure(NamedTuple):
    """A measured value and the bar that it should not pass: 0 for none, negative for one to be reached."""

    name: str
    value: float
    bar: float
    unit: str

    @property
    def is_met(self) -> bool:
        """Whether the value is on the right side of its bar."""
        return self.value >= -self.bar if self.bar <= 0 else self.value <= self.bar

    def __str__(self) -> str:
        bar = f"(bar {'≥ ' if self.bar < 0 else ''}{abs(self.bar):g})" if self.bar else ""
        verdict = "ok  " if self.is_met else "OVER"
        return f"{verdict} {self.name:66} {self.value:9.3f} {self.unit:4} {bar}".rstrip()


def median(values: Sequence[float]) -> float:
    """The one in the middle."""
    return statistics.median(values)
