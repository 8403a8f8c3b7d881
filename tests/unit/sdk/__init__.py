"""Writing operations, and running them from programs."""

from __future__ import annotations

from typing import Any

import pytest

import perdure
from perdure import App, RetryPolicy, RunConfig, RunError, Stores
from perdure.sdk import Op, PipelineDefinition
from tests.support import CountingTransport, InstantClock

ONCE = RunConfig(retry_policy=RetryPolicy(1))

Definition = Op[Any, Any] | PipelineDefinition[Any, Any]


async def result_of(definition: Definition, given: Any = None, **options: Any) -> Any:
    """The result of a run over stores in memory, with a transport for ``test`` and a clock that stands."""
    app = App([definition], transports=[CountingTransport()])
    async with perdure.open(Stores.in_memory(), app, clock=InstantClock()) as p:
        run = await p.start(definition, given, run_config=ONCE, **options)
        return await run.result()


async def failure_of(definition: Definition, given: Any = None, **options: Any) -> tuple[str, str]:
    """The code and the message with which the only attempt of a state fails."""
    with pytest.raises(RunError) as caught:
        await result_of(definition, given, **options)
    assert caught.value.code == "run_failed"
    return caught.value.info.details["code"], caught.value.info.message
