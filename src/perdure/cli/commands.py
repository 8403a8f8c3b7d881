"""The commands, put together; every error becomes a message and an exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence

from cyclopts import App as CommandApp
from cyclopts import CycloptsError, Parameter

from perdure import __version__
from perdure.cli import (
    EXIT_INTERRUPTED,
    demo,
    driving,
    following,
    forking,
    keeping,
    looking,
    ops,
    pruning,
    scheduling,
    telling,
    working,
)
from perdure.cli.output import (
    EXIT_COMPLETED,
    EXIT_STORE,
    EXIT_USAGE,
    Output,
    UsageError,
    exit_code_of,
    send_nowhere,
)
from perdure.errors import PerdureError

DEBUG_VARIABLE = "PERDURE_DEBUG"

cli = CommandApp(
    name="perdure",
    help="Durable, replayable, provable runs.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(show_default=False, negative_iterable=()),
)
run = CommandApp(name="run", help="Start, resume, replay, stop and look at runs.")
schedule = CommandApp(name="schedule", help="Have runs started at their times.")
op = CommandApp(name="op", help="Look at operations and check them.")
artifact = CommandApp(name="artifact", help="Read what runs have written.")
store = CommandApp(name="store", help="Make, migrate and measure stores.")
for part in (run, schedule, op, artifact, store):
    cli.command(part)
driving.add_to(run)
forking.add_to(run)
looking.add_to(run)
following.add_to(run)
telling.add_to(run)
scheduling.add_to(schedule)
ops.add_to(op)
keeping.add_to(store, artifact)
pruning.add_to(run, store)
working.add_to(cli)
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
    _mend_streams()
    output = Output(as_json="--json" in words)
    code: object = EXIT_COMPLETED
    try:
        for word in words:
            word.encode()
        code = cli(words, exit_on_error=False, print_error=False, console=output.console())
        sys.stdout.flush()  # what cannot be written is an error while somebody can still be told
    except CycloptsError as error:
        output.error("usage", str(error), f"see `{' '.join(['perdure', *_named(words)])} --help`")
        return EXIT_USAGE
    except PerdureError as error:
        output.error(error.code, error.info.message, error.hint)
        return exit_code_of(error)
    except KeyboardInterrupt:
        output.error("interrupted", "the command was interrupted", "what was done stays; type it again")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        send_nowhere(sys.stdout)  # the reader went away, as `head` does
    except OSError as error:
        return refused_by_system(error, as_json=output.as_json)
    except UnicodeEncodeError:
        output.error("usage", "an argument is not UTF-8 text", "type it in UTF-8, or rename the file")
        return EXIT_USAGE
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        output.error(
            "internal_error", f"{type(error).__name__}", f"set {DEBUG_VARIABLE}=1 to see where, and report it"
        )
        return EXIT_STORE
    return code if isinstance(code, int) else EXIT_COMPLETED


def refused_by_system(error: OSError, *, as_json: bool = False) -> int:
    """The exit code of a command that the operating system did not let go on, which is told."""
    if error.filename is None:
        send_nowhere(sys.stdout)  # it may be what cannot be written
    if isinstance(error, BrokenPipeError):
        return EXIT_COMPLETED
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    where = "" if error.filename is None else f": {error.filename}"
    refused = UsageError.of("os_error", f"{error.strerror or type(error).__name__}{where}")
    Output(as_json=as_json).error(refused.code, refused.info.message, refused.hint)
    return exit_code_of(refused)


def _mend_streams() -> None:
    """Streams that the caller has closed lead nowhere; characters that a stream lacks are escaped.

    A file that is opened next would take a closed stream's place.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 — kept until the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
