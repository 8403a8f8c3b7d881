"""Manifests as bytes."""

from __future__ import annotations

from perdure.canonical import canonical_json_bytes, encode
from perdure.ids import OpId
from perdure.model.config import RunConfig, RunManifest


def encode_manifest(manifest: RunManifest) -> bytes:
    """A manifest as it is kept; ``CanonicalJsonError`` for one that may not be.

    Only what it has besides a usual one is searched for secrets: the names of settings are long words.
    """
    return canonical_json_bytes(manifest.to_json(), before=_USUAL)


_USUAL = encode(RunManifest(OpId("usual"), "", None, RunConfig()).to_json())
