"""Typed values to JSON and back."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal, Protocol, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import canonical_json_bytes
from perdure.canonical import decode
from perdure.sdk.values import UNTYPED, Codec, accepts


class Colour(enum.Enum):
    """Values of one kind."""

    RED = "red"
    BLUE = "blue"


class Mixed(enum.Enum):
    """Values of two kinds, which JSON cannot tell apart."""

    ONE = 1
    TWO = "two"


@dataclass
class Leaf:
    """A dataclass of everything."""

    name: str
    count: int = 0
    colour: Colour = Colour.RED
    when: datetime.datetime | None = None
    price: Decimal = Decimal(0)
    data: bytes = b""


class Tree(msgspec.Struct):
    """A struct of itself."""

    leaf: Leaf | None = None
    children: list[Tree] = []
    by_number: dict[int, Leaf] = {}


class Model(pydantic.BaseModel):
    """A strict model with an alias and a value that is computed."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid")

    when: datetime.datetime
    from_: str = pydantic.Field(alias="from")
    sizes: tuple[int, ...] = ()

    @pydantic.computed_field
    def size(self) -> int:
        """Not one of the fields."""
        return sum(self.sizes)


class Base64(pydantic.BaseModel):
    """A model with bytes of any kind."""

    model_config = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    data: bytes


@dataclass
class Envelope:
    """A dataclass around a model."""

    model: Model
    note: str = ""


@dataclass
class Share:
    """A dataclass with a float deep inside."""

    parts: dict[str, list[float | None]] = field(default_factory=dict)


class Plain:
    """A class that nobody can look into."""


class Named(TypedDict):
    """A dictionary of known keys."""

    name: str


class Sized(Protocol):
    """What cannot be asked about subclasses."""

    size: int


MOMENT = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)
LEAF = Leaf("a", 3, Colour.BLUE, MOMENT, Decimal("4.50"), b"\x00\xff")
MODEL = Model.model_validate({"when": MOMENT, "from": "here", "sizes": (1, 2)})


def there_and_back(annotation: Any, value: Any) -> Any:
    """The value after a stay in a store: through canonical bytes."""
    codec = Codec(annotation)
    assert codec.problem is None
    return codec.from_json(decode(canonical_json_bytes(codec.to_json(value))))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Leaf, LEAF),
        (Leaf, Leaf("only a name")),
        (Tree, Tree(LEAF, [Tree(), Tree(LEAF)], {1: LEAF, -2: LEAF})),
        (Model, MODEL),
        (Model | None, None),
        (list[Model], [MODEL]),
        (dict[str, Model], {"a": MODEL}),
        (Base64, Base64(data=b"\xff")),
        (Envelope, Envelope(MODEL)),
        (list[Envelope | None], [None, Envelope(MODEL, "x")]),
        (tuple[int, str], (1, "a")),
        (set[int], {3, 1, 2}),
        (frozenset[str], frozenset({"a"})),
        (dict[int, dict[Colour, list[int]]], {7: {Colour.RED: [1]}}),
        (dict[datetime.date, int], {datetime.date(2024, 2, 29): 1}),
        (datetime.timedelta, datetime.timedelta(minutes=1, microseconds=1)),
        (UUID, UUID(int=7)),
        (Decimal, Decimal("0.10")),
        (Literal["a", "b"], "b"),
        (Annotated[int, msgspec.Meta(ge=0)], 3),
        (Named, {"name": "Ada"}),
        (int | str | None, "x"),
        (Any, {"a": [1, None, True]}),
        (UNTYPED, [{"a": "b"}]),
    ],
)
def test_values_come_back(annotation: Any, value: Any) -> None:
    """Equal, and of their own type."""
    back = there_and_back(annotation, value)
    assert (type(back), back) == (type(value), value)


leaves = st.builds(
    Leaf,
    name=st.text(),
    count=st.integers(-(2**63), 2**63 - 1),
    colour=st.sampled_from(Colour),
    when=st.none() | st.datetimes(timezones=st.just(datetime.UTC)),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    data=st.binary(),
)
trees = st.recursive(
    st.builds(Tree, leaf=st.none() | leaves),
    lambda below: st.builds(
        Tree,
        leaf=st.none() | leaves,
        children=st.lists(below, max_size=3),
        by_number=st.dictionaries(st.integers(-(2**31), 2**31), leaves, max_size=2),
    ),
    max_leaves=8,
)


