"""States as functions: what ``@state`` makes of one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from types import NoneType
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from perdure.model.config import RetryPolicy
from perdure.model.meta import SideEffectKind, StateMeta
from perdure.sdk.checks import expect, expect_many, refuse_call
from perdure.sdk.mistakes import Place, place_of

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class StateDefinition(Generic[P, T, R]):
    """A function that is a state. It can still be called as the plain function that it is.

    ``name`` is the function's; it names the state and its result. ``T`` is what a call gives, ``R`` what the
    state's result is: they differ for ``async`` functions.
    """

    def __init__(
        self, function: Callable[P, T], meta: StateMeta, after: tuple[str, ...], *, in_process: bool = False
    ) -> None:
        self.function = function
        self.in_process = in_process
        """Whether the function runs in a process of its own."""
        self.name = str(getattr(function, "__name__", ""))
        self.meta = meta
        self.after = after
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<state {self.name}>"

    @property
    def result(self) -> R:
        """The default of a parameter that takes this state's result, whatever the parameter's name is.

        ``def total(cents: int = price.result)`` says the same as ``def total(price: int)``, and type checkers
        compare the types.
        """
        return cast(R, ResultOf(self.name))

    @property
    def place(self) -> Place:
        """Where the function stands."""
        return place_of(self.function)

    @property
    def is_async(self) -> bool:
        """Whether the function runs on the event loop; others run in a thread."""
        return inspect.iscoroutinefunction(self.function)


class ResultOf:
    """Stands for a state's result in a parameter's default."""

    def __init__(self, name: str) -> None:
        self.name = name


class StateDecorator(Protocol):
    """What ``state(…)`` with options gives: turns a function into a :class:`StateDefinition`."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> StateDefinition[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> StateDefinition[P, R, R]: ...


class StateMaker:
    """Makes functions states: the decorator ``state``, and ``@operation.state``, which also adds them there.

    A function's parameters say what it needs: a parameter takes the result of the state of its name; an
    import of its name; the operation's input, if it is called ``input`` or annotated with the input's type;
    the operation's configuration, if it is called ``config``; or ``Context``, ``IoProvider``, ``Recorder`` by
    annotation (``BlockingIo``, ``BlockingRecorder`` in functions that are not ``async``).

    ``after`` names states, or gives them, that must come first though their results are not taken.
    ``tags``, ``depends_on``, ``side_effects``, ``idempotency``, ``timeout``, ``heartbeat_timeout`` and
    ``on_cancel`` are those of ``StateMeta``; ``retry`` takes the place of the run's retry policy. ``writes``
    names the keys that a function writes by its ``Context``, besides its result: where states run side by
    side, two that write one key are then refused before the run starts. A function that is not ``async``
    runs in a thread, or with ``process=True`` in a process of its own, for work that keeps a processor busy:
    it gets values only, and ends with its attempt.
    """

    def __init__(self, keep: Callable[[StateDefinition[..., Any, Any]], None] = lambda _: None) -> None:
        self._keep = keep

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> StateDefinition[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> StateDefinition[P, R, R]: ...
    @overload
    def __call__(
        self,
        *,
        after: Sequence[str | StateDefinition[..., Any, Any]] = (),
        tags: Sequence[str] = (),
        depends_on: Sequence[str] = (),
        side_effects: SideEffectKind = SideEffectKind.PURE,
        idempotency: str | None = None,
        timeout: timedelta | None = None,
        retry: RetryPolicy | None = None,
        heartbeat_timeout: timedelta | None = None,
        on_cancel: bool = False,
        process: bool = False,
        writes: Sequence[str] | None = None,
    ) -> StateDecorator: ...
    def __call__(self, *function: Any, **options: Any) -> Any:
        def define(function: Callable[..., Any]) -> StateDefinition[..., Any, Any]:
            definition: StateDefinition[..., Any, Any]
            if isinstance(function, StateDefinition):  # a state of another operation too
                definition = _defined(function.function, **options) if options else function
            else:
                definition = _defined(function, **options)
            self._keep(definition)
            return definition

        return define(*function) if function else define


def _defined(
    function: Callable[..., Any],
    *,
    after: Sequence[str | StateDefinition[..., Any, Any]] = (),
    tags: Sequence[str] = (),
    depends_on: Sequence[str] = (),
    side_effects: SideEffectKind = SideEffectKind.PURE,
    idempotency: str | None = None,
    timeout: timedelta | None = None,
    retry: RetryPolicy | None = None,
    heartbeat_timeout: timedelta | None = None,
    on_cancel: bool = False,
    process: bool = False,
    writes: Sequence[str] | None = None,
) -> StateDefinition[..., Any, Any]:
    if not hasattr(inspect.unwrap(function), "__code__"):
        refuse_call(function, "a state", "a function, made by def or async def")
    expect_many(after, (str, StateDefinition), "state(after=…)", "states, or names of states")
    expect_many(tags, str, "state(tags=…)", "strings")
    expect_many(writes or (), str, "state(writes=…)", "strings")
    expect_many(depends_on, str, "state(depends_on=…)", "strings")
    expect(side_effects, SideEffectKind, "state(side_effects=…)", "a SideEffectKind")
    expect(idempotency, (str, NoneType), "state(idempotency=…)", "a string")
    expect(timeout, (timedelta, NoneType), "state(timeout=…)", "a timedelta")
    expect(retry, (RetryPolicy, NoneType), "state(retry=…)", "a RetryPolicy")
    expect(process, bool, "state(process=…)", "True or False")
    meta = StateMeta(
        tuple(tags),
        tuple(depends_on),
        side_effects,
        idempotency,
        timeout=timeout,
        retry_policy=retry,
        heartbeat_timeout=heartbeat_timeout,
        on_cancel=on_cancel,
        writes=None if writes is None else tuple(writes),
    )
    names = tuple(each if isinstance(each, str) else each.name for each in after)
    return StateDefinition(function, meta, names, in_process=process)


state = StateMaker()
"""Makes a function a state; see :class:`StateMaker`."""
