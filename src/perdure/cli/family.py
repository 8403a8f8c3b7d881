"""The family of a run, drawn as a tree, or as text for programs."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from perdure.cli.common import short
from perdure.cli.output import span, visible
from perdure.cli.waiting import waiting_for
from perdure.ids import RunId
from perdure.io.children import ClosePolicy
from perdure.model.events import RunPhase
from perdure.sdk.families import Member, Standing, members
from perdure.sdk.pending import BEING_UNPAUSED

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

SHOWN_CHILDREN_MAX = 50
"""With more children than this, those of a parent that need no attention are counted and not shown."""
_LABEL_WIDTH = 60
"""So much room is left for a run, however deep it lies."""
_GUIDE_WIDTH = 4

_LOOKS = {
    "failed": ("✗", "red"),
    "missing": ("?", "red"),
    "waiting": ("○", "yellow"),
    "running": ("●", "yellow"),
    "cancelled": ("■", "yellow"),
    "completed": ("✓", "green"),
}
"""Each way to stand, the most urgent first, with its symbol and its colour."""
_URGENCY = {word: number for number, word in enumerate(_LOOKS)}
_CALM = _URGENCY["cancelled"]
"""What is as urgent as this, or less, needs no attention."""


def stands(standing: Standing) -> str:
    """How a run stands, in one word."""
    if standing.phase is None:
        return "missing"
    is_waiting = standing.phase is RunPhase.RUNNING and standing.waiting_for is not None
    return "waiting" if is_waiting else standing.phase.value.lower()


def family_text(root: Member) -> str:
    """The JSON of a family, each member with its ``children``; it may be nested too deep for ``json``."""
    pieces: list[str] = []
    left: list[Member | str] = [root]
    while left:
        each = left.pop()
        if isinstance(each, str):
            pieces.append(each)
            continue
        pieces.append('{"children": [')
        left.append("], " + json.dumps(each.to_json(), sort_keys=True)[1:])
        for number, child in enumerate(reversed(each.children)):
            if number:
                left.append(", ")
            left.append(child)
    return "".join(pieces)


class FamilyTree:
    """Draws a family. ``asked``, the first leg of a run's chain, is marked, and always shown."""

    def __init__(self, asked: RunId, *, shows_all: bool) -> None:
        self._asked = asked
        self._shows_all = shows_all
        self._told: dict[RunId, str] = {}

    def drawn(self, root: Member, console: Any) -> Tree:
        """A picture for ``console``."""
        from rich.tree import Tree

        now, urgency = time.time(), self._urgencies(root)
        levels_max = max(1, (console.width - _LABEL_WIDTH) // _GUIDE_WIDTH)
        has_symbols = not console.options.ascii_only
        picture = Tree("", hide_root=True, guide_style="dim")
        left: list[tuple[Member | str, Tree, int]] = [(root, picture, 0)]
        while left:
            member, branch, level = left.pop()
            if isinstance(member, str):
                branch.add(member, style="dim")
                continue
            label = self._label(member, now, has_symbols=has_symbols)
            if level > levels_max:
                label.append(f"  {member.depth} deep", "dim")
            node = branch.add(label)
            # What lies too deep to be set off stands beside its parent.
            below = node if level <= levels_max else branch
            shown, rest = self._chosen(member, urgency)
            if rest:
                words = ", ".join(f"{rest[word]} {word}" for word in _LOOKS if rest[word])
                left.append((f"… and {words}", below, level + 1))
            left += [(child, below, level + 1) for child in reversed(shown)]
        return picture

    def changes(self, root: Member) -> list[str]:
        """A line for each member that stands otherwise than at the last call; none at the first."""
        lines = []
        is_first = not self._told
        for member in members(root):
            if member.stands_above:
                continue
            is_waiting = stands(member.standing) == "waiting"
            told = self._words(member.standing) if is_waiting else stands(member.standing)
            if self._told.get(_chain(member)) != told and not is_first:
                lines.append(self._label(member, time.time(), has_symbols=True).plain)
            self._told[_chain(member)] = told
        return lines

    def _urgencies(self, root: Member) -> dict[int, int]:
        """How urgent the most urgent is of each member and its descendants; the asked-for is above all."""
        urgency: dict[int, int] = {}
        for member in reversed(list(members(root))):
            own = -1 if _chain(member) == self._asked else _URGENCY[stands(member.standing)]
            urgency[id(member)] = min([own, *(urgency[id(child)] for child in member.children)])
        return urgency

    def _chosen(self, parent: Member, urgency: dict[int, int]) -> tuple[list[Member], Counter[str]]:
        """The children that are shown, and how the others stand."""
        children = parent.children
        if self._shows_all or len(children) <= SHOWN_CHILDREN_MAX:
            return children, Counter()
        urgent = sorted(
            (child for child in children if urgency[id(child)] < _CALM), key=lambda each: urgency[id(each)]
        )
        shown = urgent[:SHOWN_CHILDREN_MAX]
        kept = {id(child) for child in shown}
        return shown, Counter(stands(child.standing) for child in children if id(child) not in kept)

    def _label(self, member: Member, now: float, *, has_symbols: bool) -> Text:
        from rich.text import Text

        standing, is_asked = member.standing, _chain(member) == self._asked
        symbol, colour = _LOOKS[stands(standing)]
        label = Text().append(short(member.run_id), "bold" if is_asked else None)
        if standing.op_id is not None:
            label.append(visible(f"  {standing.op_id} {standing.op_version or ''}".rstrip()))
        words = visible(self._words(standing))
        label.append(f"  {symbol} {words}" if has_symbols else f"  {words}", colour)
        for note in _notes(member, now):
            label.append(f"  {note}", "dim")
        if is_asked:
            label.append("  ← this run" if has_symbols else "  (this run)", "bold")
        return label

    def _words(self, standing: Standing) -> str:
        word = stands(standing)
        if standing.waiting_for == BEING_UNPAUSED:
            return "paused"
        if word == "waiting":
            waits = {
                "waiting_for": standing.waiting_for,
                "due_millis": standing.due_millis,
                "waits": standing.waits,
            }
            return f"waits for {waiting_for(waits, names_children=False)}"
        if word == "missing" and standing.error != "run_not_found":
            return f"cannot be read: {standing.error}"
        return f"{word}: {standing.failure}" if standing.failure is not None else word


def _chain(member: Member) -> RunId:
    return member.standing.chain or member.run_id


def _notes(member: Member, now: float) -> Iterator[str]:
    standing = member.standing
    if standing.started_millis is not None:
        ended = now if standing.ended_millis is None else standing.ended_millis / 1000
        yield span(ended - standing.started_millis / 1000)
    if standing.leg > 1:
        yield f"leg {standing.leg}"
    if member.close_policy not in (None, ClosePolicy.AWAIT):
        yield f"close: {member.close_policy.value}"
    if member.is_adopted:
        yield "adopted"
    if member.is_unlinked:
        yield "not known to its parent"
    if member.stands_above:
        yield "shown elsewhere"
