"""Operations made of functions: where parameters come from, and where results go."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import (
    BlockingIo,
    BlockingRecorder,
    Context,
    DomainEvent,
    InvalidPlanError,
    IoCall,
    IoProvider,
    Recorder,
    RetryPolicy,
    RunPhase,
    SideEffectKind,
    StateFailed,
    StateMeta,
    Stores,
    op,
    state,
)
from perdure.ids import OpPath
from perdure.model.events import ArtifactKind
from perdure.sdk import manifest_for
from tests.support import START_MILLIS
from tests.unit.sdk import failure_of, result_of


@dataclass
class Order:
    """An input."""

    item: str
    count: int = 1


@dataclass
class Prices:
    """A configuration."""

    cents: int = 250


def order_of_states(operation: Any) -> list[tuple[str, str]]:
    """The edges of an operation's graph, by the states' names."""
    graph = operation.expand(OpPath("m.s"), None, None)
    return [(edge.before.split(".")[-1], edge.after.split(".")[-1]) for edge in graph.edges]


async def test_a_parameter_takes_the_result_of_the_state_of_its_name() -> None:
    """Wherever that state stands; what nobody takes is the run's result."""
    sums = op("sums")

    @sums.state
    async def total(one: int, two: int) -> int:
        return one + two

    @sums.state
    async def one() -> int:
        return 1

    @sums.state
    async def two(one: int) -> int:
        return one + 1

    assert sums.exports == ("total",)
    assert await result_of(sums) == 3


async def test_a_parameter_may_have_another_name_than_the_state() -> None:
    """With ``state.result`` as its default."""
    shop = op("shop")

    @shop.state
    async def price() -> int:
        return 450

    @shop.state
    async def text(cents: int = price.result) -> str:
        return f"{cents // 100}.{cents % 100:02d}"

    assert await result_of(shop) == "4.50"


async def test_the_input_comes_by_its_type_or_by_its_name() -> None:
    """As a value of its type, whether given as one or as its JSON form."""
    typed = op("typed", input=Order, output=str)

    @typed.state
    async def text(order: Order, input: Order) -> str:  # noqa: A002 — the term
        assert order == input
        return f"{order.count} x {order.item}"

    assert await result_of(typed, Order("lamp", 2)) == "2 x lamp"
    assert await result_of(typed, {"item": "lamp"}) == "1 x lamp"

    untyped = op("untyped")

    @untyped.state
    async def doubled(input: Any) -> Any:  # noqa: A002 — the term
        return [input, input]

    assert await result_of(untyped, {"a": 1}) == [{"a": 1}, {"a": 1}]


@pytest.mark.parametrize("given", [None, 7, {"item": "lamp", "count": "many"}, {}, object()])
async def test_an_input_of_another_type_is_refused(given: Any) -> None:
    """``input_invalid``, with what was expected and where."""
    typed = op("typed", input=Order)

    @typed.state
    async def item(order: Order) -> str:
        return order.item

    with pytest.raises(InvalidPlanError, match="the input is to be Order") as caught:
        await result_of(typed, given)
    assert caught.value.code == "input_invalid"


async def test_after_orders_states_that_take_nothing_from_each_other() -> None:
    """By name or by definition. The result of a state that is only waited for is still the run's."""
    seen: list[str] = []
    ordered = op("ordered")

    @ordered.state(after=("middle",))
    async def last() -> None:
        seen.append("last")

    @ordered.state
    async def first() -> int:
        seen.append("first")
        return 1

    @ordered.state(after=[first])
    async def middle() -> None:
        seen.append("middle")

    assert await result_of(ordered) == 1
    assert seen == ["first", "middle", "last"]


async def test_tags_order_states_too() -> None:
    """A state that depends on a tag comes after the one that carries it."""
    seen: list[str] = []
    tagged = op("tagged")

    @tagged.state(depends_on=["prepared"])
    async def use() -> None:
        seen.append("use")

    @tagged.state(tags=["prepared"])
    async def prepare() -> None:
        seen.append("prepare")

    await result_of(tagged)
    assert seen == ["prepare", "use"]


