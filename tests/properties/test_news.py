"""Only what is new in a context's value is searched for secrets, and none gets by."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import canonical
from perdure.canonical import decode, encode, news_of
from perdure.errors import ContextSerializationError
from perdure.model.context import encode_member
from perdure.secrets import DEFAULT_POLICY

KEYS = st.sampled_from(["a", "b", "items", "notes", "ü"])
VALUES = st.recursive(
    st.integers(-2, 2) | st.text("ab ", max_size=3),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
SECRETS = st.sampled_from(
    ["AKIAIOSFODNN7EXAMPLE", {"password": "hunter2-hunter2"}, {"api_key": ["x1", "s3cr3t-value"]}]
)


@pytest.fixture(autouse=True, scope="module")
def _news_of_everything() -> Any:
    """Small values are compared as well."""
    kept = canonical._NEWS_BYTES_MIN
    canonical._NEWS_BYTES_MIN = 0
    yield
    canonical._NEWS_BYTES_MIN = kept


def planted(value: Any, secret: Any, place: int) -> Any:
    """``value`` with ``secret`` somewhere in it."""
    if isinstance(value, list) and value and place % 3:
        index = place % len(value)
        return [*value[:index], planted(value[index], secret, place // 3), *value[index + 1 :]]
    if isinstance(value, dict) and value and place % 3:
        key = sorted(value)[place % len(value)]
        return value | {key: planted(value[key], secret, place // 3)}
    if isinstance(value, list):
        return [*value[: place % 7], secret, *value[place % 7 :]]
    return value | {"new": secret} if isinstance(value, dict) else secret


@given(VALUES, VALUES, SECRETS, st.integers(0, 10_000))
def test_a_secret_that_is_new_is_found(before: Any, after: Any, secret: Any, place: int) -> None:
    """Wherever it is put, whatever else has changed."""
    for base in (before, after):
        with pytest.raises(ContextSerializationError, match="secrets_detected"):
            encode_member("k", planted(after, secret, place), DEFAULT_POLICY, encode(base))
    assert encode_member("k", after, DEFAULT_POLICY, encode(before)) == encode(after)


@given(VALUES, VALUES)
def test_news_are_json_and_nothing_is_lost(before: Any, after: Any) -> None:
    """What is not in them stood there before, under the same key."""

    def strings(value: Any, key: str | None = None) -> set[tuple[str | None, Any]]:
        if isinstance(value, dict):
            return {(None, each) for each in value}.union(
                *(strings(each, name) for name, each in value.items())
            )
        if isinstance(value, list):
            return set().union(*(strings(each, key) for each in value))
        return {(key, value)}

    news = decode(news_of(encode(before), encode(after)))
    assert strings(after) <= strings(news) | strings(before)
    assert strings(news) <= strings(after)
    assert news_of(encode(after), encode(after)) in (b"{}", b"[]", encode(after))
