"""Maps: one attempt over many items, each of which is a fact. Everything here but the places is pure.

The fact of an item is under ``map:<state>|<index>``, or ``map:<state>|<name>|<index>``. Its payload is
``{"value": …}`` or ``{"error": …}``, and its ``meta.request_id`` the digest of the item.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Protocol, runtime_checkable

from perdure.errors import ErrorCategory, IoError, Json
from perdure.ids import FactKey
from perdure.io.facts import MAP_PREFIX, FactBinding
from perdure.io.scope import HERE, AttemptScope, Place

MAP_NAMESPACE = "machine.map"
"""What stands for the namespace in the digest of an item."""


def map_of(key: str) -> tuple[str, str] | None:
    """The state and the name of the map whose item a fact key is; None also for maps within items."""
    state_id, _, rest = key.removeprefix(MAP_PREFIX).partition("|")
    if not key.startswith(MAP_PREFIX) or "#" in state_id:
        return None
    return state_id, rest.rpartition("|")[0]


class Items(Protocol):
    """The items of one map, as the attempt at its state sees them."""

    def recorded(self, index: int) -> FactBinding | None:
        """The fact of an item; None if it is to be worked on. ``MissingFactError`` in replay."""

    def first_recorded(self, index: int, count: int) -> int | None:
        """The first with a fact of ``count`` items from ``index`` on, if there is any."""

    async def outcome(self, bound: FactBinding) -> Json:
        """What a fact says of its item."""

    def keep(self, index: int, request_id: str, payload: bytes) -> bytes:
        """Bind the item's outcome with the next durable write; the outcome that it is bound to."""

    async def land(self) -> None:
        """Make durable what was kept. ``StorageError``."""

    async def pause(self, delay: timedelta) -> None:
        """Wait before an item is tried again."""

    def leaves_doubt(self, place: Place) -> bool:
        """Whether nobody knows what became of an effect of the item that was tried there."""

    def at(self, index: int) -> AbstractContextManager[Place]:
        """Work on an item: what is done meanwhile is numbered by itself."""

    def reading(self) -> AbstractContextManager[Place]:
        """Read items: what is done meanwhile is numbered by itself."""

    def around(self) -> AbstractContextManager[None]:
        """Map: the course that maps does nothing else meanwhile."""


@runtime_checkable
class KeepsItems(Protocol):
    """What the IO of an attempt offers to maps."""

    def items(self, name: str | None) -> Items:
        """Begin the map of this name in the course that asks; ``IoError`` (``map_name_taken``)."""


class MapPlaces:
    """The keys and courses of one map's items."""

    def __init__(self, scope: AttemptScope, name: str | None) -> None:
        self._scope = scope
        self._around = around = scope.place
        if name in around.maps:
            raise IoError.of(
                "map_name_taken",
                "the state has begun a map of this name, or another one without a name",
                category=ErrorCategory.PARSING_INPUT,
                details={"name": name},
            )
        around.maps.add(name)
        self._facts = f"{MAP_PREFIX}{around.key}|" + ("" if name is None else f"{name}|")
        tail = "#" if name is None else f"#{name}#"
        self._places = around.key + tail
        self._readings = around.readings_key + tail
        self._reader = self._place("items")

    def fact_key(self, index: int) -> FactKey:
        """The key of an item's fact."""
        return FactKey.trusted(f"{self._facts}{index}")

    def around(self) -> AbstractContextManager[None]:
        """As ``Items.around``."""
        return self._around.resting()

    def at(self, index: int) -> AbstractContextManager[Place]:
        """As ``Items.at``."""
        return self._in(self._place(str(index)))

    def reading(self) -> AbstractContextManager[Place]:
        """As ``Items.reading``."""
        return self._in(self._reader)

    def _place(self, tail: str) -> Place:
        return Place(self._scope, self._places + tail, self._readings + tail, is_item=True)

    @contextmanager
    def _in(self, place: Place) -> Iterator[Place]:
        token = HERE.set(place)
        try:
            with self._scope:
                yield place
        finally:
            HERE.reset(token)


def item_changed(index: int) -> IoError:
    """The refusal of another item where one is on record."""
    return IoError.of(
        "map_item_changed",
        f"item {index} is not the one that was worked on before",
        category=ErrorCategory.PARSING_INPUT,
        details={"index": index},
    )
