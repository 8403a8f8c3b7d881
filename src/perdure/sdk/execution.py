"""Whether a run's states are executed one at a time or side by side, and who says so."""

from __future__ import annotations

from types import NoneType

import msgspec

from perdure.model.config import ExecutionMode, FanOutJoin, RunConfig, Sequential
from perdure.sdk.checks import expect


def check_execution(execution: object, what: str) -> None:
    """Raise ``InvalidPlanError`` (``call_invalid``) for what is no way to execute states."""
    expect(execution, (FanOutJoin, Sequential, NoneType), what, "FanOutJoin(…) or Sequential()")


def configured(config: RunConfig | None, execution: ExecutionMode | None) -> RunConfig:
    """The configuration of a run of what asks for ``execution``; ``FanOutJoin`` in ``config`` goes before."""
    config = config or RunConfig()
    if execution is None or isinstance(config.execution_mode, FanOutJoin):
        return config
    return msgspec.structs.replace(config, execution_mode=execution)