async def test_configuration_comes_typed_and_has_defaults() -> None:
    """It is given when a run is started; of another type it is refused before."""
    shop = op("shop", config=Prices)

    @shop.state
    async def price(config: Prices = Prices(100)) -> int:  # noqa: B008 — never changed
        return config.cents

    assert await result_of(shop) == 100
    assert await result_of(shop, config=Prices()) == 250
    assert await result_of(shop, config={"cents": 3}) == 3
    wrong: Any
    for wrong in ({"cents": "x"}, object()):
        with pytest.raises(InvalidPlanError, match="the configuration is to be Prices") as caught:
            await result_of(shop, config=wrong)
        assert caught.value.code == "config_invalid"


async def test_imports_come_from_the_initial_context() -> None:
    """When no step exports them. Without one and without a default the state fails."""
    shop = op("shop", imports={"rate": int})

    @shop.state
    async def doubled(rate: int) -> int:
        return 2 * rate

    assert await result_of(shop, context={"rate": 21}) == 42
    assert (await failure_of(shop))[0] == "unsatisfied_import"

    lenient = op("lenient", imports={"rate": int})

    @lenient.state
    async def same(rate: int = 5) -> int:
        return rate

    assert await result_of(lenient) == 5
    assert await result_of(lenient, context={"rate": 21}) == 21


async def test_tools_come_by_their_types_or_by_their_names() -> None:
    """The context, IO and a recorder, as every handler has them."""
    tools = op("tools")

    @tools.state
    async def by_type(things: Context, world: IoProvider, diary: Recorder) -> Any:
        things.write("scratch", 7)
        await diary.emit(DomainEvent("told"))
        return (await world.call(IoCall("test", 1, "k"))).response

    @tools.state
    async def by_name(ctx, io, rec, by_type) -> Any:  # type: ignore[no-untyped-def]  # that is the point
        await rec.emit(DomainEvent("told"))
        return [ctx.read("scratch"), await io.now_millis(), by_type]

    assert await result_of(tools) == [7, START_MILLIS, {"asked": 1}]


async def test_a_function_that_is_not_async_runs_in_a_thread() -> None:
    """So that it may block; what it asks and tells goes through the loop as ever."""
    threads: list[int] = []
    blocking = op("blocking")

    @blocking.state
    def everything(io: BlockingIo, rec: BlockingRecorder, ctx: Context) -> list[Any]:
        threads.append(threading.get_ident())
        fact = io.record_value("chosen", {"n": 1})
        assert io.get_recorded_fact("chosen") == fact
        assert io.get_recorded_fact("other") is None
        assert len(io.uuid4()) == 36
        rec.emit(DomainEvent("told"))
        report = rec.artifact(ArtifactKind.OUTPUT, b"# Hello\n", {"name": "hello.md"})
        ctx.write("report", report)
        answer = io.call(IoCall("test", 1, "k")).response
        return [answer, io.read_artifact(fact).decode(), io.now_millis(), list(io.random_bytes(3))]

    assert await result_of(blocking) == [{"asked": 1}, '{"n":1}', START_MILLIS, [0, 1, 2]]
    assert threads != [threading.get_ident()]


async def test_an_error_in_a_thread_is_the_states() -> None:
    """Also the one that no future can carry."""
    raising = op("raising")

    @raising.state
    def first() -> int:
        return next(iter([]))

    assert await failure_of(raising) == (
        "handler_raised",
        "raising.main.first failed with handler_raised: RuntimeError: the function raised StopIteration",
    )


async def test_a_default_stands_in_for_what_is_not_there() -> None:
    """For a result that is None, and for an input that was not given."""
    lenient = op("lenient")

    @lenient.state
    async def found() -> int | None:
        return None

    @lenient.state
    async def answer(found: int | None = 41, input: int = 1) -> int:  # noqa: A002 — the term
        assert found is not None
        return found + input

    assert await result_of(lenient) == 42
    assert await result_of(lenient, 2) == 43


async def test_a_state_may_belong_to_several_operations() -> None:
    """Each decorator adds it as it is; one with options makes it anew for its own operation."""
    quick, also, slow = op("quick"), op("also"), op("slow")

    @slow.state(tags=["slow"])
    @also.state
    @quick.state(tags=["quick"])
    async def one() -> int:
        return 1

    for operation, tag in [(quick, "quick"), (also, "quick"), (slow, "slow")]:
        assert await result_of(operation) == 1
        assert operation.states[0].definition.meta.tags == (tag,)


