"""Canonical bytes of a megabyte, against the package rfc8785."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import rfc8785

from perdure import canonical_json_bytes


def dense_objects() -> Any:
    """Many small objects with short texts, numbers and flags."""
    chance = random.Random(1)
    return [
        {
            "id": number,
            "name": f"item {number}",
            "price": chance.randrange(10_000),
            "tags": ["new", "red", "small"][: number % 4],
            "sold": number % 3 == 0,
            "note": None,
        }
        for number in range(11_000)
    ]


def integer_matrix() -> Any:
    """Rows of integers."""
    chance = random.Random(2)
    return [[chance.randrange(1_000_000) for _ in range(400)] for _ in range(360)]


def long_strings() -> Any:
    """A few long texts in words."""
    chance = random.Random(3)
    words = ["lorem", "ipsum", "dolor", "sit", "amet", "consectetur", "adipiscing", "elit", "sed", "do"]
    return [" ".join(chance.choices(words, k=35_000)) for _ in range(5)]


DOCUMENTS: dict[str, Callable[[], Any]] = {
    "dense objects": dense_objects,
    "integer matrix": integer_matrix,
    "long strings": long_strings,
}


def times_faster(document: Any, rounds: int, *, searches: bool) -> float:
    """How many times faster than rfc8785; with ``searches`` the search for secrets is in it."""
    ratios = []
    for _ in range(rounds):
        begun = time.perf_counter()
        theirs = rfc8785.dumps(document)
        middle = time.perf_counter()
        ours = canonical_json_bytes(document) if searches else canonical_json_bytes(document, secrets=None)
        took = time.perf_counter() - middle
        assert ours == theirs
        ratios.append((middle - begun) / took)
    return statistics.median(ratios)
