"""Going on as a new run, for authors: a long life in short legs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import msgspec

from perdure.errors import ErrorCategory, Json, StateError
from perdure.ids import OpPath
from perdure.model.handler import Context, ContinueAsNew, StateOutcome
from perdure.sdk.checks import expect_mapping
from perdure.sdk.spawning import SPAWNER
from perdure.sdk.values import UNTYPED, Codec


class Continued(BaseException):
    """Leaves a state's function so that the run goes on as a new one.

    Not an ``Exception``, so that no function catches it among its errors.
    """

    def __init__(self, given: Any, carry: Mapping[str, Json]) -> None:
        super().__init__("the run goes on as a new one")
        self.given = given
        self.carry = carry


def continue_as_new(
    input: Any = msgspec.UNSET,  # noqa: A002 — the term
    *,
    carry: Mapping[str, Any] | None = None,
) -> NoReturn:
    """End this run here, and go on as a new one of the same operation or pipeline, from its first state.

    For runs that live long: every leg has a short history of its own. The state that calls this completes,
    without a result; the states after it do not run in this leg. ``input`` is the next leg's, this one's
    unless given. ``carry`` are values that states of this operation find there with ``ctx.read(key)``; of
    this leg's context nothing else goes along but what the run was started with as its ``context``.

    Never returns; let what it raises pass. ``StateError``: ``continue_outside_state``; the attempt fails with
    ``input_invalid``, ``secrets_detected`` and others if such a run could not be started, and with
    ``continued_in_doubt`` while it is not known what became of an effect.
    """
    if SPAWNER.get() is None:
        raise StateError.of(
            "continue_outside_state",
            "a run goes on as a new one where a state says so, and this is called outside of one",
            category=ErrorCategory.PARSING_INPUT,
        )
    expect_mapping({} if carry is None else carry, object, "continue_as_new(carry=…)", "JSON values")
    raise Continued(input, {} if carry is None else dict(carry))


def outcome_of(wanted: Continued, input_json: Callable[[Any], Json]) -> StateOutcome:
    """What a state comes to whose function wants the run to go on; ``input_json`` checks an input.

    Raises ``StateError`` (``carry_invalid``) for values that have no JSON form.
    """
    given = wanted.given if wanted.given is msgspec.UNSET else input_json(wanted.given)
    try:
        carried = {key: Codec(UNTYPED).to_json(value) for key, value in wanted.carry.items()}
    except (TypeError, ValueError) as error:
        raise StateError.of(
            "carry_invalid",
            f"what is to be carried to the next leg cannot be written: {error}",
            category=ErrorCategory.PARSING_INPUT,
        ) from error
    return StateOutcome(continuation=ContinueAsNew(carried, given))


def scoped_outcome(outcome: StateOutcome, op_path: OpPath, ctx: Context) -> StateOutcome:
    """``outcome`` for the whole run: a step's keys get their prefix.

    Keys of the run's own, which no step can have written, stay: later legs import what the first one did.
    """
    wanted = outcome.continuation
    if wanted is None:
        return outcome
    machine = f"{op_path.partition('.')[0]}."
    context = {key: value for key, value in ctx.dump().items() if not key.startswith(machine)}
    context |= {f"{op_path}.{key}": value for key, value in wanted.context.items()}
    return StateOutcome(outcome.snapshot, ContinueAsNew(context, wanted.input))
