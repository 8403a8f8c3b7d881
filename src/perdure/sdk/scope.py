"""Giving each step its own part of the context."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from perdure.errors import ContextError, Json
from perdure.ids import OpPath
from perdure.model.handler import Context, IoProvider, Recorder, State, StateOutcome
from perdure.model.meta import StateMeta
from perdure.sdk.continuing import scoped_outcome


class StepContext:
    """A step's view: it writes under its own name, and reads what it imports where that stands.

    ``imports`` maps a key to the exporter's whole key, or to None for a key of the initial context.
    """

    def __init__(self, ctx: Context, op_path: OpPath, imports: Mapping[str, str | None]) -> None:
        self._ctx = ctx
        self._prefix = f"{op_path}."
        self._imports = imports

    def read(self, key: str) -> Json:
        if key not in self._imports:
            return self._ctx.read(self._prefix + key)
        source = self._imports[key]
        if source is not None:
            return self._ctx.read(source)
        value = self._ctx.read(key)
        if value is None and key not in self._ctx.dump():
            raise ContextError.of(
                "unsatisfied_import",
                f"no step exports {key!r}, and the initial context does not hold it",
                details={"key": key, "op_path": self._prefix[:-1]},
            )
        return value

    def write(self, key: str, value: Json) -> None:
        self._ctx.write(self._prefix + key, value)

    def delete(self, key: str) -> None:
        self._ctx.delete(self._prefix + key)

    def dump(self) -> dict[str, Json]:
        start = len(self._prefix)
        return {key[start:]: value for key, value in self._ctx.dump().items() if key.startswith(self._prefix)}


class ScopedState:
    """A state of an operation, run in its step's part of the context."""

    def __init__(self, state: State, op_path: OpPath, imports: Mapping[str, str | None]) -> None:
        self._state = state
        self._op_path = op_path
        self._imports = imports
        self._meta = state.meta()
        if self._meta.writes is not None:
            writes = tuple(f"{op_path}.{key}" for key in self._meta.writes)
            self._meta = msgspec.structs.replace(self._meta, writes=writes)

    def meta(self) -> StateMeta:
        return self._meta

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        outcome = await self._state.handle(StepContext(ctx, self._op_path, self._imports), io, rec)
        return scoped_outcome(outcome, self._op_path, ctx) if isinstance(outcome, StateOutcome) else outcome

    def place_of(self, key: str) -> str:
        """The whole name of what the state reads as ``key``."""
        return self._imports.get(key, f"{self._op_path}.{key}") or key

    def imports(self, key: str) -> bool:
        """Whether the state's operation imports ``key``."""
        return key in self._imports
