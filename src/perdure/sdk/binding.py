"""Where each parameter of a state comes from: pure, and done once for an operation."""

from __future__ import annotations

import enum
import inspect
import typing
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from perdure.ids import OpId
from perdure.model.handler import Context, IoProvider, Recorder
from perdure.sdk.blocking_io import BlockingIo, BlockingRecorder
from perdure.sdk.mistakes import Mistake, Place
from perdure.sdk.processes import process_mistakes
from perdure.sdk.states import ResultOf, StateDefinition
from perdure.sdk.values import UNTYPED, Codec, accepts

AnyState = StateDefinition[..., Any, Any]


class Origin(enum.Enum):
    """What gives a parameter its value."""

    STATE = "state"
    IMPORT = "import"
    INPUT = "input"
    CONFIG = "config"
    TOOL = "tool"


class Argument(NamedTuple):
    """A parameter and its origin; ``key`` names the state, the import or the tool."""

    name: str
    origin: Origin
    key: str
    codec: Codec
    default: Any
    is_positional: bool


class BoundState(NamedTuple):
    """A state with its arguments. ``result`` is None where the function returns nothing."""

    definition: AnyState
    arguments: tuple[Argument, ...]
    result: Codec | None

    @property
    def before(self) -> tuple[str, ...]:
        """The states that must come first."""
        names = [each.key for each in self.arguments if each.origin is Origin.STATE]
        return tuple(dict.fromkeys([*names, *self.definition.after]))

    @property
    def writes(self) -> tuple[str, ...] | None:
        """The keys that the state may write; None if nobody has said what it does with its context."""
        declared = self.definition.meta.writes
        takes_context = any(each.origin is Origin.TOOL and each.key == "ctx" for each in self.arguments)
        if declared is None and takes_context:
            return None
        own = () if self.result is None else (self.definition.name,)
        return tuple(dict.fromkeys([*own, *(declared or ())]))


class Declared(NamedTuple):
    """What an operation says of itself."""

    op_id: str
    states: Sequence[AnyState]
    imports: Mapping[str, Any]
    input: Any
    config: Any
    place: Place


NO_DEFAULT = inspect.Parameter.empty
_TOOLS: dict[Any, tuple[str, bool | None]] = {
    Context: ("ctx", None),
    IoProvider: ("io", True),
    Recorder: ("rec", True),
    BlockingIo: ("blocking_io", False),
    BlockingRecorder: ("blocking_rec", False),
}
_TOOL_NAMES = {"ctx": "ctx", "io": "io", "rec": "rec"}


def bind(declared: Declared) -> tuple[list[BoundState], list[Mistake]]:
    """The operation's states with their arguments, and everything that is wrong with them."""
    mistakes: list[Mistake] = []
    names = {each.name: each for each in declared.states}
    bound: list[BoundState] = []
    for definition in declared.states:
        mistakes += _named_badly(definition, declared)
        if definition.in_process:
            mistakes += process_mistakes(definition)
        try:
            hints = typing.get_type_hints(inspect.unwrap(definition.function), include_extras=True)
        except (NameError, TypeError, AttributeError, SyntaxError) as error:
            mistakes.append(
                Mistake(
                    "annotation_unknown",
                    f"the annotations of {definition.name} cannot be read: {error}",
                    definition.place,
                    "define the types that it names at the top of its module",
                )
            )
            continue
        arguments: list[Argument] = []
        for parameter in inspect.signature(definition.function).parameters.values():
            argument = _argument(parameter, hints.get(parameter.name, UNTYPED), definition, names, declared)
            if isinstance(argument, Mistake):
                mistakes.append(argument)
            else:
                arguments.append(argument)
        returns = hints.get("return", UNTYPED)
        result = None if returns is type(None) else Codec(returns)
        bound.append(BoundState(definition, tuple(arguments), result))
    results = {each.definition.name: each for each in bound}
    for each in bound:
        mistakes += _mistyped(each, results, declared)
    mistakes += _cycle(bound)
    return bound, mistakes


def _named_badly(definition: AnyState, declared: Declared) -> Iterator[Mistake]:
    if OpId.pattern.fullmatch(definition.name) is None:
        yield Mistake(
            "state_name_invalid",
            f"{definition.name!r} cannot name a state: lower-case letters, digits and _ can",
            definition.place,
            "rename the function",
        )
    first = next(each for each in declared.states if each.name == definition.name)
    if first is not definition:
        yield Mistake(
            "state_name_taken",
            f"{declared.op_id} has another state called {definition.name}, at {first.place}",
            definition.place,
            "rename one of the functions",
        )
    if inspect.isgeneratorfunction(definition.function) or inspect.isasyncgenfunction(definition.function):
        yield Mistake(
            "state_is_generator",
            f"{definition.name} yields, and a state returns once",
            definition.place,
            "return a list",
        )
    known = {each.name for each in declared.states}
    for name in definition.after:
        if name not in known:
            yield Mistake(
                "after_unknown",
                f"{definition.name} is to come after {name}, which is no state of {declared.op_id}",
                definition.place,
                _did_you_mean(name, known) or f"add {name} to the operation",
            )


