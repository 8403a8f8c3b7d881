"""Inputs as a manifest keeps them, and results as a caller expects them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from perdure.errors import ErrorCategory, InvalidPlanError, Json, RunError
from perdure.sdk.mistakes import Mistake, Place
from perdure.sdk.values import UNTYPED, Codec, accepts


def typed_input(annotation: Any, given: Any) -> Json:
    """An input as JSON, checked against its type; given as a value of the type, or as its JSON form."""
    return checked_json(annotation, given, "input")


def checked_json(annotation: Any, given: Any, what: Literal["input", "configuration"]) -> Json:
    codec = Codec(UNTYPED if annotation is None else annotation)
    try:
        data = Codec(UNTYPED).to_json(given)  # of its own type: it may be JSON data already
        codec.from_json(data)
    except (TypeError, ValueError) as error:
        raise InvalidPlanError.of(
            "input_invalid" if what == "input" else "config_invalid",
            f"the {what} is to be {codec.name}: {error}",
            category=ErrorCategory.PARSING_INPUT,
        ) from error
    return data


def output_mistakes(output: Any, types: Mapping[str, Codec], place: Place) -> Iterator[Mistake]:
    """Whether a result of type ``output`` can be made of the exports, as :func:`typed_result` does it."""
    if output is None:
        return
    if Codec(output).unsupported:
        yield Mistake(
            "output_unsupported",
            f"a result cannot be made of its output type: {Codec(output).unsupported}",
            place,
            "give a type that has a JSON form",
        )
        return
    names, offered = ", ".join(types), Codec(dict)
    if len(types) == 1:
        (offered,) = types.values()
    if not accepts(output, offered.annotation):
        what = f"{names} returns {offered.name}" if len(types) == 1 else f"it exports {names or 'nothing'}"
        yield Mistake(
            "output_mistyped",
            f"its output is to be {Codec(output).name}, and {what}",
            place,
            "make the two annotations agree" if len(types) == 1 else "make it a dataclass with these fields",
        )


def typed_result(output: Any, types: Mapping[str, Codec], exports: Mapping[str, Json]) -> Any:
    """Exports as the value that a caller expects: one alone is the result itself.

    Raises ``RunError`` (``result_mistyped``) if they were recorded by code with other types.
    """
    try:
        return _typed_result(output, types, exports)
    except ValueError as error:
        raise RunError.of(
            "result_mistyped",
            f"what the run exports is not of the types of today's code: {error}",
            hint="`perdure run context RUN` shows it as it was recorded",
        ) from error


def _typed_result(output: Any, types: Mapping[str, Codec], exports: Mapping[str, Json]) -> Any:
    values: Any = {key: codec.from_json(exports.get(key)) for key, codec in types.items() if key in exports}
    if len(types) == 1:
        (key,) = types
        values = values.get(key)
        return values if output is None else Codec(output).from_json(exports.get(key))
    return values if output is None else Codec(output).from_json(dict(exports))
