"""Results: what a state gives, and what a run gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import perdure
from perdure import RunError, Stores, op, state
from perdure.sdk import StateDefinition
from tests.unit.sdk import failure_of, result_of


@dataclass
class Receipt:
    """An output with the names of two states."""

    cents: int
    text: str


async def test_nothing_is_a_result_where_it_is_typed_as_one() -> None:
    """``-> None`` has no result; ``-> int | None`` has one; without an annotation it depends."""
    silent, optional, untyped = op("silent"), op("optional"), op("untyped")

    @silent.state
    async def act() -> None:
        """A state for its effect."""

    @optional.state
    async def found() -> int | None:
        return None

    @untyped.state
    async def either(input):  # type: ignore[no-untyped-def]  # noqa: A002 — that is the point
        return input

    assert silent.exports == ()
    assert await result_of(silent) == {}
    assert optional.exports == ("found",)
    assert await result_of(optional) is None
    assert await result_of(untyped) is None
    assert await result_of(untyped, 7) == 7


async def test_results_by_name() -> None:
    """Several exports come as a dictionary, or as the output's type; ``exports`` chooses them."""

    @state
    async def cents() -> int:
        return 450

    @state
    async def text(input: int) -> str:  # noqa: A002 — the term
        return f"{input}"

    states: list[StateDefinition[..., Any, Any]] = [cents, text]
    assert await result_of(op("both", states=states), 7) == {"cents": 450, "text": "7"}
    assert await result_of(op("typed", output=Receipt, states=states), 7) == Receipt(450, "7")
    assert await result_of(op("chosen", exports=["cents"], states=states), 7) == 450


async def test_a_result_that_cannot_be_recorded_fails_its_state() -> None:
    """``result_invalid`` for what has no JSON form; a float is refused by the context."""
    strange, inexact = op("strange"), op("inexact")

    @strange.state
    async def thing():  # type: ignore[no-untyped-def]  # that is the point
        return object()

    @inexact.state
    async def share() -> Any:
        return 0.5

    code, message = await failure_of(strange)
    assert code == "result_invalid"
    assert "thing returned a object, not Any: a object has no JSON form" in message
    assert (await failure_of(inexact))[0] == "context_not_canonical"


async def test_a_result_of_another_type_fails_its_state() -> None:
    """Not the state that takes it, and not the caller."""
    wrong = op("wrong")

    @wrong.state
    async def count() -> int:
        return "three"  # type: ignore[return-value]  # that is the point

    code, message = await failure_of(wrong)
    assert code == "result_invalid"
    assert message.endswith("count returned a str, not int: Expected `int`, got `str`")


async def test_what_was_recorded_with_other_types_is_an_error() -> None:
    """For whoever reads it with today's code."""
    stores = Stores.in_memory()
    then, now = op("count"), op("count", output=int)

    @then.state
    async def count() -> str:
        return "three"

    async def counted() -> int:
        return 3

    counted.__name__ = "count"
    now.state(counted)
    async with perdure.open(stores, then) as p:
        run_id = (await (await p.start(then)).wait()).run_id
    async with perdure.open(stores, now) as p:
        with pytest.raises(RunError, match="result_mistyped"):
            await (await p.get(run_id, now)).result()
