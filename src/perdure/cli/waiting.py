"""What a run waits for, in words, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping

from perdure.cli.common import Common, Source, short, typed_command
from perdure.cli.output import minute, when
from perdure.errors import Json
from perdure.io.waits import CHILD, EFFECT_IN_DOUBT, SIGNAL, SLEEP
from perdure.model.events import RunPhase
from perdure.sdk.pending import BEING_UNPAUSED, RETRY, waits_for_retry

A_WORD = "a word on what became of an effect"
_NAMED = 3
"""How many of the children that a run waits for are named."""


def phrase(wait: Json) -> str:
    """What one wait is for: goes on from "waits for"."""
    until = None if wait["until_millis"] is None else f"{when(wait['until_millis'])} UTC"
    if wait["kind"] == SLEEP and until is not None:
        return until
    if wait["kind"] == SIGNAL:
        names = " or ".join(wait.get("signals") or ())
        return f"the signal {names}" + ("" if until is None else f", until {until} at most")
    if wait["kind"] == EFFECT_IN_DOUBT:
        return A_WORD
    if wait["kind"] == CHILD and wait.get("child_run_id"):
        return f"child {short(wait['child_run_id'])}"
    return str(wait["kind"])


def waiting_for(status: Json, *, names_children: bool = True) -> str:
    """All that a run waits for, by its ``status_of``; empty for one that waits for nothing."""
    if status["waiting_for"] in (BEING_UNPAUSED, None):
        return status["waiting_for"] or ""
    if status["waiting_for"] == RETRY:
        return f"{when(status['due_millis'])} UTC, to try again"
    # A state that has failed in doubt has no wait of its own.
    words = [phrase(wait) for wait in status["waits"] if wait["kind"] != CHILD]
    awaited = [wait["child_run_id"] for wait in status["waits"] if wait["kind"] == CHILD]
    if not names_children and awaited:
        words.append("a child" if len(awaited) == 1 else f"{len(awaited)} children")
    elif len(awaited) > 1:
        more = f" and {len(awaited) - _NAMED} more" if len(awaited) > _NAMED else ""
        words.append(f"{len(awaited)} children: {', '.join(map(short, awaited[:_NAMED]))}{more}")
    elif awaited:
        words.append(f"child {short(awaited[0])}")
    if waits_for_retry(status["waiting_for"]):
        words.append("a state to be tried again")
    return "; ".join(words) or A_WORD


def cell(waiting_for: str | None, due_millis: int | None) -> str:
    """What a run waits for, as short as a table needs it."""
    words = (waiting_for or "").partition(" ")[0]
    if words == EFFECT_IN_DOUBT:
        return "effect in doubt"
    if words in (SLEEP, RETRY):
        return minute(due_millis)
    parts = (waiting_for or "").split(", ")
    awaited = [part.partition(" ")[2] for part in parts if part.startswith(f"{CHILD} ")]
    if len(awaited) == 1:
        return (waiting_for or "").replace(awaited[0], short(awaited[0]))
    if awaited:
        others = [part for part in parts if not part.startswith(f"{CHILD} ")]
        return ", ".join([f"{len(awaited)} children", *others])
    return waiting_for or ""


def next_steps(status: Json, common: Common) -> list[str]:
    """What a person can do so that a run that waits goes on, and where to look for it."""
    run = short(status["run_id"])

    def command(name: str, *words: str) -> str:
        return typed_command(name, common, Source(), run, *words)

    steps: list[str] = []
    if status["waiting_for"] == BEING_UNPAUSED:
        steps.append(f"have it go on with: {command('run unpause')}")
    elif status["waiting_for"] is not None:
        names = [name for wait in status["waits"] for name in wait["signals"]]
        steps += [f"send it with: {command('run signal', name, 'JSON')}" for name in names]
    if status["phase"] == RunPhase.RUNNING.value:
        for effect in status["effects_in_doubt"]:
            if not effect["may_be_under_way"]:
                words = ("--effect", effect["key"], "--doubt", str(effect["doubt"]), "--why", "TEXT")
                steps.append(f"if it happened: {command('run resolve', *words, '--happened', 'JSON')}")
                steps.append(f"if it did not:  {command('run resolve', *words, '--did-not-happen')}")
    if status["parent_run_id"] or status["children"]:
        steps.append(f"see its family with: {command('run tree')}")
    return steps


def chain_lines(status: Json) -> list[str]:
    """Where a run stands in its chain, by its status; no line for one that is in none."""
    if "leg" not in status:
        return []
    lines = [f"leg      {status['leg']} of {status['legs']}, the first is {status['first_run_id']}"]
    if status["continued_as"]:
        lines.append(f"went on  as {status['continued_as']}")
    if status["newest_run_id"] not in (status["run_id"], status["continued_as"]):
        lines.append(f"newest   {status['newest_run_id']}")
    return lines


def children_in_words(phases: Mapping[str, int]) -> str:
    """How many children there are, and in which phases, by a status's ``children``."""
    words = [f"{count} {phase.lower()}" for phase, count in sorted(phases.items())]
    return f"{sum(phases.values())}: {', '.join(words)}"


def fork_in_words(origin: Json) -> list[str]:
    """Where a run was forked, by whom and why, and what was set, by a status's ``forked_from``."""
    reason = f": {origin['reason']}" if origin["reason"] else ""
    lines = [f"fork     of {origin['run_id']} at {origin['state_id']}, by {origin['by']}{reason}"]
    return lines + [f"set      {key}" for key in origin["set_keys"]]


def doubts(status: Json) -> list[str]:
    """What was asked for, where and when, of which nobody knows what became of it."""
    return [
        f"{each['state_id']} asked {each['namespace']}, in doubt since {when(each['intended_millis'])} UTC"
        for each in status["effects_in_doubt"]
    ]


def waits_for_words_alone(status: Json) -> bool:
    """Whether nothing but words on what became of effects makes the run go on."""
    is_doubtful = (status["waiting_for"] or "").startswith(EFFECT_IN_DOUBT)
    return is_doubtful and all(wait["kind"] == EFFECT_IN_DOUBT for wait in status["waits"])
