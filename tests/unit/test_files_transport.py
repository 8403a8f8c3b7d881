"""The files transport, with real folders."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Context,
    Engine,
    IoCall,
    IoError,
    IoProvider,
    PerdureError,
    Recorder,
    RunPhase,
    StateFailed,
    Stores,
    TransportError,
    artifact_id_for_bytes,
    files_transport,
)
from perdure.adapters.transports.files import LISTED_MAX, FilesTransportFactory
from perdure.errors import Json
from perdure.stores.reading import read_bytes, read_json
from tests.servers import Desk
from tests.support import FixedResolver, InstantClock, Scripted, plan_of, start_run

PASSWORD = b"password=hunter2hunter2"


class Files:
    """A transport with two roots, ``in`` to read and ``out`` to write, and what it keeps."""

    def __init__(self, base: Path) -> None:
        self.read_root, self.write_root = base / "in", base / "out"
        self.read_root.mkdir()
        self.write_root.mkdir()
        self.desk = Desk(artifacts=[b"kept"])
        self.factory = FilesTransportFactory(
            {"in": self.read_root, "out": self.write_root},
            writable=["out"],
            limit_bytes=1000,
            inline_bytes=100,
        )

    async def call(self, kind: str, root: str, path: str, call: Json = None, **fields: Json) -> Any:
        """What the transport answers."""
        request = {"kind": kind, "root": root, "path": path, **fields}
        return await self.factory.make(self.desk.env).call(IoCall("files", request, **(call or {})))

    async def read(self, path: str, **fields: Json) -> Any:
        """The content of a file, measured."""
        answer = await self.call("read_file_v1", "in", path, **fields)
        data = (self.read_root / path).read_bytes()
        assert (answer.pop("bytes"), answer.pop("sha256")) == (len(data), hashlib.sha256(data).hexdigest())
        return answer

    async def listed(self, path: str = "", **fields: Json) -> list[tuple[str, str, int | None]]:
        """The entries of a folder."""
        answer = await self.call("list_folder_v1", "in", path, **fields)
        return [(entry["path"], entry["kind"], entry["bytes"]) for entry in answer["entries"]]

    async def write(self, path: str, root: str = "out", **fields: Json) -> Any:
        """What the transport answers to writing."""
        return await self.call("write_file_v1", root, path, **fields)

    async def refused(self, kind: str, root: str, path: str, **fields: Json) -> str:
        """The code of the error."""
        return (await self.error(kind, root, path, **fields)).code

    async def error(self, kind: str, root: str, path: str, **fields: Json) -> PerdureError:
        """The error; no descriptor stays open."""
        before = _open_descriptors()
        with pytest.raises(PerdureError) as caught:
            await self.call(kind, root, path, **fields)
        assert caught.value.hint or caught.value.code == "secrets_detected"
        assert _open_descriptors() == before
        return caught.value


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Two empty roots."""
    return Files(tmp_path)


def _open_descriptors() -> list[str]:
    return sorted(
        os.readlink(each.path) for each in os.scandir("/proc/self/fd") if os.path.lexists(each.path)
    )


def _names_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


async def test_a_file_is_shown_as_asked(files: Files) -> None:
    """Text where it is UTF-8, bytes where it is not; JSON only if it can be told exactly."""
    for name, data in {
        "text": "café\n".encode(),
        "binary": b"\xff\x00",
        "document": b'{"b": [1, null], "a": "\xc3\xa9"}',
        "float": b"1.5",
        "empty": b"",
    }.items():
        (files.read_root / name).write_bytes(data)
    assert await files.read("text") == {"text": "café\n"}
    assert await files.read("binary") == {"base64": "/wA="}
    assert await files.read("document") == {"text": '{"b": [1, null], "a": "é"}'}
    assert await files.read("document", **{"as": "json"}) == {"json": {"a": "é", "b": [1, None]}}
    assert await files.read("text", **{"as": "bytes"}) == {"base64": "Y2Fmw6kK"}
    assert await files.read("empty", **{"as": "text"}) == {"text": ""}
    for name in ("text", "float", "empty"):
        assert await files.refused("read_file_v1", "in", name, **{"as": "json"}) == "files_not_json"
    assert await files.refused("read_file_v1", "in", "binary", **{"as": "text"}) == "files_not_text"


