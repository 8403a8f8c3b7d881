"""Contexts: the plain one that a run is started with, and the staged one that an attempt writes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Collection, Mapping

import msgspec

from perdure.canonical import (
    CanonicalJsonError,
    artifact_id_for_bytes,
    encode,
    encode_string,
    join_object,
    news_of,
    pointer_token,
    refuse_to_write,
    split_object,
)
from perdure.errors import ContextSerializationError, Json
from perdure.ids import ArtifactId
from perdure.model.rope import WHOLE_BYTES_MAX, Rope
from perdure.secrets import DEFAULT_POLICY, SecretPolicy
from perdure.secrets.prefilter import surely_clean
from perdure.secrets.resolved import RESOLVED


class JsonContext:
    """A context in memory, to start a run with. Its values are checked when the run starts."""

    def __init__(self, values: Mapping[str, Json] | None = None) -> None:
        self._values: dict[str, Json] = dict(values or {})

    def read(self, key: str) -> Json:
        return copy.deepcopy(self._values.get(key))

    def write(self, key: str, value: Json) -> None:
        self._values[key] = copy.deepcopy(value)

    def delete(self, key: str) -> None:
        self._values.pop(key, None)

    def dump(self) -> dict[str, Json]:
        return copy.deepcopy(self._values)

    def to_json(self) -> Json:
        """The values by key."""
        return self.dump()

    def snapshot(self) -> Snapshot:
        """The values as they stand; :class:`ContextSerializationError` for what may not be written."""
        return Snapshot.of_values(self._values)

    @classmethod
    def from_json(cls, data: Json) -> JsonContext:
        """The context of a JSON object; ``ContextSerializationError`` for anything else."""
        if not isinstance(data, dict):
            raise ContextSerializationError.of("context_not_canonical", "a context is a JSON object")
        return cls(copy.deepcopy(data))


class Snapshot:
    """A context at rest: canonical bytes by top-level key. Immutable; snapshots share their parts.

    ``id`` is the artifact id of the whole canonical object. Of a large one there is a ``rope``, which is made
    from that of the snapshot before and costs what has changed.
    """

    __slots__ = ("_before", "_changed", "_data", "_id", "_rope", "parts", "size")

    def __init__(self, parts: Mapping[str, bytes], size: int | None = None) -> None:
        self.parts = parts
        self.size = 2 + sum(map(_member_size, parts.items())) if size is None else size
        """About how many bytes it has."""
        self._rope: Rope | None = None
        self._data: bytes | None = None
        self._id: ArtifactId | None = None
        # Until there is a rope: what it is to be made from, if not from the parts alone.
        self._before: Snapshot | None = None
        self._changed: Collection[str] = ()

    def with_changes(self, changes: Mapping[str, bytes | None]) -> Snapshot:
        """The snapshot with these values, None for what is no more; itself if that changes nothing."""
        before, size = self.parts, self.size
        parts: dict[str, bytes] | None = None
        changed: list[str] = []
        for key, new in changes.items():
            old = before.get(key)
            if old == new:
                continue
            if parts is None:
                parts = dict(before)
            changed.append(key)
            if new is None:
                size -= _member_size((key, parts.pop(key)))
            else:
                parts[key] = new
                size += _member_size((key, new)) if old is None else len(new) - len(old)
        if parts is None:
            return self
        after = Snapshot(parts, size)
        if size > WHOLE_BYTES_MAX:  # a small one has no rope, and keeps none alive
            after._before, after._changed = self, changed
        return after

    @property
    def rope(self) -> Rope | None:
        """The context as a tree of what is kept apart; None if it is small enough to be kept whole."""
        if self._rope is None and self.size > WHOLE_BYTES_MAX:
            before = None if self._before is None else self._before._rope
            self._rope = (
                Rope.of_members(self.parts) if before is None else before.changed(self.parts, self._changed)
            )
            self._before = None
        return self._rope

    @property
    def data(self) -> bytes:
        """The canonical bytes of the whole context."""
        if self._data is None:
            if self.size > WHOLE_BYTES_MAX and (rope := self.rope) is not None:
                return rope.data
            self._data = join_object(self.parts)  # short, so that it may be kept
        return self._data

    @property
    def id(self) -> ArtifactId:
        """The artifact id of :attr:`data`."""
        if self._id is None:
            if self.size > WHOLE_BYTES_MAX and (rope := self.rope) is not None:
                self._id = rope.id
            else:
                self._id = artifact_id_for_bytes(self.data)
        return self._id

    @classmethod
    def of_canonical(cls, data: bytes) -> Snapshot:
        """The snapshot of canonical bytes, which were checked before; they must be an object's."""
        return cls(split_object(data))

    @classmethod
    def of_values(cls, values: Mapping[str, Json], policy: SecretPolicy = DEFAULT_POLICY) -> Snapshot:
        """The snapshot of ``values``; :class:`ContextSerializationError` for what may not be written."""
        return cls({key: encode_member(key, value, policy) for key, value in values.items()})


