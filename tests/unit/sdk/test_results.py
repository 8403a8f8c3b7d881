"""Results: what a state gives, and what a run gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perdure import op, state
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
    assert "thing returned a object that cannot be recorded" in message
    assert (await failure_of(inexact))[0] == "context_not_canonical"
