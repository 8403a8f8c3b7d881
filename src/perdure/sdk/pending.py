"""What a run waits for, and the effects that it is in doubt about."""

from __future__ import annotations

from perdure.engine.history import RunView
from perdure.engine.recovery import read_view
from perdure.errors import ErrorCategory, Json, RunError
from perdure.ids import RunId
from perdure.io.effects import Effect
from perdure.io.waits import Wait
from perdure.stores.bundle import Stores

BEING_UNPAUSED, RETRY = "being unpaused", "retry"
"""What a run waits for besides waits, as views and results say it."""


def waits_of(view: RunView) -> list[Json]:
    """The waits of a run that have not ended.

    Each is ``{"state_id", "kind", "until_millis", "signals", "effect", "child_run_id"}``.
    """
    return [_wait_json(wait) for wait in _open_waits(view)]


def _open_waits(view: RunView) -> list[Wait]:
    return [wait for attempt in view.open_attempts.values() for wait in view.waits_of(attempt)]


def _wait_json(wait: Wait) -> Json:
    return {
        "state_id": wait.state_id,
        "kind": wait.kind,
        "until_millis": wait.until_millis,
        "signals": list(wait.signals),
        "effect": wait.effect,
        "child_run_id": wait.child_run_id,
    }


def doubt_json(view: RunView, effect: Effect) -> Json:
    """An effect in doubt, as ``RunSummary.effects_in_doubt`` has it."""
    return {
        "key": effect.key,
        "state_id": effect.state_id,
        "namespace": effect.namespace,
        "intended_millis": effect.intended_millis,
        "doubt": effect.intents,
        "may_be_under_way": not view.may_be_told_of(effect),
    }


def due_millis_of(view: RunView) -> int | None:
    """When a run that waits goes on if nothing comes before."""
    if view.waiting_for in (BEING_UNPAUSED, None):
        return None
    dues = [wait.until_millis for wait in _open_waits(view)]
    if waits_for_retry(view.waiting_for):
        dues += [
            progress.retry_due_millis
            for state_id, progress in view.states.items()
            if state_id not in view.completed
        ]
    return min((each for each in dues if each is not None), default=None)


def waits_for_retry(waiting_for: str | None) -> bool:
    """Whether a state is to be tried again, by what its run waits for."""
    return waiting_for is not None and waiting_for.rpartition(", ")[2] == RETRY


async def doubt_of(stores: Stores, run_id: RunId, key: str, doubt: int | None = None) -> int:
    """Which doubt about an effect a run is in; ``RunError`` if it is none, or another than ``doubt``.

    ``effect_not_in_doubt``; ``effect_under_way`` if a handler may be making the effect at this moment.
    """
    view = await read_view(stores, run_id)
    effects = {effect.key: effect for effect in view.in_doubt}
    effect = effects.get(key)
    if effect is None or doubt not in (None, effect.intents):
        raise RunError.of(
            "effect_not_in_doubt",
            "the run has no effect of this key that is in doubt"
            if effect is None
            else f"doubt {doubt} is settled; the effect is in doubt {effect.intents}, which is a new one",
            category=ErrorCategory.PARSING_INPUT,
            details={"run_id": run_id, "in_doubt": list(effects)},
        )
    if not view.may_be_told_of(effect):
        raise RunError.of(
            "effect_under_way",
            "the run may be making the effect at this moment, so nobody can know yet what becomes of it",
            category=ErrorCategory.PARSING_INPUT,
            details={"run_id": run_id, "effect": key},
        )
    return effect.intents