def _member_size(member: tuple[str, bytes]) -> int:
    # Quotes, colon and comma; a key with characters that are escaped or long is a little larger.
    return len(member[0]) + len(member[1]) + 4


class StagedContext:
    """What a handler reads and writes: changes over a snapshot, kept only if the attempt completes.

    ``check`` is called before every access and raises once the attempt is over.
    """

    __slots__ = ("_base", "_changes", "_check", "_policy")

    def __init__(
        self,
        base: Snapshot,
        check: Callable[[], None] = lambda: None,
        policy: SecretPolicy = DEFAULT_POLICY,
    ) -> None:
        self._base = base
        self._changes: dict[str, bytes | None] = {}
        self._check = check
        self._policy = policy

    def read(self, key: str) -> Json:
        self._check()
        data = self._changes[key] if key in self._changes else self._base.parts.get(key)
        return None if data is None else msgspec.json.decode(data)

    def write(self, key: str, value: Json) -> None:
        self._check()
        self._changes[str(key)] = encode_member(key, value, self._policy, self._base.parts.get(key))

    def delete(self, key: str) -> None:
        self._check()
        self._changes[str(key)] = None

    def dump(self) -> dict[str, Json]:
        self._check()
        return {key: msgspec.json.decode(data) for key, data in self.snapshot().parts.items()}

    @property
    def base(self) -> Snapshot:
        """The context that the handler found."""
        return self._base

    def snapshot(self) -> Snapshot:
        """The context as it stands; the base itself when nothing was changed."""
        return self._base.with_changes(self._changes)


_OPENING = b'"[{'
"""What values that hold strings begin with, or may."""


def _member(key: str, data: bytes) -> bytes:
    return b"{%b:%b}" % (encode_string(key), data)


@functools.lru_cache(maxsize=1024)
def _is_clean_name(key: str) -> bool:
    return surely_clean(_member(key, b"0"))


def _adds_no_secret(key: str, before: bytes | None, data: bytes) -> bool:
    """Whether ``data`` certainly holds no secret; ``before``, the value under the same key, holds none."""
    if data[0] in _OPENING:
        news = _member(key, data if before is None else news_of(before, data))
        return surely_clean(news) and not RESOLVED.occurs_in(news)
    # What is no string is no secret, whatever its name; and names are few.
    return _is_clean_name(key) and not (RESOLVED.needles and RESOLVED.occurs_in(_member(key, data)))


def encode_member(key: str, value: Json, policy: SecretPolicy, before: bytes | None = None) -> bytes:
    """The canonical bytes of one context value, checked with its key.

    ``before`` are those of the value that stood there, which was checked: what it holds already is not
    searched for secrets again.
    Raises :class:`ContextSerializationError`: ``secrets_detected``, or ``context_not_canonical`` whose
    details give the reason's code and the JSON pointer.
    """
    try:
        if not key:
            raise CanonicalJsonError("value_not_json", "", "a context key is a non-empty string")
        data = encode(value)
        if not policy.strict and _adds_no_secret(key, before, data):
            return data
        refuse_to_write({key: value}, _member(key, data), policy)
        return data
    except CanonicalJsonError as error:
        if error.code == "secrets_detected":
            raise ContextSerializationError(error.info) from None
        raise ContextSerializationError.of(
            "context_not_canonical",
            f"the context's value cannot be written: {error.info.message}",
            details={"reason": error.code, "pointer": pointer_token(str(key)) + error.pointer},
        ) from None
    except UnicodeEncodeError:
        raise ContextSerializationError.of(
            "context_not_canonical",
            "a context key holds a lone surrogate",
            details={"reason": "value_not_json", "pointer": ""},
        ) from None
