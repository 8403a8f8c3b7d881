"""A transport that answers from a script."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from perdure.errors import ErrorCategory, IoError, Json
from perdure.io.port import Transport, TransportEnv
from perdure.model.handler import IoCall


class InTurn:
    """One answer after the other; made by :func:`in_turn`."""

    def __init__(self, answers: tuple[Any, ...]) -> None:
        self.answers = list(answers)


def in_turn(*answers: Any) -> InTurn:
    """The first call gets the first answer, and so on; one call too many is an error."""
    return InTurn(answers)


class ScriptedTransport:
    """Serves every namespace from ``answers``, and keeps the calls in ``calls``.

    ``answers`` gives by namespace a JSON value, an exception to raise, a function of the ``IoCall``, async or
    not, that returns either, or several of these by :func:`in_turn`. Calls raise ``IoError``
    (``answer_missing``) where the script has none.
    """

    namespace_group = ""

    def __init__(self, answers: Mapping[str, Any] | None = None) -> None:
        self._answers = dict(answers or {})
        self.calls: list[IoCall] = []

    def make(self, env: TransportEnv) -> Transport:
        return self

    async def call(self, call: IoCall) -> Json:
        self.calls.append(call)
        if call.namespace not in self._answers:
            raise _missing(call, f"the script has no answer for {call.namespace}")
        answer = self._answers[call.namespace]
        if isinstance(answer, InTurn):
            if not answer.answers:
                raise _missing(call, f"the script has no more answers for {call.namespace}")
            answer = answer.answers.pop(0)
        if inspect.isroutine(answer):
            function: Callable[[IoCall], Any] = answer
            answer = function(call)
            if inspect.isawaitable(answer):
                answer = await answer
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _missing(call: IoCall, message: str) -> IoError:
    return IoError.of(
        "answer_missing",
        message,
        category=ErrorCategory.PARSING_INPUT,
        hint=f"give one: answers={{{call.namespace!r}: …}}",
        details={"namespace": call.namespace, "fact_key": call.fact_key},
    )
