"""Transports that are functions: what they answer, what they say of effects, and what they look up."""

from __future__ import annotations

from datetime import timedelta

import pytest

import perdure
from perdure import (
    EffectNotMadeError,
    EffectTraits,
    IoCall,
    IoProvider,
    SideEffectKind,
    TransportEnv,
    TransportError,
)
from perdure.errors import Json
from perdure.testing import RunInMemory

KEYED = EffectTraits(is_effect=True, is_idempotent=True, key_lifetime=timedelta(hours=1))


def paying() -> perdure.Op[None, str]:
    """An operation that pays once."""
    pays = perdure.op("pays", output=str)

    @pays.state(side_effects=SideEffectKind.APPLY_SIDE_EFFECT, idempotency="pay")
    async def pay(io: IoProvider) -> str:
        return str((await io.call(IoCall("bank.pay", {"cents": 700}))).response)

    return pays


@pytest.mark.parametrize("is_async", [True, False])
def test_a_function_answers(perdure_run: RunInMemory, is_async: bool) -> None:
    """Also one that is not async, in a thread; the effect's key comes with the call."""
    keys: list[str | None] = []

    def pay(call: IoCall, env: TransportEnv) -> Json:
        keys.append(call.idempotency_key)
        return f"{call.request['cents']} for {env.state_id}"

    async def pay_async(call: IoCall, env: TransportEnv) -> Json:
        return pay(call, env)

    bank = perdure.transport("bank")(pay_async if is_async else pay)
    run = perdure_run(paying(), transports=[bank])
    assert run.result() == "700 for pays.main.pay"
    assert keys == [f"{run.id}:pays.main.pay:0"]


def test_a_service_that_honours_keys_is_asked_again(perdure_run: RunInMemory) -> None:
    """Its function's traits say so; the second call has the first one's key."""
    keys: list[str | None] = []

    @perdure.transport("bank", traits=KEYED)
    async def bank(call: IoCall, env: TransportEnv) -> Json:
        keys.append(call.idempotency_key)
        if len(keys) == 1:
            raise TransportError.of("line_dropped", "no answer came")
        return "receipt"

    assert perdure_run(paying(), transports=[bank]).result() == "receipt"
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_what_changes_the_world_must_be_declared(perdure_run: RunInMemory) -> None:
    """The function's traits say that it does, and the state does not."""

    @perdure.transport("bank", traits=KEYED)
    async def bank(call: IoCall, env: TransportEnv) -> Json:
        raise AssertionError

    careless = perdure.op("careless")

    @careless.state
    async def pay(io: IoProvider) -> None:
        await io.call(IoCall("bank.pay", {}, fact_key="paid"))

    assert "effect_not_declared" in str(perdure_run(careless, transports=[bank]).error)


@pytest.mark.parametrize(("was_paid", "calls"), [(True, 1), (False, 2)])
def test_a_function_that_looks_up_says_what_became_of_it(
    perdure_run: RunInMemory, was_paid: bool, calls: int
) -> None:
    """Nothing is paid twice: the payment is found, or it never was and is made now."""
    asked: list[str] = []

    @perdure.transport("bank")
    def bank(call: IoCall, env: TransportEnv) -> Json:
        asked.append("pay")
        if asked == ["pay"]:
            raise TransportError.of("line_dropped", "no answer came")
        return "receipt"

    @bank.looks_up
    async def find(call: IoCall, env: TransportEnv) -> Json:
        asked.append(f"find {call.idempotency_key is not None}")
        if not was_paid:
            raise EffectNotMadeError.of("not_paid", "there is no such payment")
        return "receipt found"

    run = perdure_run(paying(), transports=[bank])
    assert run.result() == ("receipt found" if was_paid else "receipt")
    assert asked == ["pay", "find True", "pay"][: calls + 1]


def test_looking_up_is_not_promised_without_a_function() -> None:
    """The decorator says it, and nothing else."""
    with pytest.raises(ValueError, match=r"@<transport>\.looks_up"):
        perdure.transport("bank", traits=EffectTraits(looks_up=True))
