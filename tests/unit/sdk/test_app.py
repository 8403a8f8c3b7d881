"""Apps, and how they are found by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from perdure import InvalidPlanError, op
from perdure.sdk import App, load_app
from tests.unit.sdk.operations import HandMade, doubles


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, from which modules are imported; they are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


@pytest.mark.parametrize("made", ["App([one])", "one", "pipeline('all', steps=[one])", "lambda: App([one])"])
def test_an_app_is_found_by_its_name(folder: Path, made: str) -> None:
    """An app, an operation, a pipeline, or a function that makes one of these."""
    (folder / "shop_found.py").write_text(
        f"from perdure import App, op, pipeline\none = op('one')\napp = {made}\n"
    )
    assert [each.op_id for each in load_app("shop_found:app").ops] == ["one"]


@pytest.mark.parametrize(
    ("source", "reference", "code"),
    [
        ("app = 7", "shop_odd:app", "app_invalid"),
        ("", "shop_odd:app", "app_not_found"),
        ("", "shop_odd", "app_not_found"),
        ("", ":app", "app_not_found"),
        ("", "shop_nowhere:app", "app_not_found"),
        ("", "shop_odd.nowhere:app", "app_not_found"),
        ("import shop_nowhere", "shop_odd:app", "app_import_failed"),
        ("import shop_o", "shop_odd:app", "app_import_failed"),
        ("int('x')", "shop_odd:app", "app_import_failed"),
        ("1 +", "shop_odd:app", "app_import_failed"),
    ],
)
def test_what_is_no_app_is_told_by_its_code(folder: Path, source: str, reference: str, code: str) -> None:
    """A module that is not there is another thing than one that cannot be imported."""
    (folder / "shop_odd.py").write_text(source)
    with pytest.raises(InvalidPlanError) as caught:
        load_app(reference)
    assert (caught.value.code, bool(caught.value.hint)) == (code, True)
    if code == "app_import_failed":
        assert f"{folder / 'shop_odd.py'}:1" in str(caught.value)


def test_an_operation_is_found_in_its_newest_version() -> None:
    """The one that was named last, unless a version is asked for."""
    states = [each.definition for each in doubles.states]
    old, new, made = op("one", "1", states=states), op("one", "2", states=states), HandMade("made")
    app = App([old, new, made])
    assert (app.op("one"), app.op("one", "1")) == (new, old)
    assert app.startable("one") is new
    assert (app.op("made"), app.startable("made").op_version) == (made, "1")
    for name, version in [("two", None), ("one", "3")]:
        with pytest.raises(InvalidPlanError) as caught:
            app.op(name, version)
        assert (caught.value.code, caught.value.info.details) == ("op_not_found", {"known": ["made", "one"]})


def test_two_of_one_name_are_refused() -> None:
    """In one version; two versions live side by side."""
    with pytest.raises(InvalidPlanError, match="op_taken"):
        App([op("twin"), op("twin")])
    assert App([op("twin"), op("twin", "2")]).op("twin").op_version == "2"