@pytest.mark.parametrize("shown_as", ["auto", "text", "json", "bytes"])
async def test_a_large_file_is_an_artifact(files: Files, shown_as: str) -> None:
    """From one byte more than may stand in the answer, whatever was asked for."""
    data = b'"%b"' % (b"1" * 98)
    (files.read_root / "fits").write_bytes(data)
    assert "artifact_id" not in await files.read("fits", **{"as": shown_as})
    (files.read_root / "large").write_bytes(data + b" ")
    artifact_id = artifact_id_for_bytes(data + b" ")
    assert await files.read("large", **{"as": shown_as}) == {"artifact_id": artifact_id}
    assert files.desk.artifacts[artifact_id] == data + b" "


async def test_more_than_the_limit_is_refused(files: Files) -> None:
    """In both directions; also where the system says that a file is empty, and it is not."""
    (files.read_root / "most").write_bytes(b"x" * 1000)
    (files.read_root / "more").write_bytes(b"x" * 1001)
    assert await files.read("most")
    assert await files.refused("read_file_v1", "in", "more") == "files_too_large"
    assert (await files.write("most", text="x" * 1000))["bytes"] == 1000
    assert await files.refused("write_file_v1", "out", "more", text="x" * 1001) == "files_too_large"
    assert _names_below(files.write_root) == ["most"]
    process = FilesTransportFactory({"self": "/proc/self"}, limit_bytes=10).make(files.desk.env)
    with pytest.raises(IoError, match="files_too_large"):
        await process.call(IoCall("files", {"kind": "read_file_v1", "root": "self", "path": "status"}))


async def test_a_folder_is_listed(files: Files) -> None:
    """By path, links as links; the folders below it only if asked."""
    root = files.read_root
    (root / "b" / "deep").mkdir(parents=True)
    (root / "b" / "deep" / "leaf").write_bytes(b"12")
    (root / "a").write_bytes(b"")
    os.mkfifo(root / "pipe")
    (root / "out").symlink_to("/")
    (root / os.fsdecode(b"b\xff")).write_bytes(b"1")
    top = [
        ("a", "file", 0),
        ("b", "folder", None),
        ("b\\xff", "file", 1),
        ("out", "symlink", None),
        ("pipe", "other", None),
    ]
    assert await files.listed() == top
    below = [("b/deep", "folder", None), ("b/deep/leaf", "file", 2)]
    assert await files.listed(recursive=True) == sorted(top + below)
    assert await files.listed("b", recursive=True) == below
    assert await files.listed("b/deep") == below[1:]


async def test_a_listing_is_bounded(files: Files) -> None:
    """A folder of too many entries is refused; one fewer is not."""
    for number in range(LISTED_MAX):
        os.close(os.open(files.read_root / str(number), os.O_CREAT))
    assert len(await files.listed()) == LISTED_MAX
    (files.read_root / "x").mkdir()
    assert await files.refused("list_folder_v1", "in", "") == "files_listing_too_large"


async def test_writing_replaces_the_whole_file(files: Files) -> None:
    """Every form of content; the permissions stay, and nothing else is left behind."""
    target = files.write_root / "f"
    target.write_text("before")
    target.chmod(0o640)
    for fields, data in (
        ({"text": "é"}, "é".encode()),
        ({"json": {"b": 1, "a": [None]}}, b'{"a":[null],"b":1}'),
        ({"base64": "AP8="}, b"\x00\xff"),
        ({"artifact_id": artifact_id_for_bytes(b"kept")}, b"kept"),
        ({"text": ""}, b""),
    ):
        answer = await files.write("f", **fields)
        assert answer == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        assert target.read_bytes() == data
    assert target.stat().st_mode & 0o777 == 0o640
    assert _names_below(files.write_root) == ["f"]


async def test_an_existing_file_may_be_kept(files: Files) -> None:
    """``refuse`` writes what is missing, and takes the same content for done."""
    for _ in range(2):
        assert (await files.write("f", text="one", if_exists="refuse"))["bytes"] == 3
    for other in ("two", "on", "one more"):
        code = await files.refused("write_file_v1", "out", "f", text=other, if_exists="refuse")
        assert code == "files_exists"
    assert (files.write_root / "f").read_text() == "one"
    assert _names_below(files.write_root) == ["f"]


