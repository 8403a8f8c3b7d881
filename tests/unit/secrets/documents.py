"""Documents that are full of secrets and of what nearly is one, for property tests."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from perdure.secrets import KEY_NAMES
from tests.unit.secrets import cases

SIGNS = [
    *"=: \t\n\r\f\v\b\x00\x1f\"'`\\/_-.,;()[]{}<>@&#|%$+~",
    ": ",
    " = ",
    "=>",
    ":=",
    "\\n",
    "://",
    "é",
    "\u212a",
    "😀",
]
WORDS = [
    *(
        "pass",
        "word",
        "phrase",
        "api",
        "key",
        "secret",
        "token",
        "no",
        "seed",
        "x",
        "A",
        "abc123",
        "hunter2",
        "2",
    ),
    *(
        "bearer",
        "Bearer ",
        "Basic ",
        "digest a=",
        "str",
        "see",
        "https",
        "ghp_",
        "eyJ",
        "sk-",
        "zoo",
        "abandon",
    ),
    *("[redacted:x]", "[redacted:", "${X}", "a" * 20, "Z" * 40, "-----BEGIN PRIVATE KEY-----", "-----END "),
]


def texts() -> st.SearchStrategy[str]:
    """Pieces of secrets, whole ones and signs, put together in any way."""
    names = [
        *KEY_NAMES,
        *(name.replace("_", " ") for name in KEY_NAMES),
        *(name.title() for name in KEY_NAMES),
    ]
    piece = st.one_of(
        st.sampled_from(SIGNS),
        st.sampled_from(WORDS),
        st.sampled_from(names),
        st.sampled_from([secret.text for secret in cases.SECRETS]),
        st.sampled_from([text for text, _ in cases.CLEAN]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    )
    return st.lists(piece, max_size=6).map("".join)


def values() -> st.SearchStrategy[object]:
    """JSON values with such texts as strings and keys."""
    leaf = st.one_of(texts(), st.none(), st.booleans(), st.integers())
    return st.recursive(
        leaf,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts(), inner, max_size=4)),
        max_leaves=6,
    )


def encoded(value: object) -> bytes:
    """The canonical JSON of a value whose keys do not mind the order of surrogates."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
