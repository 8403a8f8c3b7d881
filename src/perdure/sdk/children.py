"""Child runs for authors: spawned and awaited by the functions that are states."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar, overload

import msgspec

from perdure.errors import ErrorCategory, Json, StateError
from perdure.ids import ArtifactId, RunId
from perdure.io.children import AWAIT, AWAIT_V1, SPAWN, SPAWN_V1
from perdure.model.config import RunConfig
from perdure.model.events import RunStatus
from perdure.model.handler import IoCall
from perdure.model.pipeline import MAIN_STEP
from perdure.sdk.checks import expect, expect_mapping, refuse_call
from perdure.sdk.execution import configured
from perdure.sdk.ops import Op
from perdure.sdk.spawning import SPAWNER, Spawner

In = TypeVar("In")
Out = TypeVar("Out")

Close = Literal["await", "cancel", "abandon"]


class ChildEnd(msgspec.Struct, frozen=True):
    """How a child run ended.

    ``context`` is its last snapshot. Of one that has not completed, ``error_code`` is the code of the error
    that ended it, and ``state_id`` the state that it is about.
    """

    run_id: RunId
    status: RunStatus
    context: dict[str, Any]
    error_code: str | None = None
    state_id: str | None = None


class ChildRunError(StateError):
    """A child run has not completed. The code is that of the error which ended it; ``end`` tells the rest."""

    end: ChildEnd


class ChildRun(Generic[Out]):
    """A child run, as the state that spawned it sees it."""

    def __init__(
        self, op: Op[Any, Out], run_id: RunId, manifest_id: ArtifactId, spawner: Spawner, key: str
    ) -> None:
        self.id = run_id
        self._op = op
        self._manifest_id = manifest_id
        self._spawner = spawner
        self._key = key

    def __repr__(self) -> str:
        return f"<child run {self.id} of {self._op.op_id}>"

    async def end(self) -> ChildEnd:
        """Wait until the child has ended, however it ends. Raises ``IoError``."""
        request: Json = {
            "kind": AWAIT_V1,
            "child_run_id": self.id,
            "child_manifest_id": self._manifest_id,
        }
        answer = (await self._spawner.io.call(IoCall(AWAIT, request, f"await:{self._key}"))).response
        error = answer.get("error") or {}
        return ChildEnd(
            self.id,
            RunStatus(answer["status"]),
            answer["final_snapshot"] or {},
            error.get("code"),
            error.get("state_id"),
        )

    async def result(self) -> Out:
        """Wait for the end, and give what the child exports, as ``Run.result()`` does.

        Raises :class:`ChildRunError` if it failed or was cancelled.
        """
        end = await self.end()
        if end.status is not RunStatus.COMPLETED:
            where = "" if end.state_id is None else f" in {end.state_id}"
            error = ChildRunError.of(
                end.error_code or "child_run_failed",
                f"child run {self.id} {end.status.value.lower()}{where}",
                details={"child_run_id": self.id, "state_id": end.state_id},
            )
            error.end = end
            raise error
        prefix = f"{self._op.op_id}.{MAIN_STEP}."
        exports = {key: end.context[prefix + key] for key in self._op.exports if prefix + key in end.context}
        return self._op.result_of(exports)


async def spawn(
    op: Op[In, Out],
    input: In | None = None,  # noqa: A002 — the term
    *,
    name: str | None = None,
    close: Close = "await",
    config: Any = None,
    run_config: RunConfig | None = None,
    context: Mapping[str, Json] | None = None,
) -> ChildRun[Out]:
    """Start a run of ``op`` as a child of the run whose state calls this; it is durably there on return.

    However often the state is tried, it is one child. It is known by ``name``, or else by how many children
    of this operation the state has spawned before: give names where that order may change. ``close`` says
    what becomes of it when the parent ends first: the parent waits, tells it to stop, or leaves it alone.

    Raises before anything of the child exists: ``IoError`` (``op_not_found``, ``child_run_too_deep``, and
    others as ``Client.start``), ``StateError`` (``spawn_outside_state``).
    """
    expect(op, Op, "what spawn(…) starts", "an operation, made by perdure.op")
    if close not in ("await", "cancel", "abandon"):
        refuse_call(close, "spawn(close=…)", "await, cancel or abandon")
    expect_mapping(context or {}, object, "spawn(context=…)", "JSON values")
    spawner = SPAWNER.get()
    if spawner is None:
        raise StateError.of(
            "spawn_outside_state",
            "children are spawned by states, and this is called outside of one",
            category=ErrorCategory.PARSING_INPUT,
        )
    key = spawner.key_of(str(op.op_id), name)
    step = op.pipeline_of(config).steps[0]
    request: dict[str, Json] = {
        "kind": SPAWN_V1,
        "op_id": step.op_id,
        "op_version": step.op_version,
        "op_config": step.op_config,
        "input": op.input_json(input),
        "run_config": configured(run_config, op.execution).to_json(),
        "initial_context": None if context is None else dict(context),
    }
    if close != "await":
        request["close_policy"] = close
    answer = (await spawner.io.call(IoCall(SPAWN, request, f"child:{key}"))).response
    child, manifest = RunId(answer["child_run_id"]), ArtifactId(answer["child_manifest_id"])
    return ChildRun(op, child, manifest, spawner, key)


@overload
async def gather_children(
    op: Op[In, Out],
    inputs: Iterable[In],
    *,
    names: Sequence[str] | None = None,
    close: Close = "await",
    run_config: RunConfig | None = None,
    return_exceptions: Literal[False] = False,
) -> list[Out]: ...
@overload
async def gather_children(
    op: Op[In, Out],
    inputs: Iterable[In],
    *,
    names: Sequence[str] | None = None,
    close: Close = "await",
    run_config: RunConfig | None = None,
    return_exceptions: bool,
) -> list[Out | BaseException]: ...
async def gather_children(
    op: Op[In, Any],
    inputs: Iterable[In],
    *,
    names: Sequence[str] | None = None,
    close: Close = "await",
    run_config: RunConfig | None = None,
    return_exceptions: bool = False,
) -> list[Any]:
    """Have ``op`` run for each input, as children side by side, and give their results in the inputs' order.

    The engine executes as many at a time as it has places. All of them end before this returns or raises the
    first error; with ``return_exceptions`` errors stand among the results. ``names`` are the children's, as
    for :func:`spawn`.
    """
    given = list(inputs)
    if names is not None and len(names) != len(given):
        refuse_call(names, "gather_children(names=…)", "as many names as there are inputs")
    children = await asyncio.gather(
        *(
            spawn(op, each, name=None if names is None else names[index], close=close, run_config=run_config)
            for index, each in enumerate(given)
        )
    )
    results = await asyncio.gather(*(child.result() for child in children), return_exceptions=True)
    if not return_exceptions:
        for result in results:
            if isinstance(result, BaseException):
                raise result
    return results