async def test_of_several_writers_one_is_first(files: Files) -> None:
    """With ``refuse``, whoever comes later finds other content; the file is the first one's as a whole."""
    texts = [str(number) * 500 for number in range(8)]
    answers = await asyncio.gather(
        *(files.write("f", text=text, if_exists="refuse") for text in texts), return_exceptions=True
    )
    (first,) = (index for index, answer in enumerate(answers) if isinstance(answer, dict))
    assert (files.write_root / "f").read_text() == texts[first]
    assert [each.code for each in answers if isinstance(each, IoError)] == ["files_exists"] * 7
    assert _names_below(files.write_root) == ["f"]


async def test_folders_are_made_only_if_asked(files: Files) -> None:
    """Those that exist are used."""
    assert await files.refused("write_file_v1", "out", "a/b/f", text="x") == "files_not_found"
    assert _names_below(files.write_root) == []
    for name in ("f", "g"):
        await files.write(f"a/b/{name}", text="x", make_folders=True)
    assert _names_below(files.write_root) == ["a", "a/b", "a/b/f", "a/b/g"]


async def test_no_descriptor_stays_open(files: Files) -> None:
    """However deep the path."""
    (files.read_root / "a" / "b").mkdir(parents=True)
    (files.read_root / "a" / "b" / "f").write_text("x")
    before = _open_descriptors()
    await files.read("a/b/f")
    await files.listed("a/b")
    await files.listed(recursive=True)
    await files.write("a/b/f", text="x", make_folders=True)
    await files.write("a/b/f", text="x", if_exists="refuse")
    assert _open_descriptors() == before


@pytest.mark.parametrize(
    "path",
    ["..", "../in/f", "a/../f", "/etc/hostname", "a//f", "a/", ".", "./f", "", "a\0", "\ud800", "x" * 300],
)
async def test_a_path_is_made_of_plain_names(files: Files, path: str) -> None:
    """Nothing goes up, is absolute, or can be written in two ways."""
    (files.read_root / "f").write_text("x")
    (files.read_root / "a").mkdir()
    codes = {
        await files.refused("read_file_v1", "in", path),
        await files.refused("write_file_v1", "out", path, text="x", make_folders=True),
    }
    if path:  # the root itself can be listed
        codes.add(await files.refused("list_folder_v1", "in", path))
    assert codes == {"files_path_invalid"}
    assert _names_below(files.write_root) == []


@pytest.mark.parametrize("leads", ["outside", "inside", "nowhere"])
async def test_no_link_is_followed(files: Files, tmp_path: Path, leads: str) -> None:
    """Neither a file's nor a folder's, in the middle or at the end, wherever it leads."""
    for root in (files.read_root, files.write_root):
        place = {"outside": tmp_path / "elsewhere", "inside": root / "real", "nowhere": root / "gone"}[leads]
        if leads != "nowhere":
            place.mkdir(exist_ok=True)
            (place / "f").write_text("untouched")
        (root / "folder").symlink_to(place)
        (root / "file").symlink_to(place / "f")
    codes = {
        await files.refused("read_file_v1", "in", "file"),
        await files.refused("read_file_v1", "in", "folder/f"),
        await files.refused("list_folder_v1", "in", "folder"),
        await files.refused("write_file_v1", "out", "folder/f", text="x", make_folders=True),
        await files.refused("write_file_v1", "out", "folder/new", text="x"),
        await files.refused("write_file_v1", "out", "file", text="x"),
        await files.refused("write_file_v1", "out", "file", text="x", if_exists="refuse"),
    }
    assert codes == {"files_symlink_refused"}
    assert all(path.read_text() == "untouched" for path in tmp_path.rglob("f"))
    assert not list(tmp_path.rglob("new"))


