"""Functions as states of a plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from perdure.errors import ContextError, ErrorCategory, Json, StateError
from perdure.ids import StateId
from perdure.model.handler import Context, IoProvider, Recorder, StateOutcome
from perdure.model.meta import StateMeta
from perdure.sdk.binding import NO_DEFAULT, Argument, BoundState, Origin
from perdure.sdk.blocking_io import BlockingIo, BlockingRecorder, in_thread
from perdure.sdk.continuing import Continued, outcome_of
from perdure.sdk.processes import call_in_process
from perdure.sdk.spawning import SPAWNER, Spawner
from perdure.sdk.values import UNTYPED


class FunctionState:
    """A function as a state of a plan: arguments in, result out."""

    def __init__(
        self,
        bound: BoundState,
        state_id: StateId,
        given: Json,
        config: Json,
        input_json: Callable[[Any], Json],
        *,
        says_writes: bool = False,
    ) -> None:
        self._bound = bound
        self._input_json = input_json
        self._meta = bound.definition.meta
        if says_writes:
            self._meta = msgspec.structs.replace(self._meta, writes=bound.writes)
        self._state_id = state_id
        self._given = given
        self._config = config

    def meta(self) -> StateMeta:
        return self._meta

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        definition = self._bound.definition
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for argument in self._bound.arguments:
            value = self._value(argument, ctx, io, rec)
            if argument.is_positional:
                args.append(value)
            else:
                kwargs[argument.name] = value
        SPAWNER.set(Spawner(io, self._state_id))
        try:
            if definition.is_async:
                result = await definition.function(*args, **kwargs)
            elif definition.in_process:
                result = await call_in_process(definition.function, args, kwargs)
            else:
                result = await in_thread(definition.function, args, kwargs)
        except Continued as wanted:
            return outcome_of(wanted, self._input_json)
        codec = self._bound.result
        if codec is None or (result is None and codec.annotation is UNTYPED):
            return None
        try:
            data = codec.to_json(result)
            codec.from_json(data)  # what is of another type is its author's mistake, not its reader's
        except (TypeError, ValueError) as error:
            raise StateError.of(
                "result_invalid",
                f"{definition.name} returned a {type(result).__name__}, not {codec.name}: {error}",
                category=ErrorCategory.PARSING_INPUT,
            ) from error
        ctx.write(definition.name, data)
        return None

    def _value(self, argument: Argument, ctx: Context, io: IoProvider, rec: Recorder) -> Any:
        match argument.origin:
            case Origin.TOOL:
                return _tool(argument.key, ctx, io, rec)
            case Origin.INPUT:
                data = self._given
            case Origin.CONFIG:
                data = self._config
            case _:
                data = _read(argument, ctx)
        if data is None and argument.default is not NO_DEFAULT:
            return argument.default
        try:
            return argument.codec.from_json(data)
        except ValueError as error:
            if argument.origin is Origin.STATE and data is None and argument.key not in ctx.dump():
                raise StateError.of(
                    "result_missing",
                    f"{self._bound.definition.name} takes {argument.name} as {argument.codec.name}, "
                    f"and {argument.key} has left no result: it did not complete, or was skipped",
                    category=ErrorCategory.CONTEXT,
                ) from error
            raise StateError.of(
                "argument_invalid",
                f"{self._bound.definition.name} takes {argument.name} as {argument.codec.name}: {error}",
                category=ErrorCategory.PARSING_INPUT,
            ) from error


def _read(argument: Argument, ctx: Context) -> Json:
    try:
        return ctx.read(argument.key)
    except ContextError as error:
        if error.code != "unsatisfied_import" or argument.default is NO_DEFAULT:
            raise
        return None


def _tool(key: str, ctx: Context, io: IoProvider, rec: Recorder) -> Any:
    match key:
        case "ctx":
            return ctx
        case "io":
            return io
        case "rec":
            return rec
        case "blocking_io":
            return BlockingIo(io, asyncio.get_running_loop())
        case _:
            return BlockingRecorder(rec, asyncio.get_running_loop())
