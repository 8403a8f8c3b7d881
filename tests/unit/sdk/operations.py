"""Operations for tests of clients."""

from __future__ import annotations

import asyncio
from typing import Any

from perdure import Context, IoProvider, Recorder, StateError, StateMeta, op
from perdure.errors import ErrorCategory, ErrorInfo, Json
from perdure.ids import OpId, OpPath, StateId
from perdure.model.plan import StateGraph, StateNode
from perdure.sdk import Op
from tests.support import Scripted

doubles = op("doubles", input=int, output=int)
fails = op("fails")


@doubles.state
async def double(input: int) -> int:  # noqa: A002 — the term
    """Twice the input."""
    return 2 * input


@fails.state
async def broken() -> int:
    """It never works."""
    raise StateError(ErrorInfo("declined", ErrorCategory.OFF_CHAIN, False, "no luck"))


class Gate:
    """An operation of one state, which doubles its input once the gate is open."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.times = 0
        self.operation: Op[int, int] = op("gated", input=int, output=int)

        @self.operation.state
        async def gated(input: int) -> int:  # noqa: A002 — the term
            self.times += 1
            self.entered.set()
            await self.open.wait()
            return 2 * input


class HandMade:
    """An ``Operation`` without any decorator: one state, which keeps the input."""

    op_version = "1"
    exports = ("seen",)

    def __init__(self, name: str) -> None:
        self.op_id = OpId(name)

    @property
    def imports(self) -> tuple[str, ...]:
        return ()

    def expand(self, op_path: OpPath, config: Json, input: Json) -> StateGraph:  # noqa: A002 — the term
        async def keep(ctx: Context, io: IoProvider, rec: Recorder) -> Any:
            ctx.write("seen", input)

        return StateGraph([StateNode(StateId(f"{op_path}.keep"), Scripted(keep, StateMeta()))])
