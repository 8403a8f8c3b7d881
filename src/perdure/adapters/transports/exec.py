"""The ``exec`` transport: runs an allowed program, and answers with what it prints.

A request is ``{"kind": "run_program_v1", "program_path", "argv", "stdin_json", "timeout_ms", "env",
"output"}``. The program sees exactly the request's environment, in which a value may be a reference of
``perdure.secrets.secret``, and ``stdin_json`` as canonical JSON. It runs in a session of its own, which is
killed as a whole when the deadline passes, the caller is cancelled, or it prints too much. With
``"output": "text"`` the answer is a string; bytes that are not UTF-8 stand in it as ``\\xNN``. No error
tells anything of what was sent or printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NoReturn

import msgspec

from perdure.adapters.transports.limits import EXEC_OUTPUT_BYTES
from perdure.arguments import expect_many
from perdure.canonical import CanonicalJsonError, canonical_json_bytes
from perdure.errors import ErrorCategory, IoError, Json, NotAppliedError, TransportError
from perdure.io.port import Transport, TransportEnv
from perdure.model.handler import IoCall
from perdure.secrets import SecretResolver, is_reference

_CHUNK_BYTES = 1 << 16
_CANNOT_BE_PASSED = "an argument or a variable cannot be passed to a program"
_NO_SECRETS = SecretResolver()


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    kind: Literal["run_program_v1"]
    program_path: str
    argv: list[str] = []
    stdin_json: Any = None
    timeout_ms: int = 300_000
    env: dict[str, str | dict[str, str]] = {}
    output: Literal["json", "text"] = "json"


class ExecTransportFactory:
    """Makes ``exec`` transports for programs on an allow-list.

    ``allowed_programs`` are compared with a request's program as real paths: a symbolic link is what it
    points to, on both sides, and nothing is matched by prefix. ``limit_bytes`` bounds what goes in, what
    the program prints, and what it prints to its error stream, each by itself.
    """

    namespace_group = "exec"

    def __init__(
        self, allowed_programs: Iterable[str | Path], *, limit_bytes: int = EXEC_OUTPUT_BYTES
    ) -> None:
        programs = expect_many(
            allowed_programs, (str, Path), "exec_transport(allowed_programs=…)", "paths of programs"
        )
        self._allowed = frozenset(os.path.realpath(program) for program in programs)
        self._limit_bytes = limit_bytes

    def make(self, env: TransportEnv) -> Transport:
        """A transport; it keeps nothing between calls."""
        return ExecTransport(self._allowed, self._limit_bytes, env.secrets)


class ExecTransport:
    """Runs programs. Raises ``IoError`` and ``TransportError`` with the codes ``exec_…``."""

    def __init__(
        self, allowed: frozenset[str], limit_bytes: int, secrets: SecretResolver = _NO_SECRETS
    ) -> None:
        self._allowed = allowed
        self._limit_bytes = limit_bytes
        self._secrets = secrets

    async def call(self, call: IoCall) -> Json:
        request = _decode(call.request)
        program = self._checked_program(request.program_path)
        stdin = self._stdin(request)
        environment = self._environment(request)
        try:
            async with asyncio.timeout(request.timeout_ms / 1000):
                output = await self._run(program, request, stdin, environment)
        except TimeoutError:
            raise TransportError.of(
                "exec_timeout",
                f"the program did not end within {request.timeout_ms} ms",
                retryable=True,
                details={"timeout_ms": request.timeout_ms},
            ) from None
        if request.output == "text":
            return output.decode("utf-8", "backslashreplace")
        return _parse(output)

    def _checked_program(self, path: str) -> str:
        if not os.path.isabs(path) or ".." in Path(path).parts:
            _invalid("the program's path is not absolute, or goes up")
        real = os.path.realpath(path)
        if real not in self._allowed:
            # Said before the file is looked at, so that a request cannot find out what exists.
            raise IoError.of(
                "exec_program_not_allowed",
                "the program is not on the allow-list",
                category=ErrorCategory.PARSING_INPUT,
                hint="add the program's real path to ExecTransportFactory(allowed_programs=[…])",
            )
        try:
            mode = os.stat(real).st_mode
        except OSError:
            raise IoError.of(
                "exec_program_missing", "the program does not exist", category=ErrorCategory.PARSING_INPUT
            ) from None
        if not stat.S_ISREG(mode) or not os.access(real, os.X_OK):
            raise IoError.of(
                "exec_program_not_executable",
                "the program is not an executable file",
                category=ErrorCategory.PARSING_INPUT,
            )
        return real

    def _stdin(self, request: _Request) -> bytes | None:
        if request.stdin_json is None:
            return None
        try:
            data = canonical_json_bytes(request.stdin_json, secrets=None)
        except CanonicalJsonError as error:
            _invalid(f"stdin_json cannot be written: {error.info.message}")
        if len(data) > self._limit_bytes:
            raise IoError.of(
                "exec_stdin_too_large",
                f"the input is larger than {self._limit_bytes} bytes",
                category=ErrorCategory.PARSING_INPUT,
            )
        return data

    def _environment(self, request: _Request) -> dict[str, str]:
        environment = {name: self._secrets.fill(value) for name, value in request.env.items()}
        _check_texts(environment.values())
        return environment

    async def _run(
        self, program: str, request: _Request, stdin: bytes | None, environment: dict[str, str]
    ) -> bytes:
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *request.argv,
                stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise NotAppliedError.of(
                "exec_spawn_failed",
                "the program could not be started",
                details={"errno": getattr(error, "errno", None)},
            ) from None
        try:
            output = await self._communicate(process, stdin)
            await process.wait()
        finally:
            await _end(process)
        if process.returncode:
            raise TransportError.of("exec_failed", "the program failed", details=_how_it_ended(process))
        return output

    async def _communicate(self, process: asyncio.subprocess.Process, stdin: bytes | None) -> bytes:
        try:
            async with asyncio.TaskGroup() as group:
                output = group.create_task(self._read(process.stdout, "exec_stdout_too_large"))
                group.create_task(self._read(process.stderr, "exec_stderr_too_large"))
                group.create_task(_write(process.stdin, stdin))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return output.result()

    async def _read(self, stream: asyncio.StreamReader | None, code: str) -> bytes:
        data = bytearray()
        while stream is not None and (chunk := await stream.read(_CHUNK_BYTES)):
            data += chunk
            if len(data) > self._limit_bytes:
                raise TransportError.of(code, f"the program printed more than {self._limit_bytes} bytes")
        return bytes(data)


def _decode(data: Json) -> _Request:
    try:
        request = msgspec.convert(data, _Request)
    except msgspec.ValidationError as error:
        _invalid(str(error))
    _check_texts([request.program_path, *request.argv, *request.env])
    if any("=" in name or not name for name in request.env):
        _invalid(_CANNOT_BE_PASSED)
    if any(isinstance(value, dict) and not is_reference(value) for value in request.env.values()):
        _invalid("a variable is neither a string nor a reference to a secret")
    if request.timeout_ms <= 0:
        _invalid("timeout_ms is not positive")
    return request


def _check_texts(texts: Iterable[str]) -> None:
    if any("\0" in text for text in texts):
        _invalid(_CANNOT_BE_PASSED)


def _parse(output: bytes) -> Json:
    def refuse(_: str) -> NoReturn:
        raise ValueError

    try:
        return json.loads(output, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise TransportError.of("exec_stdout_invalid_json", "the program did not print JSON") from None


async def _write(stream: asyncio.StreamWriter | None, data: bytes | None) -> None:
    if stream is None or data is None:
        return
    try:
        stream.write(data)
        await stream.drain()
        stream.close()
        await stream.wait_closed()
    except (BrokenPipeError, ConnectionResetError):
        pass  # a program need not read its input


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of the program's session, and collect it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    transport = getattr(process, "_transport", None)
    if transport is not None:
        # asyncio collects a process only when its pipes are closed, and a flood leaves them unread; it
        # offers no public way to let go of them.
        transport.close()
    await asyncio.shield(process.wait())
    await asyncio.sleep(0)


def _how_it_ended(process: asyncio.subprocess.Process) -> Json:
    code = process.returncode or 0
    return {"exit_code": code if code > 0 else None, "signal": -code if code < 0 else None}


def _invalid(problem: str) -> NoReturn:
    raise IoError.of(
        "exec_request_invalid",
        f"not a request to run a program: {problem}",
        category=ErrorCategory.PARSING_INPUT,
        hint='send {"kind": "run_program_v1", "program_path": …, "argv": […], "output": "json" or "text"}',
    )
