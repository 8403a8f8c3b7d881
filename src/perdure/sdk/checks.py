"""Calls with arguments of the wrong kind, refused where they are made and not where they would be used."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, NoReturn

from perdure.errors import ErrorCategory, InvalidPlanError
from perdure.sdk.mistakes import Place


def expect(value: object, kinds: type | tuple[type, ...], what: str, wanted: str) -> None:
    """Raise ``InvalidPlanError`` (``call_invalid``) unless ``value`` is of one of ``kinds``."""
    if not isinstance(value, kinds):
        refuse_call(value, what, wanted)


def expect_many(values: object, kinds: type | tuple[type, ...], what: str, wanted: str) -> None:
    """As :func:`expect`, for each of several; a string is not several strings."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        refuse_call(values, what, f"a list of {wanted}")
    for value in values:
        expect(value, kinds, f"each of {what}", f"one of {wanted}")


def expect_mapping(values: Any, kinds: type | tuple[type, ...], what: str, wanted: str) -> None:
    """As :func:`expect`, for the values of a mapping, whose keys are strings."""
    expect(values, Mapping, what, f"a dict of {wanted}")
    for key, value in values.items():
        expect(key, str, f"each key of {what}", "a string")
        expect(value, kinds, f"each value of {what}", f"one of {wanted}")


def expect_key(key: object, what: str) -> None:
    """As :func:`expect`, for an invocation key, which may be absent."""
    expect(key, (str, NoneType), what, "a string")
    if key == "":
        refuse_call(key, what, "more than an empty string, with which all runs would be one")


def refuse_call(value: object, what: str, wanted: str) -> NoReturn:
    """Raise ``InvalidPlanError`` (``call_invalid``): ``what`` is to be ``wanted``, and is not."""
    raise InvalidPlanError.of(
        "call_invalid",
        f"{what} is to be {wanted}, and is of type {type(value).__name__}, at {_place_of_caller()}",
        category=ErrorCategory.PARSING_INPUT,
    )


def _place_of_caller() -> Place:
    """The line outside of this package that called."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("perdure."):
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno)
