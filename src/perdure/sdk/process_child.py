"""What runs in a worker process: one call of one function, told on standard input, answered on a pipe.

Kept apart from what starts it, which this does not need.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import threading
import typing
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec

from perdure.canonical import CanonicalJsonError, canonical_json_bytes
from perdure.engine.attempt import info_of
from perdure.errors import ErrorCategory, Json, StateError
from perdure.sdk.states import StateDefinition
from perdure.sdk.values import UNTYPED, Codec

Function = Callable[..., Any]


class Call(msgspec.Struct):
    """Which function is called, and its arguments as JSON data."""

    module: str
    qualname: str
    positional: list[Any]
    named: dict[str, Any]


def named_function(module: str, qualname: str) -> Function:
    """The function of this name, past the decorator that made it a state; or ``LookupError``."""
    try:
        found: Any = importlib.import_module(module)
        for name in qualname.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError, ValueError) as error:
        raise LookupError(str(error)) from error
    function = found.function if isinstance(found, StateDefinition) else found
    if not callable(function):
        raise LookupError(f"{module}.{qualname} is no function")
    return typing.cast(Function, function)


def answer_to(call: Call) -> bytes:
    """What the call came to, as canonical JSON: ``{"value": …}`` or ``{"error": …}``."""
    try:
        function = named_function(call.module, call.qualname)
        codecs = Codecs(function)
        result = function(
            *(codecs.at(index).from_json(data) for index, data in enumerate(call.positional)),
            **{name: codecs.named(name).from_json(data) for name, data in call.named.items()},
        )
        return _written({"value": codecs.named("return").to_json(result)})
    except BaseException as error:  # noqa: BLE001 — whatever the function raises is its answer
        return _written({"error": info_of(error).to_json()})


class Codecs:
    """How a function's parameters are written, and its result, which is called ``return``."""

    def __init__(self, function: Function) -> None:
        self.parameters = inspect.signature(function).parameters
        self._names = list(self.parameters)
        hints = typing.get_type_hints(inspect.unwrap(function), include_extras=True)
        self._codecs = {name: Codec(hint) for name, hint in hints.items() if hint is not type(None)}

    def named(self, name: str) -> Codec:
        """That of a name."""
        return self._codecs.get(name, _UNTYPED)

    def at(self, index: int) -> Codec:
        """That of a parameter's place."""
        return self.named(self._names[index])


_UNTYPED = Codec(UNTYPED)


def _written(answer: Json) -> bytes:
    try:
        return canonical_json_bytes(answer)
    except CanonicalJsonError as error:
        refused = StateError.of(
            error.code,
            f"the result cannot be recorded: {error.info.message}",
            category=ErrorCategory.PARSING_INPUT,
            hint=error.hint,
        )
        return canonical_json_bytes({"error": refused.info.to_json()})


def main() -> None:
    """Answer the one call on standard input, and end with whoever made it."""
    asked, answers = sys.stdin.buffer, os.dup(1)
    os.dup2(2, 1)  # what the function prints is for people
    call = msgspec.json.decode(asked.read(int(asked.readline())), type=Call)
    threading.Thread(target=_end_with, args=(asked,), daemon=True).start()
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 — kept until the end
    answer = answer_to(call)
    sys.stdout.flush()
    with os.fdopen(answers, "wb") as pipe:
        pipe.write(answer)
    os._exit(0)  # threads that the function has left are not waited for


def _end_with(asked: BinaryIO) -> None:
    asked.read()
    os._exit(1)