async def test_a_root_may_itself_be_a_link(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever configures it decides; and a program that changes its folder changes no root."""
    (files.read_root / "f").write_text("x")
    (tmp_path / "link").symlink_to(files.read_root)
    monkeypatch.chdir(tmp_path)
    factory = files_transport({"here": "link"})
    monkeypatch.chdir("/")
    request = {"kind": "read_file_v1", "root": "here", "path": "f"}
    answer = await factory.make(files.desk.env).call(IoCall("files", request))
    assert answer["text"] == "x"


async def test_only_files_are_read_and_only_folders_lead_on(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that nobody writes to keeps nobody waiting."""
    for root in (files.read_root, files.write_root):
        os.mkfifo(root / "pipe")
        (root / "folder").mkdir()
        (root / "plain").write_text("x")
        monkeypatch.chdir(root)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
    for name in ("pipe", "folder", "socket"):
        assert await files.refused("read_file_v1", "in", name) == "files_not_a_file"
        assert await files.refused("write_file_v1", "out", name, text="x") == "files_not_a_file"
        code = await files.refused("write_file_v1", "out", name, text="x", if_exists="refuse")
        assert code == "files_not_a_file"
    for name in ("pipe", "socket", "plain"):
        assert await files.refused("list_folder_v1", "in", name) == "files_not_a_folder"
        assert await files.refused("read_file_v1", "in", f"{name}/f") == "files_not_a_folder"
        code = await files.refused("write_file_v1", "out", f"{name}/f", text="x", make_folders=True)
        assert code == "files_not_a_folder"
    assert _names_below(files.write_root) == ["folder", "pipe", "plain", "socket"]


async def test_roots_are_known_and_writable_by_name(files: Files) -> None:
    """Reading a writable root is fine; the rest is refused before anything is looked at."""
    await files.write("f", text="x")
    assert (await files.call("read_file_v1", "out", "f"))["text"] == "x"
    assert await files.refused("write_file_v1", "in", "f", text="x") == "files_root_not_writable"
    assert await files.refused("read_file_v1", "etc", "f") == "files_root_unknown"
    assert _names_below(files.read_root) == []
    with pytest.raises(ValueError, match="no such roots"):
        FilesTransportFactory({"in": files.read_root}, writable=["out"])


async def test_what_is_missing_is_told(files: Files) -> None:
    """A file, a folder on the way to it, and a root."""
    assert await files.refused("read_file_v1", "in", "gone") == "files_not_found"
    assert await files.refused("read_file_v1", "in", "gone/f") == "files_not_found"
    assert await files.refused("list_folder_v1", "in", "gone") == "files_not_found"
    files.read_root.rmdir()
    assert await files.refused("read_file_v1", "in", "gone") == "files_not_found"
    assert await files.refused("list_folder_v1", "in", "") == "files_not_found"


async def test_the_systems_errors_are_told_by_number(files: Files) -> None:
    """A root that is a file: nothing but the errno, and no second try."""
    (files.read_root / "plain").write_text("x")
    transport = FilesTransportFactory({"bad": files.read_root / "plain"}).make(files.desk.env)
    with pytest.raises(TransportError) as caught:
        await transport.call(IoCall("files", {"kind": "list_folder_v1", "root": "bad"}))
    assert caught.value.code == "files_io_error"
    assert set(caught.value.info.details) == {"errno"}


async def test_no_error_tells_where_or_what(files: Files) -> None:
    """Neither the path nor what is there, nor what was to be written."""
    (files.read_root / "whereabouts").write_text("hearsay")
    (files.write_root / "whereabouts").write_text("hearsay")
    for error in (
        await files.error("read_file_v1", "in", "whereabouts", **{"as": "json"}),
        await files.error("read_file_v1", "in", "whereabouts/x"),
        await files.error("read_file_v1", "in", "whereabouts2"),
        await files.error("write_file_v1", "out", "whereabouts", text="rumour", if_exists="refuse"),
        await files.error("write_file_v1", "out", "whereabouts", text="rumour", json="rumour"),
    ):
        assert not any(word in f"{error}{error.hint}" for word in ("whereabouts", "hearsay", "rumour"))


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "read_file_v2"},
        {"kind": None},
        {"kind": "read_file_v1", "root": 1},
        {"kind": "read_file_v1", "path": None},
        {"kind": "read_file_v1", "as": "xml"},
        {"kind": "read_file_v1", "as_": "text"},
        {"kind": "read_file_v1", "recursive": True},
        {"kind": "list_folder_v1", "recursive": "yes"},
        {"kind": "write_file_v1"},
        {"kind": "write_file_v1", "text": "x", "json": 1},
        {"kind": "write_file_v1", "text": 1},
        {"kind": "write_file_v1", "text": "\ud800"},
        {"kind": "write_file_v1", "json": 1.5},
        {"kind": "write_file_v1", "base64": "AP8"},
        {"kind": "write_file_v1", "base64": "é"},
        {"kind": "write_file_v1", "artifact_id": "../x"},
        {"kind": "write_file_v1", "text": "x", "if_exists": "append"},
        {"kind": "write_file_v1", "text": "x", "make_folders": 1},
    ],
)
async def test_a_malformed_request_is_refused(files: Files, fields: dict[str, Json]) -> None:
    """``files_request_invalid``, and nothing is written."""
    with pytest.raises(IoError) as caught:
        await files.factory.make(files.desk.env).call(IoCall("files", {"root": "out", "path": "f", **fields}))
    assert (caught.value.code, caught.value.info.retryable) == ("files_request_invalid", False)
    assert caught.value.hint
    assert _names_below(files.write_root) == []


