"""Following a run while it is driven: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perdure.cli.common import short, shown
from perdure.cli.output import Output, span, when
from perdure.cli.waiting import phrase
from perdure.engine.attempts import ATTEMPT_INTERRUPTED, ORPHAN_ATTEMPT_RECOVERED
from perdure.errors import Json
from perdure.ids import RunId
from perdure.io.maps import map_of
from perdure.io.waits import WAIT_PREFIX
from perdure.model.events import (
    FACT_RECORDED,
    RETRY_SCHEDULED,
    RUN_CANCEL_REQUESTED,
    RUN_FORKED,
    RUN_PAUSED,
    RUN_UNPAUSED,
    VALUE_PUBLISHED,
    WAIT_STARTED,
    DomainEvent,
    Event,
    RunCompleted,
    RunStarted,
    RunStatus,
    StateCompleted,
    StateEntered,
    StateFailed,
)
from perdure.model.forks import ForkedFrom
from perdure.model.legs import continued_by, next_run_of

_REFRESHES_PER_SECOND = 8
_ROWS_MAX = 30
_NOT_ITS_FAULT = frozenset({ORPHAN_ATTEMPT_RECOVERED, ATTEMPT_INTERRUPTED})


@dataclass
class _ChildRow:
    begun: float
    why: str = ""
    has_ended: bool = False


class Progress:
    """An engine's observer that shows what happens in a run, and of its children how they begin and end."""

    def __init__(self, output: Output, run_id: RunId) -> None:
        self._output = output
        self._run_id = run_id
        self._children: dict[RunId, _ChildRow] = {}
        self._going_on: set[RunId] = set()
        self._has_legs = False
        self._rows: dict[str, list[Any]] = {}
        self._facts = 0
        self._items: Counter[str] = Counter()
        self._fork: ForkedFrom | None = None
        """Where the run was forked, while what it has copied passes by."""
        self._begun: float | None = None
        self._ended_seconds: float | None = None
        self._lock = threading.Lock()
        self._live: Any = None

    def __enter__(self) -> Progress:
        if self._output.is_live:
            from rich.live import Live

            self._live = Live(
                get_renderable=self._table, refresh_per_second=_REFRESHES_PER_SECOND, transient=False
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            sys.stdout.flush()

    @property
    def has_begun(self) -> bool:
        """Whether anything of the run was made durable here."""
        return self._begun is not None

    def __call__(self, run_id: RunId, events: Sequence[tuple[int, Event]]) -> None:
        """Take in what was just made durable; the engine calls it."""
        for _, event in events:
            self.take(run_id, event, time.time())

    def take(self, run_id: RunId, event: Event, seconds: float) -> None:
        """Take in an event that was written at this moment, in seconds since 1970."""
        with self._lock:
            if self._begun is None:
                self._begun = seconds
            line = self._line(run_id, event, seconds)
            if line and self._live is None:
                self._output.report(line)

    def skip(self, gone: RunId, heir: RunId) -> None:
        """Take ``heir`` for the run that ``gone`` went on as, whose events have been deleted."""
        with self._lock:
            line = self._hand_on(gone, heir)
            if line and self._live is None:
                self._output.report(line)

    def _line(self, run_id: RunId, event: Event, now: float) -> str | None:
        heir = next_run_of(event)
        if heir is not None:
            self._going_on.add(run_id)
            return self._hand_on(run_id, heir)
        if run_id in self._going_on and isinstance(event, RunCompleted):
            self._going_on.discard(run_id)
            return None
        is_known = run_id in self._children or (run_id == self._run_id and self._has_legs)
        if continued_by(event) is not None and is_known:
            return None
        take = self._take if run_id == self._run_id else self._take_of_child
        if self._fork is not None and run_id == self._run_id:
            take = self._take_copied
        return take(run_id, event, now)

    def _hand_on(self, run_id: RunId, heir: RunId) -> str | None:
        """Take ``heir`` for the run that goes on as it; a line if that is the one which is followed."""
        if run_id == self._run_id:
            self._run_id, self._has_legs = heir, True
            self._rows.clear()
            return f"run {run_id} goes on as {heir}"
        if run_id in self._children:
            self._children[heir] = self._children.pop(run_id)
        return None

    def _take(self, run_id: RunId, event: Event, now: float) -> str | None:
        match event:
            case RunStarted(forked_from=fork):
                self._fork = fork
                return f"run {run_id} started" + ("" if fork is None else f", a fork of {fork.run_id}")
            case StateEntered():
                self._rows[event.state_id] = ["running", event.attempt + 1, 0, now, None]
                self._items.pop(event.state_id, None)
                again = f" (attempt {event.attempt + 1})" if event.attempt else ""
                return f"{event.state_id} entered{again}"
            case StateCompleted():
                return self._ended(event.state_id, "completed", "", now)
            case StateFailed():
                info = event.error.info
                if info.code in _NOT_ITS_FAULT:
                    return self._ended(event.state_id, "interrupted", f": {info.message}", now)
                return self._ended(event.state_id, "failed", f": {info.code}: {info.message}", now)
            case RunCompleted():
                self._ended_seconds = now
                return f"run {run_id} {event.status.value.lower()} after {self._elapsed(now)}"
            case DomainEvent(name=name, payload=payload) if name == FACT_RECORDED:
                self._facts += 1
                mapped = map_of(payload["key"])
                if mapped is not None:
                    self._items[mapped[0]] += 1
                    return None
                self._take_fact(str(payload["key"]))
            case DomainEvent(name=name, payload=payload):
                if name == WAIT_STARTED and payload["state_id"] in self._rows:
                    self._rows[payload["state_id"]][0] = "waiting"
                return told(name, payload)
            case _:
                return None
        return None

    def _take_copied(self, run_id: RunId, event: Event, now: float) -> str | None:
        """What another run has done is told in a line."""
        fork = self._fork
        if fork is None or not isinstance(event, DomainEvent) or event.name != RUN_FORKED:
            return None
        if (event.payload["run_id"], event.payload["seq"]) != (fork.run_id, fork.seq):
            return None  # that run was a fork itself
        self._fork = None
        count = sum(map(len, event.payload["executed_by"].values()))
        return f"{count} state{'' if count == 1 else 's'} carried over; it begins at {fork.state_id}"

    def _take_fact(self, key: str) -> None:
        """Count a fact for the state whose it is: the one that its key names, or the only one that runs."""
        named = [state_id for state_id in self._rows if state_id in key]
        row = self._rows[max(named, key=len)] if named else None
        if row is not None and row[0] == "waiting" and key.startswith(WAIT_PREFIX):
            row[0] = "running"
        running = [each for each in self._rows.values() if each[0] == "running"]
        if row is None and len(running) == 1:
            row = running[0]
        if row is not None:
            row[2] += 1

    def _take_of_child(self, run_id: RunId, event: Event, now: float) -> str | None:
        child = self._children.setdefault(run_id, _ChildRow(now))
        name = f"child {short(run_id)}"
        match event:
            case RunStarted():
                return f"{name} of {event.op_id} started"
            case StateFailed():
                child.why = f": {event.error.info.code}: {event.error.info.message}"
            case RunCompleted():
                child.has_ended = True
                why = child.why if event.status is RunStatus.FAILED else ""
                return f"{name} {event.status.value.lower()} in {span(now - child.begun)}{why}"
            case DomainEvent(name=kind, payload=payload):
                line = told(kind, payload)
                return None if line is None else f"{name}: {line}"
        return None

    def _ended(self, state_id: str, how: str, why: str, now: float) -> str:
        row = self._rows.setdefault(state_id, [how, 1, 0, now, None])
        row[0], row[4] = how, now
        facts = f", {row[2]} fact{'s' if row[2] > 1 else ''}" if row[2] else ""
        items = f", {_items(self._items[state_id])}" if state_id in self._items else ""
        return f"{state_id} {how} in {span(row[4] - row[3])}{items}{facts}{why}"

    def _elapsed(self, now: float) -> str:
        return span(now - (now if self._begun is None else self._begun))

    def _rows_shown(self) -> list[tuple[str, list[Any]]]:
        """As many as there is room for, in the order of entering: what is under way before what has ended."""
        rows = list(self._rows.items())
        under_way = [place for place, (_, row) in enumerate(rows) if row[0] in ("running", "waiting")]
        ended = [place for place, (_, row) in enumerate(rows) if row[0] not in ("running", "waiting")]
        chosen = [*under_way, *reversed(ended)][:_ROWS_MAX]
        return [rows[place] for place in sorted(chosen)]

    def _table(self) -> Any:
        from rich import box
        from rich.table import Table

        with self._lock:
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
            for column in ("state", "status", "attempt", "facts", "elapsed"):
                table.add_column(column, justify="left" if column in ("state", "status") else "right")
            now = self._ended_seconds or time.time()
            for state_id, (status, attempt, facts, begun, until) in self._rows_shown():
                style = {"completed": "green", "failed": "red"}.get(status, "yellow")
                table.add_row(
                    state_id,
                    f"[{style}]{status}[/]"
                    + (f", {_items(self._items[state_id])}" if state_id in self._items else ""),
                    str(attempt),
                    str(facts),
                    span((until or now) - begun),
                )
            ended = sum(child.has_ended for child in self._children.values())
            children = f"{ended} of {len(self._children)} children ended, " if self._children else ""
            table.caption = f"{children}{self._facts} facts, {self._elapsed(now)}"
            table.caption_justify = "left"
            return table


def _items(count: int) -> str:
    return f"{count} item{'s' if count > 1 else ''}"


_ASKED = {RUN_CANCEL_REQUESTED: "asked to stop", RUN_PAUSED: "paused", RUN_UNPAUSED: "unpaused"}


def told(name: str, payload: Json) -> str | None:
    """A line about what somebody should know of besides states and their ends."""
    if name == RETRY_SCHEDULED:
        return f"{payload['state_id']} will be tried again at {when(payload['due_millis'])} UTC"
    if name == WAIT_STARTED:
        return f"{payload['state_id']} waits for {phrase(payload)}"
    if name == VALUE_PUBLISHED:
        return f"{payload['name']}: {shown(payload['value'])}"
    if name in _ASKED:
        reason = f": {payload['reason']}" if payload["reason"] else ""
        return f"run {_ASKED[name]} by {payload['by']}{reason}"
    return None