async def test_parameters_of_every_kind() -> None:
    """By position alone, by keyword alone."""
    kinds = op("kinds")

    @kinds.state
    async def one() -> int:
        return 1

    @kinds.state
    async def two(one: int, /, *, input: int) -> int:  # noqa: A002 — the term
        return 10 * one + input

    assert await result_of(kinds, 2) == 12


async def test_a_state_is_still_a_function() -> None:
    """With its docstring, so that it can be tested without any machine."""

    @state
    async def greet(name: str) -> str:
        """Say hello."""
        return f"hello {name}"

    @state(tags=["quick"])
    def add(one: int, two: int = 2) -> int:
        return one + two

    assert await greet("Ada") == "hello Ada"
    assert add(1) == 3
    assert greet.__doc__ == "Say hello."
    assert (repr(greet), greet.is_async, add.is_async) == ("<state greet>", True, False)
    assert repr(op("hello", "2", states=[greet])) == "<op hello 2: 1 states>"


def test_what_a_state_says_of_itself_reaches_the_engine() -> None:
    """All of ``StateMeta``, by the decorator's words."""
    careful = op("careful")

    @careful.state(
        tags=["a"],
        depends_on=["a"],
        side_effects=SideEffectKind.APPLY_SIDE_EFFECT,
        idempotency="pay",
        timeout=timedelta(seconds=3),
        retry=RetryPolicy(7),
    )
    async def pay() -> None:
        """Nothing."""

    (node,) = careful.expand(OpPath("m.s"), None, None).states
    assert (node.id, node.state.meta()) == (
        "m.s.pay",
        StateMeta(
            ("a",),
            ("a",),
            SideEffectKind.APPLY_SIDE_EFFECT,
            "pay",
            timeout=timedelta(seconds=3),
            retry_policy=RetryPolicy(7),
        ),
    )


def test_edges_are_what_is_taken_and_what_is_waited_for() -> None:
    """Each once."""
    twice = op("twice")

    @twice.state
    async def a() -> int:
        return 1

    @twice.state(after=[a])
    async def b(a: int) -> int:
        return a

    assert order_of_states(twice) == [("a", "b")]


async def test_an_argument_that_does_not_fit_fails_its_state() -> None:
    """``argument_invalid``, with the parameter, what was expected, and where."""
    shop = op("shop", imports={"orders": list[Order]})

    @shop.state
    async def count(orders: list[Order]) -> int:
        return len(orders)

    assert await result_of(shop, context={"orders": [{"item": "lamp"}]}) == 1
    code, message = await failure_of(shop, context={"orders": [{"item": 7}]})
    assert code == "argument_invalid"
    assert "count takes orders as list[" in message
    assert message.endswith("Expected `str`, got `int` - at `$[0].item`")


async def test_what_cleans_up_is_told_that_a_result_is_missing() -> None:
    """``result_missing``, unless its parameter says that there may be none."""
    shop, found = op("shop"), list[int | None]()

    @shop.state
    async def price(io: IoProvider) -> int:
        await io.wait_signal("price")
        return 7

    @shop.state(on_cancel=True)
    async def strict(price: int) -> None:
        found.append(price)

    @shop.state(on_cancel=True)
    async def lenient(price: int | None) -> None:
        found.append(price)

    @shop.state(on_cancel=True)
    async def ready(price: int = 5) -> None:
        found.append(price)

    async with perdure.open(Stores.in_memory(), shop) as p:
        run = await p.start(shop)
        await run.cancel("over")
        assert (await run.wait()).phase is RunPhase.CANCELLED
        events = [envelope.event async for envelope in run.events()]
    assert found == [None, 5]
    failed = [each.error.info for each in events if isinstance(each, StateFailed)]
    assert [(each.code, each.retryable) for each in failed if each.code != "run_cancelled"] == [
        ("result_missing", False)
    ]
    assert failed[-1].message == (
        "strict takes price as int, and price has left no result: it did not complete, or was skipped"
    )


def test_an_op_is_a_pipeline_of_one_step() -> None:
    """Called like the operation; the step is ``main``."""
    alone = op("alone", "3", config=Prices)

    @alone.state
    async def act() -> None:
        """Nothing."""

    manifest = manifest_for(alone.pipeline_of(Prices(7)), 1)
    assert (manifest.op_id, manifest.op_version) == ("alone", "3")
    (step,) = manifest.input_params["pipeline"]["steps"]
    assert step == {"step_id": "main", "op_id": "alone", "op_version": "3", "op_config": {"cents": 7}}
