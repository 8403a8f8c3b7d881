"""Operations whose states run in processes of their own, which find them here by their names."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass

import perdure
from perdure import IoProvider, RetryPolicy

ONCE = RetryPolicy(max_attempts=1)


@dataclass
class Numbers:
    """What is added up."""

    values: tuple[int, ...]


@dataclass
class Sum:
    """What that comes to, and in which process."""

    total: int
    pid: int


adding = perdure.op("adding", input=Numbers, output=Sum)


@adding.state(process=True)
def add(numbers: Numbers, /) -> Sum:
    """What it prints does not get in between."""
    os.write(1, b"adding")
    return Sum(sum(numbers.values), os.getpid())


dying = perdure.op("dying", input=str)


@dying.state(process=True, retry=ONCE)
def die(input: str) -> object:  # noqa: A002 — the term
    """Ends its process, or fails."""
    match input:
        case "exit":
            os._exit(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "leave":
            sys.exit(3)
        case "float":
            return 0.5
        case "environment":
            return sorted(os.environ)
        case _:
            raise ValueError(f"no such thing: {input}")
    return None


tried_again = perdure.op("tried_again", input=str, output=int)


@tried_again.state(process=True)
def mark(input: str) -> int:  # noqa: A002 — the term
    """Dies when it is called first, and leaves a mark at a path."""
    if not os.path.exists(input):
        os.close(os.open(input, os.O_CREAT))
        os._exit(9)
    return 1


reading = perdure.op("reading", input=str, output=str)


@reading.state(process=True)
def read(input: str) -> str:  # noqa: A002 — the term
    """Blocks until somebody writes into a named pipe, and has ended."""
    with open(input, encoding="utf-8") as pipe:
        return pipe.read()


def square(number: int) -> int:
    """What items come to; an odd one ends its process."""
    if number % 2:
        os._exit(1)
    return number * number


squares = perdure.op("squares", input=int, output=list[int])


@squares.state
async def all_squares(input: int, io: IoProvider) -> list[int]:  # noqa: A002 — the term
    """A map whose items have processes of their own; those that failed are -1."""
    results = perdure.map_over(range(input), square, process=True, return_exceptions=True, retry=ONCE)
    return [each if isinstance(each, int) else -1 for each in await results]
