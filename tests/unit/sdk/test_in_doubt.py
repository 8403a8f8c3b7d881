"""Saying what became of an effect: of the doubt that was looked into, and not before anybody can know."""

from __future__ import annotations

import asyncio

import pytest

import perdure
from perdure import (
    DomainEvent,
    EffectTraits,
    IoCall,
    IoProvider,
    RunError,
    SideEffectKind,
    Stores,
    TransportEnv,
)
from perdure.errors import Json, TransportError
from perdure.model.events import WAIT_STARTED
from perdure.sdk import App
from perdure.sdk.runs import Run

pays = perdure.op("pays", output=str)


@pays.state(side_effects=SideEffectKind.APPLY_SIDE_EFFECT)
async def pay(io: IoProvider) -> str:
    """Pay once."""
    return str((await io.call(IoCall("bank", {"cents": 7}, idempotency_key="bill-17"))).response)


async def wait_begun(run: Run[str], number: int) -> None:
    """Wait until the run has begun so many waits."""
    async for envelope in run.events():
        number -= isinstance(envelope.event, DomainEvent) and envelope.event.name == WAIT_STARTED
        if not number:
            return


async def test_a_word_names_the_doubt_that_was_looked_into() -> None:
    """It is refused while the effect may be under way, and for a doubt that is over."""
    asked, dropping = asyncio.Event(), asyncio.Event()

    @perdure.transport("bank", traits=EffectTraits(is_effect=True))
    async def bank(call: IoCall, env: TransportEnv) -> Json:
        asked.set()
        await dropping.wait()
        raise TransportError.of("line_dropped", "no answer came")

    async with perdure.open(Stores.in_memory(), App([pays], transports=[bank])) as p:
        run = await p.start(pays)
        await asked.wait()
        with pytest.raises(RunError, match="effect_under_way"):
            await run.effect_happened("bill-17", "receipt", by="ann", why="it must have")
        for doubt in (1, 2):
            dropping.set()
            await wait_begun(run, doubt)
            assert [effect.intents for effect in await run.in_doubt()] == [doubt]
            for other in {1, 2, 3} - {doubt}:
                with pytest.raises(RunError, match="effect_not_in_doubt"):
                    await run.effect_happened("bill-17", "other", by="ann", why="?", doubt=other)
            if doubt == 1:
                await run.effect_did_not_happen("bill-17", by="ann", why="looked", doubt=doubt)
        await run.effect_happened("bill-17", "receipt", by="ann", why="looked", doubt=2)
        assert await run.result() == "receipt"
