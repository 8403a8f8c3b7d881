"""Pipelines of operations: what steps pass on, and what they have for themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import perdure
from perdure import InvalidPlanError, Stores, op, pipeline, step
from perdure.sdk import App
from tests.unit.sdk import result_of


@dataclass
class Order:
    """What all steps are given."""

    item: str
    count: int


@dataclass
class Line:
    """What one step passes on to another."""

    text: str
    cents: int


@dataclass
class Outcome:
    """What the pipelines below come to: what their steps export, by name."""

    line: Line
    total: int


@dataclass
class Rate:
    """How a step is configured."""

    percent: int = 100


price = op("price", input=Order)
charge = op("charge", imports={"line": Line}, config=Rate)


@price.state
async def line(order: Order) -> Line:
    """Price an order."""
    return Line(f"{order.count} x {order.item}", 450 * order.count)


@charge.state
async def total(line: Line, config: Rate = Rate()) -> int:  # noqa: B008 — never changed
    """What is to be paid in the end."""
    return line.cents * config.percent // 100


async def test_steps_pass_typed_values_on() -> None:
    """An import is the value of the step before, as its type; the input is everyone's."""
    shop = pipeline("shop", "3", steps=[price, charge], input=Order, output=Outcome)
    assert shop.mistakes() == []
    assert (shop.op_id, shop.op_version, repr(shop)) == ("shop", "3", "<pipeline shop 3: 2 steps>")
    assert list(shop.export_types) == ["line", "total"]
    assert await result_of(shop, Order("lamp", 2)) == Outcome(Line("2 x lamp", 900), 900)
    assert await result_of(shop, {"item": "lamp", "count": 1}) == Outcome(Line("1 x lamp", 450), 450)


async def test_without_an_output_type_exports_come_by_name() -> None:
    """Each as its own type. The only one comes alone."""
    shop = pipeline("shop", steps=[price, charge])
    lamp = Line("1 x lamp", 450)
    assert await result_of(shop, Order("lamp", 1)) == {"line": lamp, "total": 450}
    assert await result_of(pipeline("alone", steps=[price]), Order("lamp", 1)) == lamp


async def test_each_step_has_its_configuration() -> None:
    """An operation may be a step twice, under names of its own; what a later one exports counts."""
    shop = pipeline(
        "shop",
        steps=[price, step("half", charge, Rate(50)), step("tenth", charge, {"percent": 10})],
        input=Order,
        output=Outcome,
    )
    async with perdure.open(Stores.in_memory(), shop) as p:
        run = await p.start(shop, Order("lamp", 2))
        assert (await run.result()).total == 90
        context = await run.context()
    assert {key: context[key] for key in context if key.endswith("total")} == {
        "shop.half.total": 450,
        "shop.tenth.total": 90,
    }


@pytest.mark.parametrize("config", [{"percent": "all"}, 7, object()])
async def test_a_configuration_of_another_type_is_refused(config: Any) -> None:
    """``config_invalid``, before anything is written."""
    shop = pipeline("shop", steps=[price, step("charge", charge, config)])
    with pytest.raises(InvalidPlanError, match="the configuration is to be Rate") as caught:
        await result_of(shop, Order("lamp", 2))
    assert caught.value.code == "config_invalid"


async def test_an_input_of_another_type_is_refused() -> None:
    """``input_invalid``."""
    with pytest.raises(InvalidPlanError, match="the input is to be Order") as caught:
        await result_of(pipeline("shop", steps=[price], input=Order), 7)
    assert caught.value.code == "input_invalid"


async def test_an_import_that_no_step_exports_is_the_initial_contexts() -> None:
    """So that a step can be run alone."""
    alone = pipeline("alone", steps=[charge])
    assert await result_of(alone, context={"line": {"text": "", "cents": 7}}) == 7


async def test_operations_of_a_pipeline_are_in_the_app() -> None:
    """They can be started alone; the pipeline itself is found by its name."""
    shop = pipeline("shop", "3", steps=[price, step("half", charge, Rate(50))])
    app = App([shop, price])
    assert app.ops == (price, charge)
    assert app.definitions == [price, charge, shop]
    assert app.startable("shop") is shop
    async with perdure.open(Stores.in_memory(), app) as p:
        assert (await (await p.start("shop", Order("lamp", 2))).result())["total"] == 450
        assert await (await p.start("price", Order("lamp", 1))).result() == Line("1 x lamp", 450)


def test_what_a_step_needs_must_fit_what_the_last_exporter_gives() -> None:
    """Who exports what, and who wants it otherwise, is told."""
    other = op("other")

    @other.state
    async def line() -> int:
        return 1

    before, after = (
        pipeline("shop", steps=steps) for steps in ([other, price, charge], [price, other, charge])
    )
    assert before.mistakes() == []
    (mistake,) = after.mistakes()
    assert (mistake.code, mistake.message) == (
        "import_mistyped",
        "charge imports line as Line, and other exports int",
    )


async def test_a_step_may_depend_on_another_step_s_tag() -> None:
    """And an operation alone may not."""
    first, second = op("first"), op("second", output=str)

    @first.state(tags=("ready",))
    async def prepare() -> None:
        """Gives nothing."""

    @second.state(depends_on=("ready",))
    async def use() -> str:
        return "used"

    assert [each.code for each in second.mistakes()] == ["tag_unknown"]
    assert await result_of(pipeline("both", steps=[first, second], output=str)) == "used"
