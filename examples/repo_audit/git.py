"""Asking git, as a fact."""

from __future__ import annotations

from perdure import IoCall, IoProvider, TransportError

# The repository is somebody else's: nothing in it may run a program, and nothing outside it may change the
# answers. Names stay as they are, and each record is a line, so that a secret taken out of one record
# leaves the others whole.
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
}
_SETTINGS = (
    "safe.directory=*",
    "core.quotePath=off",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "color.ui=false",
    "log.mailmap=false",
    "log.showSignature=false",
)


class Git:
    """A repository, through a state's IO."""

    def __init__(self, program: str, path: str, io: IoProvider) -> None:
        self._program = program
        self._path = path
        self._io = io

    async def lines(self, key: str, *argv: str) -> list[str]:
        """What ``git argv`` prints, line by line, recorded as the fact ``audit:<key>``.

        Secrets in it have become ``[redacted:…]``.
        """
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        request = {
            "kind": "run_program_v1",
            "program_path": self._program,
            "argv": ["--no-pager", "-C", self._path, *settings, *argv],
            "env": _ENVIRONMENT,
            "output": "text",
        }
        answer = await self._io.call(IoCall("exec", request, fact_key=f"audit:{key}", redact=True))
        return [line for line in str(answer.response).split("\n") if line]

    async def is_repository(self) -> bool:
        """Whether there is a repository; False is no fact, since it may be made the next moment."""
        try:
            await self.lines("repository", "rev-parse", "--absolute-git-dir")
        except TransportError as error:
            if error.code == "exec_failed":
                return False
            raise
        return True
