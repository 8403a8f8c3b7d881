"""Naming a secret instead of writing it: ``{"secret": NAME}`` in a request, resolved at the last moment."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from perdure.errors import ErrorCategory, IoError
from perdure.secrets.resolved import RESOLVED

SECRET_BYTES_MIN = 8
"""A shorter value would be found everywhere by chance, and cannot be kept out of what is written."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")


class SecretSource(Protocol):
    """Where the values of named secrets come from."""

    def get(self, name: str) -> str | None:
        """The value of ``name``, None if this source has none."""


class EnvironmentSecrets:
    """Secrets in environment variables: ``name`` is looked up as ``<prefix><name>``."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def get(self, name: str) -> str | None:
        """The variable's value, None if it is not set."""
        return os.environ.get(self._prefix + name)


class FileSecrets:
    """Secrets in files, one each, as container platforms mount them: ``<folder>/<name>``.

    One line end at the end of the file is no part of the value.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def get(self, name: str) -> str | None:
        """The file's text, None if there is no such file."""
        try:
            text = (self._folder / name).read_text()
        except OSError:
            return None
        return text.removesuffix("\n").removesuffix("\r")


class SecretResolver:
    """Resolves names for transports, asking sources in order; the first that has a value decides."""

    def __init__(self, sources: Sequence[SecretSource] = ()) -> None:
        self._sources = tuple(sources)

    def resolve(self, name: str) -> str:
        """The value of ``name``, which from now on is refused wherever this process writes.

        Raises ``IoError``: ``secret_name_invalid``, ``secret_not_found``, ``secret_too_short``.
        """
        if not _NAME.fullmatch(name):
            _refuse("secret_name_invalid", "a secret's name is letters, digits, '_', '-' and '.'")
        value = next((found for source in self._sources if (found := source.get(name)) is not None), None)
        if value is None:
            _refuse("secret_not_found", f"no source has a value for {name}", name)
        if len(value.encode()) < SECRET_BYTES_MIN:
            _refuse("secret_too_short", f"the value of {name} is under {SECRET_BYTES_MIN} bytes", name)
        RESOLVED.remember(value)
        return value

    def fill(self, value: Any) -> Any:
        """``value`` itself, or the text that it refers to if it is a reference of :func:`secret`."""
        if not is_reference(value):
            return value
        return value.get("prefix", "") + self.resolve(value["secret"])


def secret(name: str, prefix: str = "") -> dict[str, str]:
    """A reference to write into a request where a secret's value belongs.

    ``prefix`` goes before the value: ``secret("GITHUB_TOKEN", prefix="Bearer ")``. Only the reference is
    recorded; the transport resolves it when it makes the call.
    """
    return {"secret": name, "prefix": prefix} if prefix else {"secret": name}


def is_reference(value: Any) -> bool:
    """Whether ``value`` is a reference made by :func:`secret`."""
    return (
        isinstance(value, dict)
        and {"secret"} <= value.keys() <= {"secret", "prefix"}
        and all(isinstance(each, str) for each in value.values())
    )


def _refuse(code: str, message: str, name: str | None = None) -> NoReturn:
    raise IoError.of(
        code,
        message,
        category=ErrorCategory.PARSING_INPUT,
        details=None if name is None else {"name": name},
    )