def _argument(
    parameter: inspect.Parameter,
    annotation: Any,
    definition: AnyState,
    states: Mapping[str, AnyState],
    declared: Declared,
) -> Argument | Mistake:
    name, default = parameter.name, parameter.default

    def told(origin: Origin, key: str) -> Argument:
        positional = parameter.kind is inspect.Parameter.POSITIONAL_ONLY
        return Argument(name, origin, key, Codec(annotation), default, positional)

    def wrong(code: str, message: str, hint: str) -> Mistake:
        return Mistake(code, message, definition.place, hint)

    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        return wrong(
            "parameter_variadic",
            f"{definition.name} takes *{name}, and every parameter of a state has a name",
            "name the parameters",
        )
    tool = _tool(name, annotation)
    if tool is not None and definition.in_process:
        return wrong(
            "process_takes_tool",
            f"{definition.name} runs in a process of its own, which cannot use {name}",
            "have another state ask the outside world, and take its result",
        )
    if tool is not None:
        key, for_async = tool
        if for_async is not None and for_async is not definition.is_async:
            twin = {"io": "BlockingIo", "rec": "BlockingRecorder"}.get(key)
            advice = f"make it async, or take a {twin}" if twin else "take IoProvider and Recorder, and await"
            kind = "async" if definition.is_async else "not async"
            return wrong(
                "parameter_wrong_twin", f"{definition.name} is {kind}, so it cannot use {name}", advice
            )
        return told(Origin.TOOL, key)
    if isinstance(default, ResultOf):
        if default.name not in states:
            return wrong(
                "parameter_unknown_state",
                f"{definition.name} takes the result of {default.name}, no state of {declared.op_id}",
                f"add {default.name} to the operation",
            )
        default = NO_DEFAULT
        return told(Origin.STATE, parameter.default.name)
    if name in states and name != definition.name:
        return told(Origin.STATE, name)
    if name in declared.imports:
        return told(Origin.IMPORT, name)
    if name == "input" or (declared.input is not None and annotation == declared.input):
        return told(Origin.INPUT, name)
    if name == "config":
        return told(Origin.CONFIG, name)
    choices = {*states, *declared.imports, "input", "config", *_TOOL_NAMES} - {definition.name}
    return wrong(
        "parameter_unknown",
        f"nothing gives {definition.name} its parameter {name!r}",
        _did_you_mean(name, choices)
        or f"name it after a state, declare op(…, imports={{{name!r}: …}}), or op(…, input=<its type>)",
    )


def _tool(name: str, annotation: Any) -> tuple[str, bool | None] | None:
    try:
        if annotation in _TOOLS:
            return _TOOLS[annotation]
    except TypeError:
        return None
    if annotation is UNTYPED and name in _TOOL_NAMES:
        return next(tool for tool in _TOOLS.values() if tool[0] == _TOOL_NAMES[name])
    return None


def _mistyped(state: BoundState, states: Mapping[str, BoundState], declared: Declared) -> Iterator[Mistake]:
    name, place = state.definition.name, state.definition.place
    if state.result is not None and state.result.problem:
        yield Mistake(
            "result_not_recordable",
            f"the result of {name} cannot be recorded: {state.result.problem}",
            place,
            "return a type that has an exact JSON form",
        )
    for argument in state.arguments:
        offered: Any = UNTYPED
        whose = argument.key
        if argument.origin is Origin.STATE and argument.key in states:
            result = states[argument.key].result
            if result is None:
                yield Mistake(
                    "parameter_of_nothing",
                    f"{name} takes the result of {argument.key}, which returns nothing",
                    place,
                    f"have {argument.key} return something, or order them with after=({argument.key!r},)",
                )
                continue
            offered = result.annotation
        elif argument.origin is Origin.IMPORT:
            offered = declared.imports[argument.key]
        elif argument.origin is Origin.INPUT and declared.input is not None:
            offered, whose = declared.input, f"the input of {declared.op_id}"
        elif argument.origin is Origin.CONFIG and declared.config is not None:
            offered, whose = declared.config, f"the configuration of {declared.op_id}"
        if not accepts(argument.codec.annotation, offered):
            yield Mistake(
                "parameter_mistyped",
                f"{name} takes {argument.name} as {argument.codec.name}, "
                f"and {whose} is {Codec(offered).name}",
                place,
                "make the two annotations agree",
            )


def _cycle(states: Sequence[BoundState]) -> Iterator[Mistake]:
    left = {each.definition.name: set(each.before) for each in states}
    while free := [name for name, before in left.items() if not before & left.keys()]:
        for name in free:
            del left[name]
    if left:
        first = next(each for each in states if each.definition.name in left)
        yield Mistake(
            "states_in_a_circle",
            f"these states wait for each other: {', '.join(sorted(left))}",
            first.definition.place,
            "have one of them take something else",
        )


def _did_you_mean(name: str, choices: Any) -> str:
    close: Sequence[str] = get_close_matches(name, sorted(choices), 1)
    return f"did you mean {close[0]}?" if close else ""
