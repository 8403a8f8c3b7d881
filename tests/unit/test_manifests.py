"""Manifests as bytes: only what is not usual in them is searched for secrets, and that wholly."""

from __future__ import annotations

import pytest

from perdure import BuildProvenance, OpId, RunConfig, RunManifest
from perdure.canonical import CanonicalJsonError, canonical_json_bytes
from perdure.errors import Json
from perdure.model.manifests import encode_manifest

TOKEN = "ghp_" + "a1B2" * 9


@pytest.mark.parametrize(
    ("manifest", "pointer"),
    [
        (RunManifest(OpId("a"), "1", {"password": "hunter2-hunter2"}, RunConfig()), "/input_params/password"),
        (RunManifest(OpId("a"), "1", [{"x": [TOKEN]}], RunConfig()), "/input_params/0/x/0"),
        (RunManifest(OpId("a"), "1", TOKEN, RunConfig()), "/input_params"),
        (RunManifest(OpId("a"), TOKEN, {}, RunConfig()), "/op_version"),
        (RunManifest(OpId("a"), "1", {}, RunConfig(skip_tags=("x", TOKEN))), "/run_config/skip_tags/1"),
        (
            RunManifest(OpId("a"), "1", {}, RunConfig(), BuildProvenance(git_commit=TOKEN)),
            "/build/git_commit",
        ),
    ],
)
def test_a_secret_in_a_manifest_is_found_wherever_it_stands(manifest: RunManifest, pointer: str) -> None:
    """Also in what most manifests have, once it has another value."""
    with pytest.raises(CanonicalJsonError) as caught:
        encode_manifest(manifest)
    assert (caught.value.code, caught.value.pointer) == ("secrets_detected", pointer)


@pytest.mark.parametrize("params", [None, {}, {"order": 17}, [1, 2], "usual"])
def test_a_manifest_s_bytes_are_its_canonical_ones(params: Json) -> None:
    """Whatever was searched, nothing but the canonical bytes is kept."""
    for op_id in ("usual", "other"):
        manifest = RunManifest(OpId(op_id), "", params, RunConfig())
        assert encode_manifest(manifest) == canonical_json_bytes(manifest.to_json())
