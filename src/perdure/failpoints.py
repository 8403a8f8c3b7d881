"""Places where a run can be made to stop, or its process to die: how crash safety is shown.

A point is hit every time execution passes it. A failpoint names the point, which hit it means, and what
happens then: ``stop`` ends the run's stint as a crash would, but lets the process live; ``kill`` sends
SIGKILL to the process itself.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable
from typing import NamedTuple

from perdure.errors import ErrorCategory, ErrorInfo, PerdureError

POINTS: dict[str, str] = {
    "commit.before": "before each durable write of the engine",
    "commit.after": "after each durable write of the engine",
    "handler.before": "before a state's handler is called",
    "handler.after": "after a state's handler has returned, before its attempt is closed",
    "transport.before": "before a call goes out",
    "transport.after": "after a call was answered, before its fact is recorded",
    "artifact_file.after": "after a large artifact became a file, before the commit that names it",
    "delete.after": "after runs were forgotten, before the room of their events is free",
    "sweep.before": "before artifacts are swept, some at a time",
    "sweep.after": "after large artifacts were swept, before their files are removed",
}

_SPEC = re.compile(r"(?P<point>[a-z._]+)(?::(?P<hit>[1-9][0-9]*))?=(?P<action>stop|kill)")


class FailpointStop(BaseException):
    """Ends a stint as a crash would. Not an ``Exception``, so that no handler swallows it."""


class Failpoint(NamedTuple):
    """What happens at the ``hit``-th passing of ``point``, counted from 1."""

    point: str
    hit: int
    kill: bool


class Failpoints:
    """A set of failpoints, each of which strikes once."""

    def __init__(self, *, stop_after_handler_once: bool = False, points: Iterable[Failpoint] = ()) -> None:
        self._armed = list(points)
        self._stops_once = stop_after_handler_once
        if stop_after_handler_once:
            self._armed.append(Failpoint("handler.after", 1, kill=False))
        self._hits = dict.fromkeys(POINTS, 0)

    @classmethod
    def parse(cls, specs: Iterable[str]) -> Failpoints:
        """Failpoints of texts ``POINT[:HIT]=stop|kill``.

        Raises ``PerdureError`` (``failpoint_invalid``) for another form or an unknown point.
        """
        return cls(points=[_parse(spec) for spec in specs])

    def for_children(self) -> Failpoints:
        """Those that count in child runs too: all but ``stop_after_handler_once``."""
        return NO_FAILPOINTS if self._stops_once else self

    @property
    def hits(self) -> dict[str, int]:
        """How often each point was passed so far."""
        return {point: hits for point, hits in self._hits.items() if hits}

    def hit(self, point: str) -> None:
        """Pass ``point``; raises :class:`FailpointStop` or kills the process if a failpoint says so."""
        self._hits[point] += 1
        for failpoint in self._armed:
            if failpoint.point == point and failpoint.hit == self._hits[point]:
                self._armed.remove(failpoint)
                if failpoint.kill:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise FailpointStop


class _NoFailpoints(Failpoints):
    """No failpoint at all; counts nothing."""

    def hit(self, point: str) -> None:
        """Pass ``point``."""


NO_FAILPOINTS: Failpoints = _NoFailpoints()


def _parse(spec: str) -> Failpoint:
    match = _SPEC.fullmatch(spec)
    if match is None or match["point"] not in POINTS:
        raise PerdureError(
            ErrorInfo("failpoint_invalid", ErrorCategory.PARSING_INPUT, False, "not a failpoint"),
            hint=f"write POINT[:HIT]=stop|kill, POINT one of {', '.join(POINTS)}",
        )
    return Failpoint(match["point"], int(match["hit"] or 1), match["action"] == "kill")
