"""Arguments of the wrong kind, refused where they are given: what was expected, and what came instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import NoReturn, TypeVar

T = TypeVar("T")


def expect(value: object, kinds: type | tuple[type, ...], what: str, wanted: str) -> None:
    """Raise ``TypeError`` unless ``value`` is of one of ``kinds``; True and False are no numbers."""
    if not isinstance(value, kinds) or (kinds is int and isinstance(value, bool)):
        _refuse(value, what, wanted)


def expect_unless_none(value: object, kinds: type | tuple[type, ...], what: str, wanted: str) -> None:
    """As :func:`expect`; None is fine."""
    if value is not None:
        expect(value, kinds, what, f"{wanted} or None")


def expect_duration(value: object, what: str) -> None:
    """Raise ``TypeError`` unless ``value`` is a timedelta, ``ValueError`` if it is negative."""
    if not isinstance(value, timedelta):
        _refuse(value, what, "a datetime.timedelta")
    if value < timedelta():
        raise ValueError(f"{what} is not to be negative, and is {value}")


def expect_many(values: Iterable[T], kinds: type | tuple[type, ...], what: str, wanted: str) -> tuple[T, ...]:
    """The ``values``; ``TypeError`` if one is not of ``kinds``. A string is not several strings."""
    # Cheap where all is well: states are asked for their meta time and again.
    if type(values) is not tuple and type(values) is not list:
        if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
            _refuse(values, what, f"a list of {wanted}")
        values = tuple(values)
    for value in values:
        if not isinstance(value, kinds):
            _refuse(value, f"each of {what}", f"one of {wanted}")
    return tuple(values)


def expect_methods(value: object, names: Iterable[str], what: str, wanted: str) -> None:
    """Raise ``TypeError`` unless ``value`` has these methods; a class is not one of its objects."""
    if isinstance(value, type):
        raise TypeError(f"{what} is to be {wanted}, and is the class {value.__qualname__} itself")
    for name in names:
        if not callable(getattr(value, name, None)):
            break
    else:
        return
    _refuse(value, what, f"{wanted} (with {', '.join(f'{name}()' for name in names)})")


def _refuse(value: object, what: str, wanted: str) -> NoReturn:
    raise TypeError(f"{what} is to be {wanted}, and is of type {type(value).__qualname__}")
