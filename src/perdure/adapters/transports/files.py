"""The ``files`` transport: reads, lists and writes files under allowed roots.

Requests, with paths relative to a root, their components separated by ``/``:

- ``{"kind": "read_file_v1", "root", "path", "as"}`` gives ``{"bytes", "sha256"}`` and one of ``text``,
  ``json``, ``base64`` and ``artifact_id``. ``as`` is ``auto`` (text where it is UTF-8, else bytes),
  ``text``, ``json`` or ``bytes``; a large file is an artifact in any case.
- ``{"kind": "list_folder_v1", "root", "path", "recursive"}`` gives ``{"entries": [{"path", "kind",
  "bytes"}]}``, ordered by path. ``bytes`` is null for what is not a file.
- ``{"kind": "write_file_v1", "root", "path", "if_exists", "make_folders"}`` with one of ``text``, ``json``,
  ``base64`` and ``artifact_id`` gives ``{"bytes", "sha256"}``. The file is there as a whole or not at all,
  and durable. Doing it twice is the same as once: ``"if_exists": "refuse"`` refuses other content only.

A path never leaves its root: no component is ``..``, and none is a symbolic link.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

import msgspec

from perdure.adapters.transports.bodies import BodyFields, shown
from perdure.adapters.transports.folders import Refused, checked_status, opened_below, opened_file
from perdure.adapters.transports.limits import FILE_BYTES, INLINE_BYTES
from perdure.arguments import expect_many
from perdure.errors import ErrorCategory, IoError, Json, TransportError
from perdure.io.effects import EffectTraits
from perdure.io.port import TransportEnv
from perdure.model.handler import IoCall

LISTED_MAX = 10_000
_READS, _WRITES = EffectTraits(is_effect=False), EffectTraits(is_idempotent=True)

T = TypeVar("T")


class _Read(msgspec.Struct, forbid_unknown_fields=True, tag_field="kind", tag="read_file_v1"):
    root: str
    path: str
    as_: Literal["auto", "text", "json", "bytes"] = msgspec.field(default="auto", name="as")


class _List(msgspec.Struct, forbid_unknown_fields=True, tag_field="kind", tag="list_folder_v1"):
    root: str
    path: str = ""
    recursive: bool = False


class _Write(BodyFields, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="write_file_v1"):
    root: str
    path: str
    if_exists: Literal["replace", "refuse"] = "replace"
    make_folders: bool = False


class FilesTransportFactory:
    """Makes ``files`` transports.

    ``roots`` maps the names that requests use to folders; those named in ``writable`` may be written to.
    ``limit_bytes`` bounds a file that is read or written; more than ``inline_bytes`` become an artifact.
    Raises ``ValueError`` if ``writable`` names no root.
    """

    namespace_group = "files"

    def __init__(
        self,
        roots: Mapping[str, str | Path],
        *,
        writable: Iterable[str] = (),
        limit_bytes: int = FILE_BYTES,
        inline_bytes: int = INLINE_BYTES,
    ) -> None:
        # Made absolute now: a program that changes its folder later does not change what is allowed.
        self._roots = {name: os.path.abspath(path) for name, path in roots.items()}
        self._writable = frozenset(
            expect_many(writable, str, "files_transport(writable=…)", "names of roots")
        )
        self._limit_bytes = limit_bytes
        self._inline_bytes = inline_bytes
        if not self._writable <= self._roots.keys():
            raise ValueError(f"no such roots: {sorted(self._writable - self._roots.keys())}")

    def make(self, env: TransportEnv) -> FilesTransport:
        """A transport; it keeps nothing between calls."""
        return FilesTransport(env, self._roots, self._writable, self._limit_bytes, self._inline_bytes)


class FilesTransport:
    """Reads, lists and writes. Raises ``IoError`` and ``TransportError`` with the codes ``files_…``."""

    def __init__(
        self,
        env: TransportEnv,
        roots: Mapping[str, str],
        writable: frozenset[str],
        limit_bytes: int,
        inline_bytes: int,
    ) -> None:
        self._env = env
        self._roots = roots
        self._writable = writable
        self._limit_bytes = limit_bytes
        self._inline_bytes = inline_bytes

    def effect_traits(self, call: IoCall) -> EffectTraits:
        """Writing the same bytes to the same place again changes nothing more."""
        writes = isinstance(call.request, dict) and call.request.get("kind") == "write_file_v1"
        return _WRITES if writes else _READS

    async def call(self, call: IoCall) -> Json:
        match _decode(call.request):
            case _Read() as request:
                return await self._read(request, call)
            case _List() as request:
                return await self._list(request)
            case _Write() as request:
                return await self._write(request)

    async def _read(self, request: _Read, call: IoCall) -> Json:
        root, names = self._root(request.root), _names(request.path)
        data = await _in_thread(lambda: self._content(root, names))
        body = shown(
            data,
            call,
            self._env,
            self._inline_bytes,
            may_be_json=request.as_ == "json",
            charset="utf-8" if request.as_ in ("auto", "text") else None,
        )
        if request.as_ in ("json", "text") and "base64" in body:
            _refuse(f"files_not_{request.as_}", f"the file's content cannot be given as {request.as_}")
        return {**_measured(data), **body}

    async def _list(self, request: _List) -> Json:
        root, names = self._root(request.root), _names(request.path) if request.path else ()
        entries = await _in_thread(lambda: _entries(root, names, recursive=request.recursive))
        return {"entries": sorted(entries, key=lambda entry: str(entry["path"]))}

    async def _write(self, request: _Write) -> Json:
        root, names = self._root(request.root), _names(request.path)
        if request.root not in self._writable:
            _refuse("files_root_not_writable", "nothing may be written under this root")
        try:
            data = await request.content(self._env)
        except ValueError as error:
            _invalid(str(error))
        if data is None:
            _invalid("it says nothing of what to write")
        self._check_size(len(data))
        await _in_thread(lambda: self._put(root, names, data, request))
        return _measured(data)

    def _root(self, name: str) -> str:
        if name not in self._roots:
            _refuse("files_root_unknown", "there is no such root")
        return self._roots[name]

    def _check_size(self, size: int) -> None:
        if size > self._limit_bytes:
            _refuse("files_too_large", f"the file is larger than {self._limit_bytes} bytes")

    def _content(self, root: str, names: tuple[bytes, ...]) -> bytes:
        with opened_below(root, names[:-1]) as folder, opened_file(folder, names[-1]) as file:
            self._check_size(os.fstat(file.fileno()).st_size)
            # The size may be wrong by now, and is always 0 in some file systems.
            data = file.read(self._limit_bytes + 1)
        self._check_size(len(data))
        return data

    def _put(self, root: str, names: tuple[bytes, ...], data: bytes, request: _Write) -> None:
        name = names[-1]
        with opened_below(root, names[:-1], make=request.make_folders) as folder:
            mode = _mode_of(folder, name)
            if mode is not None and request.if_exists == "refuse":
                return self._check_same(folder, name, data)
            with _temporary(folder, data, mode) as temporary:
                if request.if_exists == "replace":
                    os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                else:
                    try:
                        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
                    except FileExistsError:
                        self._check_same(folder, name, data)
            os.fsync(folder)
            return None

    def _check_same(self, folder: int, name: bytes, data: bytes) -> None:
        with opened_file(folder, name) as file:
            if file.read(len(data) + 1) != data:
                _refuse("files_exists", "a file with other content is there already")
            # Whoever wrote it may not have waited until it was durable.
            os.fsync(file.fileno())
        os.fsync(folder)


def _mode_of(folder: int, name: bytes) -> int | None:
    """The permissions of the file that is to be replaced, None if there is none."""
    try:
        return checked_status(folder, name, stat.S_IFREG).st_mode & 0o777
    except FileNotFoundError:
        return None


@contextmanager
def _temporary(folder: int, data: bytes, mode: int | None) -> Iterator[bytes]:
    """The name of a durable file with ``data``, which is gone afterwards unless it was renamed."""
    name = b".perdure-%b.tmp" % os.urandom(16).hex().encode()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o666, dir_fd=folder)
    try:
        with open(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        yield name
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _entries(root: str, names: tuple[bytes, ...], *, recursive: bool) -> list[dict[str, Json]]:
    entries: list[dict[str, Json]] = []
    folders = [names]
    while folders:
        place = folders.pop()
        try:
            # Opened from the root each time, so that no depth exhausts what may be open at once.
            with opened_below(root, place) as folder, os.scandir(folder) as found:
                for each in found:
                    name = os.fsencode(each.name)
                    with suppress(FileNotFoundError):
                        entries.append(_entry((*place, name), each.stat(follow_symlinks=False)))
                        if recursive and entries[-1]["kind"] == "folder":
                            folders.append((*place, name))
                    if len(entries) > LISTED_MAX:
                        _refuse("files_listing_too_large", f"there are more than {LISTED_MAX} entries")
        except (FileNotFoundError, Refused):
            if place == names:
                raise
            # A folder below was taken away while we looked; it stays listed as what it was.
    return entries


def _entry(place: tuple[bytes, ...], status: os.stat_result) -> dict[str, Json]:
    if stat.S_ISREG(status.st_mode):
        kind = "file"
    elif stat.S_ISDIR(status.st_mode):
        kind = "folder"
    else:
        kind = "symlink" if stat.S_ISLNK(status.st_mode) else "other"
    return {
        "path": b"/".join(place).decode("utf-8", "backslashreplace"),
        "kind": kind,
        "bytes": status.st_size if kind == "file" else None,
    }


async def _in_thread(work: Callable[[], T]) -> T:
    """The result of ``work``, with the system's errors as ours."""
    try:
        return await asyncio.to_thread(work)
    except Refused as error:
        _refuse(error.code, error.message)
    except FileNotFoundError:
        _refuse("files_not_found", "there is nothing of this path")
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            _refuse("files_path_invalid", "a component of the path is too long")
        raise TransportError.of(
            "files_io_error", "the system reports an error", details={"errno": error.errno}
        ) from None


def _measured(data: bytes) -> dict[str, Json]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _names(path: str) -> tuple[bytes, ...]:
    try:
        names = tuple(name.encode() for name in path.split("/"))
    except UnicodeEncodeError:
        names = (b"",)
    if any(name in (b"", b".", b"..") or b"\0" in name for name in names):
        _refuse("files_path_invalid", "a path is made of plain names, separated by single slashes")
    return names


def _decode(data: Json) -> _Read | _List | _Write:
    try:
        request = msgspec.convert(data, _Read | _List | _Write)
        if isinstance(request, _Write):
            request.form()
    except ValueError as error:
        _invalid(str(error))
    return request


def _refuse(code: str, message: str) -> NoReturn:
    raise IoError.of(code, message, category=ErrorCategory.PARSING_INPUT) from None


def _invalid(problem: str) -> NoReturn:
    _refuse("files_request_invalid", f"not a request about files: {problem}")