@given(trees)
def test_every_tree_comes_back(tree: Tree) -> None:
    """Whatever it is made of."""
    codec = Codec(Tree)
    assert codec.from_json(decode(canonical_json_bytes(codec.to_json(tree), secrets=None))) == tree


def test_what_is_not_annotated_passes_as_it_is() -> None:
    """Values become JSON data on the way out, and stay so on the way in."""
    untyped = Codec(UNTYPED)
    assert untyped.to_json({"leaf": Leaf("a"), "model": MODEL}) == {
        "leaf": {"name": "a", "count": 0, "colour": "red", "when": None, "price": "0", "data": ""},
        "model": {"when": "2024-02-29T12:30:00Z", "from_": "here", "sizes": [1, 2]},
    }
    assert untyped.from_json({"name": "a"}) == {"name": "a"}


@pytest.mark.parametrize(
    ("annotation", "data", "problem"),
    [
        (Leaf, {"count": 1}, "Object missing required field `name`"),
        (Leaf, {"name": "a", "count": "1"}, r"Expected `int`, got `str` - at `\$.count`"),
        (list[Model], [{"when": "never", "from": "x"}], "0.when"),
        (Envelope, {"model": {"when": 7}}, "when"),
        (int, True, "Expected `int`, got `bool`"),
    ],
)
def test_data_of_another_shape_is_refused(annotation: Any, data: Any, problem: str) -> None:
    """A ``ValueError`` that says where."""
    with pytest.raises(ValueError, match=problem):
        Codec(annotation).from_json(data)


def test_a_model_is_not_made_of_what_is_none() -> None:
    """No warning instead of an error."""
    with pytest.raises(ValueError, match="Model"):
        Codec(Model).to_json({"when": "now"})


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (float, "a float has no exact form in a record; use Decimal, a smaller unit as int, or str"),
        (int | float, "a float has no exact form"),
        (Share, "a float has no exact form"),
        (Plain, "Plain is no dataclass, msgspec.Struct, pydantic model or built-in type"),
        (list[Plain], "Plain is no dataclass"),
        (complex, "complex is no dataclass"),
        (Mixed, "Mixed cannot be written as JSON: Enums must contain either all str or all int values"),
    ],
)
def test_what_cannot_be_recorded_is_said_in_words(annotation: Any, problem: str) -> None:
    """Before anything runs."""
    assert str(Codec(annotation).problem).startswith(problem)


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (int, "int"),
        (Leaf, "Leaf"),
        (list[int], "list[int]"),
        (int | None, "int | None"),
        (UNTYPED, "Any"),
        (Any, "Any"),
    ],
)
def test_annotations_are_named_as_written(annotation: Any, name: str) -> None:
    """As in the author's code."""
    assert Codec(annotation).name == name


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (int, int),
        (Any, int),
        (int, Any),
        (object, Plain),
        (UNTYPED, float),
        (int | None, int),
        (int | None, None),
        (int | str, str | int),
        (Sequence[int], list[int]),
        (Mapping[str, Any], dict[str, int]),
        (list, list[int]),
        (list[int], list),
        (Leaf, dict[str, Any]),
        (Model, dict),
        (Named, dict[str, str]),
        (dict, Named),
        (Sized, Leaf),
        (Literal["a"], str),
        (Annotated[int, "metres"], int),
        (list[int], list[Annotated[int, "metres"]]),
    ],
)
def test_what_a_parameter_may_take(wanted: Any, given: Any) -> None:
    """What is the same, more special, or of the same shape in JSON; and what one cannot tell."""
    assert accepts(wanted, given)


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (int, str),
        (int, bool),
        (datetime.date, datetime.datetime),
        (int, int | None),
        (int | None, str | None),
        (list[int], list[str]),
        (Sequence[int], list[str]),
        (dict[str, int], dict[str, str]),
        (str, dict[str, str]),
        (list[int], dict[str, int]),
        (Leaf, Tree),
        (Leaf, str),
        (Annotated[int, "metres"], str),
    ],
)
def test_what_a_parameter_may_not_take(wanted: Any, given: Any) -> None:
    """So that the mistake is told before a run makes it."""
    assert not accepts(wanted, given)
