"""Wrong definitions, one for everything that can be wrong. The line that is wrong says so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from perdure import BlockingIo, IoProvider, op, pipeline, state, step
from tests.unit.sdk import Definition

ODD: dict[str, Callable[[], Definition]] = {}


def case(maker: Callable[[], Definition]) -> Callable[[], Definition]:
    """Add a wrong definition to the table. Its function bears the code as the beginning of its name."""
    ODD[maker.__name__] = maker
    return maker


def code_of(name: str) -> str:
    """The code that a function's definition has."""
    return name.partition("__")[0]


@state
async def one() -> int:
    """A state with nothing wrong."""
    return 1


@case
def state_name_invalid() -> Definition:
    odd = op("odd")

    @odd.state
    async def Loud() -> None:  # noqa: N802 — wrong
        """Named as no state can be."""

    return odd


@case
def state_name_taken() -> Definition:
    odd = op("odd", states=[one])

    def again() -> Definition:
        @odd.state
        async def one() -> int:  # wrong
            return 2

        return odd

    return again()


@case
def state_is_generator() -> Definition:
    odd = op("odd")

    @odd.state
    def numbers() -> Any:  # wrong
        yield 1

    return odd


@case
def state_is_generator__async() -> Definition:
    odd = op("odd")

    @odd.state
    async def numbers() -> Any:  # wrong
        yield 1

    return odd


@case
def after_unknown() -> Definition:
    odd = op("odd", states=[one])

    @odd.state(
        after=["ome"],
        tags=["decorators", "of", "several", "lines"],
    )
    async def two() -> int:  # wrong
        return 2

    return odd


@case
def annotation_unknown() -> Definition:
    class Local:
        pass

    odd = op("odd")

    @odd.state
    async def made() -> Local:  # wrong
        return Local()

    return odd


@case
def annotation_unknown__syntax() -> Definition:
    odd = op("odd")

    async def made():  # type: ignore[no-untyped-def]  # wrong
        return 1

    made.__annotations__["return"] = "no type"
    odd.state(made)
    return odd


@case
def parameter_variadic() -> Definition:
    odd = op("odd")

    @odd.state
    async def two(**ones: int) -> int:  # wrong
        return len(ones)

    return odd


@case
def parameter_wrong_twin() -> Definition:
    odd = op("odd")

    @odd.state
    def asks(io: IoProvider) -> None:  # wrong
        """It cannot await what it asks."""

    return odd


@case
def parameter_unknown_state() -> Definition:
    odd = op("odd")

    @odd.state
    async def two(number: int = one.result) -> int:  # wrong
        return number

    return odd


@case
def parameter_unknown() -> Definition:
    odd = op("odd", states=[one])

    @odd.state
    async def two(ones: int) -> int:  # wrong
        return ones

    return odd


@case
def parameter_unknown__itself() -> Definition:
    odd = op("odd")

    @odd.state
    async def two(two: int) -> int:  # wrong
        return two

    return odd


@case
def parameter_mistyped() -> Definition:
    odd = op("odd", states=[one])

    @odd.state
    async def two(one: str) -> str:  # wrong
        return one

    return odd


@case
def parameter_mistyped__config() -> Definition:
    odd = op("odd", config=int)

    @odd.state
    async def two(config: str) -> str:  # wrong
        return config

    return odd


@case
def parameter_mistyped__import() -> Definition:
    odd = op("odd", imports={"rate": int})

    @odd.state
    async def two(rate: str) -> str:  # wrong
        return rate

    return odd


@case
def parameter_mistyped__input() -> Definition:
    odd = op("odd", input=int)

    @odd.state
    async def two(input: str) -> str:  # noqa: A002 — wrong
        return input

    return odd


@case
def parameter_of_nothing() -> Definition:
    odd = op("odd")

    @odd.state
    async def act() -> None:
        """It gives nothing."""

    @odd.state
    async def two(act: int) -> int:  # wrong
        return act

    return odd


@case
def result_not_recordable() -> Definition:
    odd = op("odd")

    @odd.state
    async def share() -> float:  # wrong
        return 0.5

    return odd


@case
def states_in_a_circle() -> Definition:
    odd = op("odd", states=[one])

    @odd.state
    async def hen(egg: int, one: int) -> int:  # wrong
        return egg + one

    @odd.state
    async def egg(hen: int) -> int:
        return hen

    return odd


@case
def op_id_invalid() -> Definition:
    return op("Odd Name", states=[one])  # wrong


@case
def op_empty() -> Definition:
    return op("odd")  # wrong


@case
def export_unknown() -> Definition:
    return op("odd", states=[one], exports=["two"])  # wrong


@case
def import_taken() -> Definition:
    return op("odd", states=[one], imports={"one": int})  # wrong


@case
def tag_unknown() -> Definition:
    odd = op("odd")  # wrong

    @odd.state(depends_on=["prepared"])
    async def use() -> None:
        """Nothing prepares it."""

    return odd


@case
def output_unsupported() -> Definition:
    return op("odd", states=[one], output=object())  # wrong


@case
def output_mistyped() -> Definition:
    return op("odd", states=[one], output=str)  # wrong


@case
def output_mistyped__several() -> Definition:
    @state
    async def two() -> int:
        return 2

    return op("odd", states=[one, two], output=int)  # wrong


@case
def pipeline_empty() -> Definition:
    return pipeline("odd", steps=[])  # wrong


@case
def pipeline_id_invalid() -> Definition:
    return pipeline("Odd", steps=[op("ones", states=[one])])  # wrong


@case
def step_id_invalid() -> Definition:
    return pipeline("odd", steps=[step("Step 1", op("ones", states=[one]))])  # wrong


@case
def step_id_taken() -> Definition:
    ones = op("ones", states=[one])
    return pipeline("odd", steps=[ones, ones])  # wrong


@case
def import_mistyped() -> Definition:
    wants = op("wants", imports={"one": str})

    @wants.state
    async def text(one: str) -> str:
        return one

    return pipeline("odd", steps=[op("ones", states=[one]), wants])  # wrong


@case
def input_mistyped() -> Definition:
    return pipeline("odd", steps=[op("ones", states=[one], input=str)], input=int)  # wrong


@case
def output_mistyped__pipeline() -> Definition:
    return pipeline("odd", steps=[op("ones", states=[one])], output=str)  # wrong


@case
def op_empty__in_a_pipeline() -> Definition:
    empty = op("odd")  # wrong
    return pipeline("odd", steps=[empty])


@case
def signal_taken() -> Definition:
    odd = op("odd", states=[one])  # wrong
    odd.signal("go", int)
    odd.signal("go", str)
    return odd


@case
def signal_unwritable() -> Definition:
    odd = op("odd", states=[one])  # wrong
    odd.signal("go", float)
    return odd


@case
def process_is_async() -> Definition:
    odd = op("odd")

    @odd.state(process=True)
    async def waits() -> int:  # wrong
        return 1

    return odd


@case
def process_has_no_heartbeat() -> Definition:
    odd = op("odd")

    @odd.state(process=True, heartbeat_timeout=timedelta(seconds=1))
    def beats() -> int:  # wrong
        return 1

    return odd


@case
def process_unreachable() -> Definition:
    odd = op("odd")

    @odd.state(process=True)
    def within() -> int:  # wrong
        return 1

    return odd


@case
def process_takes_tool() -> Definition:
    global takes_io  # noqa: PLW0603 — at the top of the module, as far as others can see
    odd = op("odd")

    @odd.state(process=True)
    def takes_io(io: BlockingIo) -> int:  # wrong
        return io.now_millis()

    return odd
