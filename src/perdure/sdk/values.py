"""Typed values to JSON and back: msgspec structs, dataclasses and everything built in, or pydantic models."""

from __future__ import annotations

import datetime
import types
import typing
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import msgspec

from perdure.errors import Json

UNTYPED = object()
"""The annotation of what bears none."""


class Codec:
    """Converts the values of one annotation. What is not annotated goes in and out as JSON data."""

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation
        self._is_json = annotation in (UNTYPED, Any, object)

    def to_json(self, value: Any) -> Json:
        """``value`` as JSON data. Raises ``TypeError`` or ``ValueError`` for what has no JSON form."""
        if type(value) in _PLAIN:
            return value
        if self._pydantic is not None:
            return self._pydantic.dump_python(value, mode="json", round_trip=True, warnings="error")
        return msgspec.to_builtins(value, order="deterministic", str_keys=True, enc_hook=_dump_model)

    def from_json(self, data: Json) -> Any:
        """The value of ``data``. Raises ``ValueError`` with what was expected, and where in the data."""
        if self._is_json:
            return data
        if self._pydantic is not None:
            # As JSON text: strict models take dates and the like from nothing else. Kept by their own names.
            return self._pydantic.validate_json(msgspec.json.encode(data), by_alias=True, by_name=True)
        return msgspec.convert(data, self.annotation, str_keys=True, dec_hook=_load_model)

    @property
    def name(self) -> str:
        """The annotation, as its author wrote it."""
        if self._is_json:
            return "Any"
        if isinstance(self.annotation, type) and not typing.get_args(self.annotation):
            return self.annotation.__name__
        return str(self.annotation).replace("typing.", "").replace("NoneType", "None")

    @cached_property
    def problem(self) -> str | None:
        """Why values of this annotation cannot be recorded, in words; None if they can."""
        if any(isinstance(kind, msgspec.inspect.FloatType) for kind in self._parts):
            return "a float has no exact form in a record; use Decimal, a smaller unit as int, or str"
        return self.unsupported

    @cached_property
    def unsupported(self) -> str | None:
        """Why no value of this annotation has a JSON form, in words; None if they have."""
        if isinstance(self._parts, str):
            return self._parts
        for kind in self._parts:
            if isinstance(kind, msgspec.inspect.CustomType) and not _is_model(kind.cls):
                return f"{kind.cls.__name__} is no dataclass, msgspec.Struct, pydantic model or built-in type"
        return None

    @cached_property
    def _parts(self) -> list[Any] | str:
        """The types that the annotation is made of, as far as msgspec is to know them; or why it cannot."""
        if self._is_json or self._pydantic is not None:
            return []
        try:
            return list(_kinds(msgspec.inspect.type_info(self.annotation), set()))
        except (TypeError, NameError) as error:
            return f"{self.name} cannot be written as JSON: {error}"

    @cached_property
    def _pydantic(self) -> Any:
        if not any(map(_is_model, _leaves(self.annotation))):
            return None
        from pydantic import TypeAdapter  # the annotation is a model's, so the package is there

        return TypeAdapter(self.annotation)


_PLAIN = frozenset({str, int, bool, type(None)})


def accepts(wanted: Any, given: Any) -> bool:
    """Whether a parameter of one annotation may take values of another, as far as one can tell."""
    wanted, given = _without_metadata(wanted), _without_metadata(given)
    if wanted == given or any(each in (UNTYPED, Any, object) for each in (wanted, given)):
        return True
    wanted_members, given_members = _members(wanted), _members(given)
    if len(wanted_members) > 1 or len(given_members) > 1:
        return all(any(accepts(each, one) for each in wanted_members) for one in given_members)
    wanted_origin, given_origin = (typing.get_origin(each) or each for each in (wanted, given))
    if not (isinstance(wanted_origin, type) and isinstance(given_origin, type)):
        return True
    if (given_origin, wanted_origin) in _SUBCLASSES_OF_ANOTHER_SHAPE:
        return False
    try:
        is_subclass = issubclass(given_origin, wanted_origin)
    except TypeError:  # a TypedDict, or a protocol that cannot be asked
        return True
    if not is_subclass:
        # A value travels as JSON, so what has one shape there may be read as another type.
        return given_origin is dict and wanted_origin not in _SCALARS
    arguments = typing.get_args(wanted), typing.get_args(given)
    return len(arguments[0]) != len(arguments[1]) or all(map(accepts, *arguments))


_SCALARS = frozenset({str, int, bool, bytes, list, tuple, set, frozenset})
_SUBCLASSES_OF_ANOTHER_SHAPE = frozenset({(bool, int), (datetime.datetime, datetime.date)})


def _without_metadata(annotation: Any) -> Any:
    return annotation.__origin__ if typing.get_origin(annotation) is typing.Annotated else annotation


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _leaves(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in typing.get_args(annotation):
        yield from _leaves(argument)


def _kinds(kind: Any, seen: set[type]) -> Iterator[Any]:
    """All types that a type is made of."""
    yield kind
    owner = getattr(kind, "cls", None)
    if owner is not None:
        if owner in seen:
            return
        seen.add(owner)
    children = [getattr(kind, name, None) for name in ("item_type", "key_type", "value_type", "type")]
    children += [*getattr(kind, "item_types", ()), *getattr(kind, "types", ())]
    children += [field.type for field in getattr(kind, "fields", ())]
    for child in children:
        if isinstance(child, msgspec.inspect.Type):
            yield from _kinds(child, seen)


def _is_model(kind: Any) -> bool:
    return hasattr(kind, "__pydantic_validator__")


def _load_model(kind: Any, data: Any) -> Any:
    if not _is_model(kind):
        raise TypeError(f"a {kind.__name__} has no JSON form")
    return kind.model_validate_json(msgspec.json.encode(data), by_alias=True, by_name=True)


def _dump_model(value: Any) -> Any:
    dump: Callable[..., Any] | None = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"a {type(value).__name__} has no JSON form")
    return dump(mode="json", round_trip=True)