@pytest.mark.parametrize("request_", [None, [], "read_file_v1", {}])
async def test_a_request_is_an_object(files: Files, request_: Json) -> None:
    """Nothing else is."""
    with pytest.raises(IoError, match="files_request_invalid"):
        await files.factory.make(files.desk.env).call(IoCall("files", request_))


async def test_bytes_are_examined_before_they_are_hidden_in_base64(files: Files) -> None:
    """What is to be recorded holds no secret; redacting takes it out; what is not recorded goes by."""
    (files.read_root / "f").write_bytes(PASSWORD)
    as_bytes: Json = {"as": "bytes"}
    code = await files.refused("read_file_v1", "in", "f", call={"fact_key": "k"}, **as_bytes)
    assert code == "secrets_detected"
    redacted = {"fact_key": "k", "redact": True}
    answer = await files.call("read_file_v1", "in", "f", call=redacted, **as_bytes)
    assert "redacted" in _text(answer)
    assert "hunter2" not in _text(answer)
    assert _text(await files.call("read_file_v1", "in", "f", **as_bytes)) == PASSWORD.decode()


def _text(answer: Json) -> str:
    return base64.b64decode(answer["base64"]).decode()


@pytest.mark.parametrize("size", [0, 1000])
@pytest.mark.parametrize("redact", [False, True])
async def test_a_run_reads_a_file_with_a_secret(tmp_path: Path, size: int, redact: bool) -> None:
    """Refused, or redacted, in the answer and in the artifact of a large file alike."""
    (tmp_path / "f").write_bytes(PASSWORD + b"\n" + b"-" * size)
    request = {"kind": "read_file_v1", "root": "here", "path": "f"}

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        answer = (await io.call(IoCall("files", request, "k", redact))).response
        ctx.write("answer", answer)
        if "artifact_id" in answer:
            ctx.write("content", (await io.read_artifact(answer["artifact_id"])).decode())

    stores, plan = Stores.in_memory(), plan_of(("a", Scripted(handler)))
    engine = Engine(
        FixedResolver(plan), files_transport({"here": tmp_path}, inline_bytes=100), clock=InstantClock()
    )
    result = await engine.start(stores, await start_run(stores, plan))
    if not redact:
        assert result.phase is RunPhase.FAILED
        failures = [
            each.event
            for each in await stores.events.read_range(result.run_id, 1)
            if isinstance(each.event, StateFailed)
        ]
        assert [each.error.info.code for each in failures] == ["secrets_detected"]
        return
    assert result.phase is RunPhase.COMPLETED
    assert result.final_snapshot_id is not None
    context, _ = await read_json(stores.artifacts, result.final_snapshot_id)
    text = context["content"] if size else context["answer"]["text"]
    assert "hunter2" not in text
    assert text.startswith("password=[redacted:")
    if size:
        assert await read_bytes(stores.artifacts, context["answer"]["artifact_id"]) == text.encode()


def test_a_factory_serves_its_group(tmp_path: Path) -> None:
    """The namespace is ``files``."""
    assert files_transport({"here": tmp_path}).namespace_group == "files"
