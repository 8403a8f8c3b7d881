"""Manifests as bytes."""

from __future__ import annotations

import functools

from perdure.canonical import CanonicalJsonError, canonical_json_bytes, encode
from perdure.model.config import BuildProvenance, RunConfig, RunManifest
from perdure.plain_json import encode_plain
from perdure.secrets import RESOLVED, surely_clean


def encode_manifest(manifest: RunManifest) -> bytes:
    """A manifest as it is kept; ``CanonicalJsonError`` for one that may not be."""
    return _of_usual_settings(manifest) or canonical_json_bytes(manifest.to_json())


def _of_usual_settings(manifest: RunManifest) -> bytes | None:
    """The bytes of a manifest that may surely be kept: what runs have in common is known to be clean."""
    try:
        build, config = _settings(manifest.build, manifest.run_config)
    except (CanonicalJsonError, TypeError):  # or with lists for tuples, which have no hash
        return None
    own = {
        "input_params": manifest.input_params,
        "op_id": str(manifest.op_id),
        "op_version": manifest.op_version,
    }
    data = encode_plain(own)
    if data is None or not surely_clean(data):
        return None
    data = b'{"build":%b,%b,"run_config":%b}' % (build, data[1:-1], config)
    return None if RESOLVED.needles and RESOLVED.occurs_in(data) else data


@functools.lru_cache(maxsize=64)
def _settings(build: BuildProvenance, config: RunConfig) -> tuple[bytes, bytes]:
    """The canonical bytes of both; ``CanonicalJsonError`` if they may not be kept."""
    settings = {"build": build.to_json(), "run_config": config.to_json()}
    canonical_json_bytes(settings)
    return encode(settings["build"]), encode(settings["run_config"])
