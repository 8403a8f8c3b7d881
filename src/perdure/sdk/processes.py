"""Functions that are called in worker processes: one for each call, which shares nothing with others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from perdure.errors import ErrorCategory, ErrorInfo, StateError
from perdure.sdk.mistakes import Mistake
from perdure.sdk.process_child import Call, Codecs, named_function
from perdure.sdk.states import StateDefinition

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from perdure.sdk.process_child import main; main()"
)
_ENVIRONMENT = frozenset(
    ("PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
)
_ENVIRONMENT_PREFIXES = ("LC_", "PYTHON")
_ENVIRONMENT_SUFFIXES = ("_NUM_THREADS",)

_PLACES: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


def unreachable(function: Callable[..., Any]) -> str | None:
    """Why another process cannot find ``function`` by its name, in words; None if it can."""
    module, qualname = function.__module__, function.__qualname__
    if module == "__main__":
        return "it stands in the program that was started, and not in a module"
    if "<" in qualname:
        return "it stands within another function"
    try:
        found = named_function(module, qualname)
    except LookupError:
        return f"there is no {module}.{qualname}"
    return None if found is function else f"{module}.{qualname} is something else"


def process_mistakes(definition: StateDefinition[..., Any, Any]) -> Iterator[Mistake]:
    """What keeps a state from running in a process of its own."""
    name, place = definition.name, definition.place
    if definition.is_async:
        yield Mistake(
            "process_is_async",
            f"{name} is async, and a process of its own is for work that never waits",
            place,
            "write def, or take process=True away",
        )
    elif definition.meta.heartbeat_timeout is not None:
        yield Mistake(
            "process_has_no_heartbeat",
            f"{name} runs in a process of its own, which cannot give a sign of life",
            place,
            "give it a timeout instead of a heartbeat_timeout",
        )
    elif (why := unreachable(definition.function)) is not None:
        yield Mistake(
            "process_unreachable",
            f"another process cannot find {name} by its name: {why}",
            place,
            "define it at the top of a module that can be imported",
        )


async def call_in_process(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """What ``function`` returns in a process of its own, as if it were called here.

    Arguments and result travel as JSON data, by the function's annotations. As many processes run at a time
    as there are processors. Whoever is cancelled meanwhile has killed the process.
    Raises ``StateError``: what the function raised, or ``worker_process_died``, which is retryable.
    """
    codecs = Codecs(function)
    call = Call(
        function.__module__,
        function.__qualname__,
        [codecs.at(index).to_json(value) for index, value in enumerate(args)],
        {
            name: codecs.named(name).to_json(value)
            for name, value in kwargs.items()
            if value is not codecs.parameters[name].default
        },
    )
    request = msgspec.json.encode(call)
    loop = asyncio.get_running_loop()
    places = _PLACES.get(loop)
    if places is None:
        places = _PLACES[loop] = asyncio.Semaphore(_processors())
    async with places:
        answer, code = await _answer_of(b"%d\n%b" % (len(request), request))
    if not answer:
        raise StateError.of(
            "worker_process_died",
            f"the process in which {call.qualname} ran {_ended(code)}",
            category=ErrorCategory.UNKNOWN,
            retryable=True,
        )
    told = msgspec.json.decode(answer)
    if "error" in told:
        raise StateError(ErrorInfo.from_json(told["error"]))
    return codecs.named("return").from_json(told["value"])


async def _answer_of(request: bytes) -> tuple[bytes, int]:
    """What the process answers, all of it or nothing, and the code with which it ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        json.dumps(sys.path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=dict(_environment()),
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with contextlib.suppress(ConnectionError):
            process.stdin.write(request)
            await process.stdin.drain()
        # It reads on until we end, and ends then: our end of the pipe stays open.
        answer = await process.stdout.read()
        code = await process.wait()
    finally:
        await _end(process)
    return (answer if code == 0 else b""), code


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the process if it still runs, with whatever it has begun, and let go of its pipes."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    transport = getattr(process, "_transport", None)
    if transport is not None:
        # asyncio waits for pipes that nobody reads any more, and offers no public way to let go of them.
        transport.close()
    await asyncio.shield(process.wait())


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _environment() -> Iterator[tuple[str, str]]:
    """What a process needs to be Python; no other variable, any of which may be a secret."""
    for name, value in os.environ.items():
        if (
            name in _ENVIRONMENT
            or name.startswith(_ENVIRONMENT_PREFIXES)
            or name.endswith(_ENVIRONMENT_SUFFIXES)
        ):
            yield name, value


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
