"""Manifests as bytes: all of one is searched for secrets, and what it has in common with others once."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import BuildProvenance, OpId, RunConfig, RunManifest
from perdure.canonical import CanonicalJsonError, canonical_json_bytes
from perdure.errors import Json
from perdure.model.manifests import encode_manifest
from perdure.secrets.resolved import ResolvedValues

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


def test_equal_settings_of_other_types_have_bytes_of_their_own() -> None:
    """What was encoded for one manifest is taken for another only if that has the same bytes."""
    for config in (RunConfig(recovery_limit=1), RunConfig(recovery_limit=0), RunConfig()):
        for build in (
            BuildProvenance(),
            BuildProvenance(git_commit="1"),
            BuildProvenance(env_allowlist=("A",)),
        ):
            manifest = RunManifest(OpId("a"), "1", {}, config, build)
            assert encode_manifest(manifest) == canonical_json_bytes(manifest.to_json())


def test_settings_of_which_no_hash_is_to_be_had_are_written_all_the_same() -> None:
    """Whoever gives a list where a tuple belongs gets the same bytes."""
    listed: Any = ["x", "y"]
    manifest = RunManifest(OpId("a"), "1", {}, RunConfig(skip_tags=listed))
    assert encode_manifest(manifest) == encode_manifest(
        RunManifest(OpId("a"), "1", {}, RunConfig(skip_tags=("x", "y")))
    )


def test_a_value_that_was_resolved_later_is_found_in_settings_that_were_written_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Settings are judged once by the detectors, but each time by what the process has resolved."""
    manifest = RunManifest(OpId("a"), "1", {}, RunConfig(skip_tags=("correct-horse",)))
    encode_manifest(manifest)
    resolved = ResolvedValues()
    resolved.remember("correct-horse")
    for module in ("perdure.canonical", "perdure.model.manifests"):
        monkeypatch.setattr(f"{module}.RESOLVED", resolved)
    with pytest.raises(CanonicalJsonError) as caught:
        encode_manifest(manifest)
    assert caught.value.pointer == "/run_config/skip_tags/0"


@pytest.mark.parametrize("wrong", [{"git_commit": 1}, {"env_allowlist": "PATH"}, {"rustc_version": b"1"}])
def test_a_build_is_described_in_strings(wrong: dict[str, Any]) -> None:
    """What could not be read back is refused where it is given."""
    with pytest.raises(TypeError, match=next(iter(wrong))):
        BuildProvenance(**wrong)
