"""What a run waits for, in words, and what to do about it."""

from __future__ import annotations

from perdure.cli.common import SHOWN_ID_CHARACTERS, Common, Source, typed_command
from perdure.cli.output import minute, when
from perdure.errors import Json
from perdure.io.waits import EFFECT_IN_DOUBT, SIGNAL, SLEEP
from perdure.model.events import RunPhase
from perdure.sdk.reading import BEING_UNPAUSED, RETRY

A_WORD = "a word on what became of an effect"


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
    return str(wait["kind"])


def waiting_for(status: Json) -> str:
    """All that a run waits for, by its ``status_of``; empty for one that waits for nothing."""
    if status["waiting_for"] in (BEING_UNPAUSED, None):
        return status["waiting_for"] or ""
    if status["waiting_for"] == RETRY:
        return f"{when(status['due_millis'])} UTC, to try again"
    # A state that has failed in doubt has no wait of its own.
    return "; ".join(map(phrase, status["waits"])) or A_WORD


def cell(waiting_for: str | None, due_millis: int | None) -> str:
    """What a run waits for, as short as a table needs it."""
    words = (waiting_for or "").partition(" ")[0]
    if words == EFFECT_IN_DOUBT:
        return "effect in doubt"
    if words in (SLEEP, RETRY):
        return minute(due_millis)
    return waiting_for or ""


def next_steps(status: Json, common: Common) -> list[str]:
    """What a person can do so that a run that waits goes on."""
    run = status["run_id"][:SHOWN_ID_CHARACTERS]

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
    return steps


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
