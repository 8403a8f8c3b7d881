"""One attempt at one state: the handler is called, and whatever it does becomes an outcome."""

from __future__ import annotations

import asyncio
import contextlib
import re
from datetime import timedelta

import msgspec

from perdure.clock import Clock
from perdure.engine.recorder import AttemptRecorder
from perdure.errors import ErrorCategory, ErrorInfo, IoError, PerdureError
from perdure.failpoints import Failpoints, FailpointStop
from perdure.io.live import LiveIo
from perdure.io.replay import ReplayIo
from perdure.io.scope import AttemptScope, Stopped, WorkLimit
from perdure.model.context import Snapshot, StagedContext
from perdure.model.handler import ContinueAsNew, State, StateOutcome
from perdure.model.meta import StateMeta
from perdure.secrets import text_may_hold_secret

REDACTED_MESSAGE = "error details redacted"
_CODE = re.compile("[a-z][a-z0-9_]{0,127}")
_MESSAGE_CHARACTERS_MAX = 1000
RETRY_AFTER_MS_MAX = 24 * 60 * 60 * 1000


class Completed(msgspec.Struct, frozen=True, gc=False):
    """The handler returned; the context is now this."""

    snapshot: Snapshot
    continuation: ContinueAsNew | None = None
    """As what the handler wants the run to go on."""


class Halted(msgspec.Struct, frozen=True):
    """The handler was stopped from outside: it is to be run again, or the run is to be cancelled."""

    why: Stopped


class Failed(msgspec.Struct, frozen=True):
    """The handler raised, or broke a rule. The snapshot is what it had staged, for a person to look at."""

    info: ErrorInfo
    snapshot: Snapshot | None
    retry_after: timedelta
    """How long the world asked to wait before the next try."""


async def execute(
    state: State,
    meta: StateMeta,
    ctx: StagedContext,
    io: LiveIo | ReplayIo,
    rec: AttemptRecorder,
    scope: AttemptScope,
    clock: Clock,
    failpoints: Failpoints,
) -> Completed | Failed | Halted:
    """Call the handler and say how it went.

    Raises what is not the handler's to decide: cancellation of the caller, failpoints, and errors of the
    store or of ownership, even where the handler swallowed them.
    """
    failpoints.hit("handler.before")
    base = ctx.base
    ended: BaseException | ErrorInfo | StateOutcome | None = None
    try:
        try:
            if meta.timeout is None:
                ended = _checked(await state.handle(ctx, io, rec))
            else:
                ended = await _within(meta.timeout, state, ctx, io, rec, scope, clock)
        except (FailpointStop, KeyboardInterrupt):
            raise
        except asyncio.CancelledError as error:
            is_asked_for = _is_being_cancelled()
            if is_asked_for and scope.stopped is None:
                raise
            ended = None if is_asked_for else error
        except BaseException as error:  # noqa: BLE001 — no exception of a handler leaves its attempt
            ended = error
        if scope.stopped is not None:
            await _take_back_cancellation(scope)
    finally:
        staged = ctx.snapshot()
        scope.close()
        left = io.close()
        if left:
            await asyncio.gather(*left, return_exceptions=True)
    if scope.fatal is not None:
        raise scope.fatal
    if scope.stopped is Stopped.STALE:
        ended = _missed_heartbeat(meta)
    elif scope.stopped is not None:
        return Halted(scope.stopped)
    failpoints.hit("handler.after")
    if ended is None:
        return Completed(staged)
    if isinstance(ended, StateOutcome):
        return Completed(staged, ended.continuation)
    info = ended if isinstance(ended, ErrorInfo) else info_of(ended)
    return Failed(info, None if staged is base else staged, retry_after(ended))


async def _take_back_cancellation(scope: AttemptScope) -> None:
    """Have the stint go on after the scope has cancelled the handler, unless somebody else cancels it too."""
    task = asyncio.current_task()
    if task is None:
        return
    for _ in range(scope.cancellations):
        task.uncancel()
    if not task.cancelling():
        # One that the handler never came to see is raised by the next thing that is waited for.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
    if task.cancelling():
        raise asyncio.CancelledError


async def _within(
    timeout: timedelta,
    state: State,
    ctx: StagedContext,
    io: LiveIo | ReplayIo,
    rec: AttemptRecorder,
    scope: AttemptScope,
    clock: Clock,
) -> ErrorInfo | StateOutcome | None:
    """Call the handler of a state that may work only so long."""
    limit = scope.work_limit = WorkLimit(timeout, clock)
    try:
        async with limit:
            outcome = await state.handle(ctx, io, rec)
    except TimeoutError:
        if limit.has_struck:
            return _timed_out(timeout)
        raise
    return _timed_out(timeout) if limit.is_exceeded else _checked(outcome)


def _checked(outcome: StateOutcome | None) -> ErrorInfo | StateOutcome | None:
    if outcome is None or isinstance(outcome, StateOutcome):
        return outcome
    return ErrorInfo(
        "state_outcome_invalid",
        ErrorCategory.PARSING_INPUT,
        False,
        f"a handler returns StateOutcome or None, not {type(outcome).__name__}",
    )


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _missed_heartbeat(meta: StateMeta) -> ErrorInfo:
    limit = meta.heartbeat_timeout
    return ErrorInfo(
        "heartbeat_missed", ErrorCategory.UNKNOWN, True, f"the handler gave no sign of life for {limit}"
    )


def _timed_out(timeout: timedelta) -> ErrorInfo:
    return ErrorInfo("state_timeout", ErrorCategory.UNKNOWN, True, f"the state worked longer than {timeout}")


def info_of(error: BaseException) -> ErrorInfo:
    """What is kept of a handler's error: never its details, and no message that may hold a secret."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, PerdureError):
        info = error.info
        code = str(info.code) if _CODE.fullmatch(info.code) else "handler_raised"
        return ErrorInfo(code, info.category, bool(info.retryable), presentable(str(info.message)))
    text = f"{type(error).__name__}: {error}" if _has_text(error) else type(error).__name__
    return ErrorInfo("handler_raised", ErrorCategory.UNKNOWN, False, presentable(text))


def retry_after(failure: BaseException | ErrorInfo) -> timedelta:
    """The delay that an ``IoError`` carries in its details as ``retry_after_ms``."""
    details = failure.info.details if isinstance(failure, IoError) else None
    asked = details.get("retry_after_ms") if isinstance(details, dict) else None
    if type(asked) is not int or asked <= 0:
        return timedelta()
    return timedelta(milliseconds=min(asked, RETRY_AFTER_MS_MAX))


def _has_text(error: BaseException) -> bool:
    try:
        return bool(str(error))
    except Exception:  # noqa: BLE001 — an error whose text cannot be made has none
        return False


def presentable(message: str) -> str:
    """``message`` as it may be written: shortened, and replaced as a whole if it may hold a secret."""
    text = message.encode("utf-8", "replace").decode()
    if len(text) > _MESSAGE_CHARACTERS_MAX:
        text = text[:_MESSAGE_CHARACTERS_MAX] + "…"
    return REDACTED_MESSAGE if text_may_hold_secret(text) else text
