"""The outside world, pretended: a bank that honours idempotency keys, and a board for notices."""

from __future__ import annotations

import hashlib

from perdure import EffectTraits, IoCall, TransportEnv, transport


@transport("bank", traits=EffectTraits(is_effect=True, is_idempotent=True))
async def bank(call: IoCall, env: TransportEnv) -> dict[str, str]:
    """Give one receipt for one key, however often it is asked."""
    key = str(call.idempotency_key)
    return {"receipt": hashlib.sha256(key.encode()).hexdigest()[:8]}


@transport("notices")
async def notices(call: IoCall, env: TransportEnv) -> dict[str, str]:
    """Say that the notice was put up."""
    return {"told": str(call.request["to"])}
