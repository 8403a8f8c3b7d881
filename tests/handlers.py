"""Plans of handlers, one after the other, and what drives them."""

from __future__ import annotations

from datetime import timedelta

from perdure import Engine, ExecutionPlan, RunResult, Stores
from perdure.stores.reading import read_json
from tests.support import CountingTransport, FixedResolver, Handler, InstantClock, Scripted, plan_of


def engine_of(*handlers: tuple[str, Handler], transport: CountingTransport | None = None) -> Engine:
    """An engine that knows one plan, whose clock jumps, and that parks every wait."""
    return Engine(
        FixedResolver(plan(*handlers)),
        transports=transport or CountingTransport(),
        clock=InstantClock(),
        park_after=timedelta(),
    )


def plan(*handlers: tuple[str, Handler]) -> ExecutionPlan:
    """Each follows the one before it."""
    return plan_of(*((name, Scripted(handler)) for name, handler in handlers))


async def context_of(stores: Stores, result: RunResult) -> dict[str, object]:
    """What the run has come to."""
    assert result.final_snapshot_id is not None
    return dict((await read_json(stores.artifacts, result.final_snapshot_id))[0])
