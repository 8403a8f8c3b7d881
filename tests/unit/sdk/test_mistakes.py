"""Everything that can be wrong with a definition, told before a run starts, with its place in the code."""

from __future__ import annotations

import ast
import inspect

import pytest

import perdure
from perdure import Context, InvalidPlanError, Stores, op, pipeline
from perdure.sdk import App, Mistake, binding, ops, pipelines, processes, results
from tests.unit.sdk import wrong_definitions
from tests.unit.sdk.wrong_definitions import ODD, code_of, one


@pytest.mark.parametrize("name", ODD)
def test_a_mistake_is_told_with_its_place(name: str) -> None:
    """The file, the line, and what to do about it; nothing else is wrong."""
    lines, first = inspect.getsourcelines(ODD[name])
    (mistake,) = ODD[name]().mistakes()
    wrong = [number for number, line in enumerate(lines, first) if line.rstrip().endswith(" wrong")]
    assert mistake.code == code_of(name)
    assert (mistake.place.file, [mistake.place.line]) == (wrong_definitions.__file__, wrong)
    assert mistake.message
    assert mistake.hint
    assert mistake.to_json()["line"] == mistake.place.line


@pytest.mark.parametrize("name", ODD)
async def test_nothing_of_it_is_written(name: str) -> None:
    """Starting raises ``op_invalid``, with all that is wrong and what to do about the first."""
    definition, stores = ODD[name](), Stores.in_memory()
    (mistake,) = definition.mistakes()
    async with perdure.open(stores, definition) as p:
        with pytest.raises(InvalidPlanError) as caught:
            await p.start(definition)
    error = caught.value
    assert (error.code, error.info.details["mistakes"]) == ("op_invalid", [mistake.code])
    assert error.hint == mistake.hint
    assert f"{mistake.message}, at {mistake.place}" in str(error)
    kept = await stores.describe()
    assert (kept["runs"], kept["artifacts"]) == (0, 0)


def test_the_table_is_whole() -> None:
    """Every code that the modules know has a wrong definition above."""
    told: set[str] = set()
    for module in (binding, ops, pipelines, processes, results):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Mistake", "wrong"):
                told |= {str(each.value) for each in node.args[:1] if isinstance(each, ast.Constant)}
    assert told == set(map(code_of, ODD))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("after_unknown", "did you mean one?"),
        ("parameter_unknown", "did you mean one?"),
        ("parameter_wrong_twin", "make it async, or take a BlockingIo"),
        ("parameter_of_nothing", "have act return something, or order them with after=('act',)"),
        ("export_unknown", "export one of: one"),
        ("step_id_taken", "name one with step('another', operation)"),
    ],
)
def test_hints_say_what_to_write(name: str, hint: str) -> None:
    """With the names of the author's own code."""
    assert [each.hint for each in ODD[name]().mistakes()] == [hint]


def test_all_mistakes_are_told_at_once() -> None:
    """In the order of the states; then the operation's own."""
    odd = op("odd", exports=["nothing"])

    @odd.state
    async def first(somewhere: int, *others: int) -> int:
        return somewhere

    @odd.state
    async def second(first: str, ctx: Context) -> float:
        return 0.5

    codes = [each.code for each in odd.mistakes()]
    assert codes == [
        "parameter_unknown",
        "parameter_variadic",
        "result_not_recordable",
        "parameter_mistyped",
        "export_unknown",
    ]
    with pytest.raises(InvalidPlanError, match=r"\(and 4 more; `perdure op check` shows all\)"):
        odd.pipeline_of()


def test_a_lambda_stands_where_it_is_written() -> None:
    """It has no ``def`` line, and cannot be a state: it has no name."""
    odd = op("odd")
    line = inspect.getsourcelines(lambda: odd.state(lambda: 1))[1] + 1
    odd.state(lambda: 1)
    (mistake,) = odd.mistakes()
    assert (mistake.code, mistake.place.line) == ("state_name_invalid", line)


def test_an_app_takes_what_is_wrong() -> None:
    """So that checking it can tell; other operations are found beside it."""
    fine = op("fine", states=[one])
    odd = [ODD[name]() for name in ("op_id_invalid", "pipeline_id_invalid")]
    app = App([*odd, fine])
    assert app.op("fine") is fine
    assert sorted(each.op_id for each in app.definitions) == ["Odd", "Odd Name", "fine", "ones"]
    wrong_step: list[Mistake] = pipeline("fine", steps=[op("Odd Name", states=[one])]).mistakes()
    assert [each.code for each in wrong_step] == ["op_id_invalid", "step_id_invalid"]


def test_mistakes_are_found_anew_when_a_state_is_added() -> None:
    """What was asked before is not kept."""
    grows = op("grows")
    assert [each.code for each in grows.mistakes()] == ["op_empty"]
    grows.state(one)
    assert grows.mistakes() == []
    assert grows.exports == ("one",)
