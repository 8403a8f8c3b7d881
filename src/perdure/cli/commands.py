"""The commands, put together; every error becomes a message and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from cyclopts import App as CommandApp
from cyclopts import CycloptsError, Parameter

from perdure import __version__
from perdure.cli import demo, driving, keeping, looking, ops, telling
from perdure.cli.output import (
    EXIT_COMPLETED,
    EXIT_INTERRUPTED,
    EXIT_STORE,
    EXIT_USAGE,
    Output,
    exit_code_of,
)
from perdure.errors import PerdureError

DEBUG_VARIABLE = "PERDURE_DEBUG"

cli = CommandApp(
    name="perdure",
    help="Durable, replayable, provable runs.",
    version=__version__,
    result_action="return_value",
    default_parameter=Parameter(show_default=False, negative_iterable=()),
)
run = CommandApp(name="run", help="Start, resume, replay, stop and look at runs.")
op = CommandApp(name="op", help="Look at operations and check them.")
artifact = CommandApp(name="artifact", help="Read what runs have written.")
store = CommandApp(name="store", help="Make, migrate and measure stores.")
for part in (run, op, artifact, store):
    cli.command(part)
driving.add_to(run, cli)
looking.add_to(run)
telling.add_to(run)
ops.add_to(op)
keeping.add_to(store, artifact)
cli.command(demo.demo)
cli.register_install_completion_command(help="Install tab completion for this shell.")


def _named(words: Sequence[str]) -> Iterator[str]:
    """The words that name a group or a command."""
    part: CommandApp | None = cli
    for word in words:
        if part is None or word.startswith("-") or word not in part:
            return
        yield word
        part = part[word]


def run_command(words: Sequence[str]) -> int:
    """Run the command that ``words`` spell."""
    output = Output(as_json="--json" in words)
    try:
        code = cli(words, exit_on_error=False, print_error=False, console=output.console())
    except CycloptsError as error:
        output.error("usage", str(error), f"see `{' '.join(['perdure', *_named(words)])} --help`")
        return EXIT_USAGE
    except PerdureError as error:
        output.error(error.code, error.info.message, error.hint)
        return exit_code_of(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader went away, as `head` does; what is still buffered must not raise at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_COMPLETED
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        output.error(
            "internal_error", f"{type(error).__name__}", f"set {DEBUG_VARIABLE}=1 to see where, and report it"
        )
        return EXIT_STORE
    return code if isinstance(code, int) else EXIT_COMPLETED
