"""The http transport, with a real server on the loopback."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from perdure import (
    Context,
    Engine,
    IoCall,
    IoError,
    IoProvider,
    PerdureError,
    RateLimitedError,
    Recorder,
    RunPhase,
    StateFailed,
    Stores,
    TransportError,
    artifact_id_for_bytes,
    http_transport,
    secret,
)
from perdure.adapters.transports.http import HttpTransportFactory
from perdure.adapters.transports.http_answers import retry_after_ms
from perdure.errors import Json
from perdure.stores.reading import read_bytes, read_json
from tests.servers import Desk, HttpServer, NamedSecrets, Reply, Seen, serving
from tests.support import START_MILLIS, FixedResolver, InstantClock, Scripted, plan_of, start_run, stream

# No detector knows it: only that it was resolved tells that it is a secret. Values stay remembered for as
# long as the process lives, so no other test may write it.
TOKEN = "orchid?meadow/lantern+quartz"
LEAKED = b"password=hunter2hunter2"
DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


class Asking:
    """Sends requests through one factory, and keeps what is too large for an answer."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.desk = Desk(
            {"API_TOKEN": TOKEN, "SHORT": "1234567", "LINES": "slate\nelderflower"}, [b"kept\xff"]
        )
        self._factories: list[HttpTransportFactory] = []
        self.factory = self.new_factory()

    def new_factory(self, allowed: list[str] | None = None, **options: Any) -> HttpTransportFactory:
        """Use another factory from now on."""
        # Loading certificates takes long, and nothing here uses them.
        options["options"] = {"verify": False, **options.get("options", {})}
        self.factory = HttpTransportFactory(allowed, **options)
        self._factories.append(self.factory)
        return self.factory

    async def request(self, method: str, path: str = "/", *answers: Reply, **fields: Json) -> Any:
        """What the transport answers when the server answers so."""
        if answers:
            self.server.answers = list(answers)
        url = path if "://" in path else self.server.url + path
        request = {"kind": "http_request_v1", "method": method, "url": url, **fields}
        return await self.factory.make(self.desk.env).call(IoCall("http", request))

    async def get(self, *answers: Reply, path: str = "/", **fields: Json) -> Any:
        """What the transport answers to GET."""
        return await self.request("GET", path, *answers, **fields)

    async def body(self, reply: Reply) -> Json:
        """How the transport shows the body of an answer."""
        answer = await self.get(reply)
        assert answer.pop("status") == reply.status
        answer.pop("headers")
        return answer

    async def sent(self, method: str = "POST", path: str = "/", **fields: Json) -> Seen:
        """What comes to the server."""
        await self.request(method, path, **fields)
        return self.server.seen[-1]

    async def error(self, *answers: Reply, **fields: Json) -> PerdureError:
        """The error that GET raises; it has a hint, and tells nothing of what was sent or came back."""
        with pytest.raises(PerdureError) as caught:
            await self.get(*answers, **fields)
        assert caught.value.hint
        assert TOKEN not in f"{caught.value!r}{caught.value}"
        assert self.server.url not in str(caught.value)
        return caught.value

    async def aclose(self) -> None:
        for factory in self._factories:
            await factory.aclose()


@pytest.fixture
def server() -> Iterator[HttpServer]:
    """Answers by script."""
    with serving() as running:
        yield running


@pytest.fixture
def other() -> Iterator[HttpServer]:
    """Another origin."""
    with serving() as running:
        yield running


@pytest.fixture
async def ask(server: HttpServer) -> AsyncIterator[Asking]:
    """Asks ``server``."""
    asking = Asking(server)
    yield asking
    await asking.aclose()


# What is sent


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_goes_out_as_it_is(ask: Asking, method: str) -> None:
    """And its answer comes back; HEAD has none but its headers."""
    answer = await ask.request(method, "/a/b", Reply(201, b"done", (("X-One", "1"),)))
    assert (answer["status"], answer["headers"]) == (201, {"x-one": "1", "content-length": "4"})
    assert answer["text"] == ("" if method == "HEAD" else "done")
    seen = ask.server.seen[0]
    assert (seen.method, seen.target, seen.body) == (method, "/a/b", b"")
    assert (seen.headers["user-agent"], seen.headers["accept"]) == ("perdure", "*/*")


@pytest.mark.parametrize(
    ("fields", "body", "content_type"),
    [
        ({"json": {"b": [1, None], "a": "é"}}, '{"a":"é","b":[1,null]}'.encode(), "application/json"),
        ({"json": None}, b"null", "application/json"),
        ({"text": "é"}, "é".encode(), "text/plain; charset=utf-8"),
        ({"text": ""}, b"", "text/plain; charset=utf-8"),
        ({"base64": "AP8="}, b"\x00\xff", "application/octet-stream"),
        ({"artifact_id": artifact_id_for_bytes(b"kept\xff")}, b"kept\xff", "application/octet-stream"),
    ],
)
async def test_a_body_has_four_forms(
    ask: Asking, fields: dict[str, Json], body: bytes, content_type: str
) -> None:
    """Each with its content type, unless the request names one."""
    seen = await ask.sent(**fields)
    assert (seen.body, seen.headers["content-type"]) == (body, content_type)
    seen = await ask.sent(headers={"Content-Type": "application/x-own"}, **fields)
    assert (seen.body, seen.headers["content-type"]) == (body, "application/x-own")


async def test_a_query_joins_the_one_of_the_url(ask: Asking) -> None:
    """Encoded, in its order; a list repeats the name. A fragment stays at home."""
    query = {"q": "a b&c=é/%", "n": -1, "yes": True, "each": ["x", 2, False], "none": []}
    seen = await ask.sent("GET", "/p?first=%2F#part", query=query)
    assert seen.target == ("/p?first=%2F&q=a+b%26c%3D%C3%A9%2F%25&n=-1&yes=true&each=x&each=2&each=false")
    assert (await ask.sent("GET", "/p", query={"a": 1})).target == "/p?a=1"
    assert (await ask.sent("GET", "/p", query={})).target == "/p"


async def test_headers_are_sent_and_a_secret_is_put_in_at_last(ask: Asking) -> None:
    """With the prefix before it; the answer shows nothing of it."""
    headers = {
        "X-Plain": "as is",
        "Accept": "text/plain",
        "Authorization": secret("API_TOKEN", prefix="Bearer "),
        "X-Key": secret("API_TOKEN"),
    }
    answer = await ask.get(headers=headers)
    seen = ask.server.seen[0].headers
    assert (seen["x-plain"], seen["accept"]) == ("as is", "text/plain")
    assert (seen["authorization"], seen["x-key"]) == (f"Bearer {TOKEN}", TOKEN)
    assert TOKEN not in json.dumps(answer)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("NOBODY", "secret_not_found"),
        ("SHORT", "secret_too_short"),
        ("no name", "secret_name_invalid"),
        ("LINES", "http_request_invalid"),
    ],
)
async def test_a_secret_that_cannot_be_sent_ends_the_call(ask: Asking, name: str, code: str) -> None:
    """Before anything goes out."""
    assert (await ask.error(headers={"X-Key": secret(name)})).code == code
    assert ask.server.seen == []


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "http_request_v2"},
        {"kind": None},
        {"method": "get"},
        {"method": "TRACE"},
        {"surprise": 1},
        {"url": None},
        {"url": ""},
        {"url": "/relative"},
        {"url": "//host/path"},
        {"url": "http:///path"},
        {"url": "ftp://host/"},
        {"url": "file:///etc/hostname"},
        {"url": "http://[::1/"},
        {"url": "http://host:65536/"},
        {"url": "http://host:port/"},
        {"url": "http://xn--/"},
        {"url": "http://host/\n"},
        {"url": "http://host/\ud800"},
        {"url": "http://user@host/"},
        {"url": "http://user:word@host/"},
        {"query": {"a": 1.5}},
        {"query": {"a": None}},
        {"query": {"a": {"b": 1}}},
        {"query": {"a": "\ud800"}},
        {"headers": {"X": 1}},
        {"headers": {"X": {"name": "API_TOKEN"}}},
        {"headers": {"X": {"secret": "API_TOKEN", "more": ""}}},
        {"headers": {"X": "é"}},
        {"headers": {"X": "a\r\nY: b"}},
        {"headers": {"X": " a"}},
        {"headers": {"X Y": "a"}},
        {"headers": {"": "a"}},
        {"headers": {"X:": "a"}},
        {"headers": {"X": "a", "x": "b"}},
        {"headers": {"Host": "elsewhere"}},
        {"headers": {"content-length": "1"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"timeout_ms": 0},
        {"timeout_ms": "1"},
        {"redirects_max": -1},
        {"accept_status": [200, 429]},
        {"accept_status": [503]},
        {"accept_status": 200},
        {"text": "a", "json": "a"},
        {"text": 1},
        {"text": "\ud800"},
        {"json": 1.5},
        {"json": {"a": ["\ud800"]}},
        {"base64": "AP8"},
        {"base64": "é"},
        {"artifact_id": "../x"},
    ],
)
async def test_a_malformed_request_is_refused(ask: Asking, fields: dict[str, Json]) -> None:
    """``http_request_invalid``, and nothing goes out."""
    request = {"kind": "http_request_v1", "method": "POST", "url": ask.server.url, **fields}
    with pytest.raises(IoError) as caught:
        await ask.factory.make(ask.desk.env).call(IoCall("http", request))
    assert (caught.value.code, caught.value.info.retryable) == ("http_request_invalid", False)
    assert caught.value.hint
    assert ask.server.seen == []


# What comes back


@pytest.mark.parametrize(
    ("content_type", "body", "shown"),
    [
        ("application/json", b'{"a": [1, null]}', {"json": {"a": [1, None]}}),
        ("application/problem+json; charset=utf-8", b'"\xc3\xa9"', {"json": "é"}),
        ("application/json", b"null", {"json": None}),
        # What could not be recorded exactly stays as it was written.
        ("application/json", b'{"price": 1.50}', {"text": '{"price": 1.50}'}),
        ("application/json", b"1e3", {"text": "1e3"}),
        ("application/json", b"NaN", {"text": "NaN"}),
        ("application/json", b"9" * 30, {"text": "9" * 30}),
        ("application/json", b'{"a":1,"a":2}', {"text": '{"a":1,"a":2}'}),
        ("application/json", b'"\\ud800"', {"text": '"\\ud800"'}),
        ("application/json", b"[" * 5000, {"text": "[" * 5000}),
        ("application/json", b"", {"text": ""}),
        ("application/json", b"\xff", {"base64": "/w=="}),
        ("text/plain", b"[1]", {"text": "[1]"}),
        ("", b"[1]", {"text": "[1]"}),
        ("text/plain; charset=iso-8859-1", b"caf\xe9", {"text": "café"}),
        ("text/plain; charset=UTF-16", "é".encode("utf-16"), {"text": "é"}),
        ("text/plain; charset=unheard-of", "é".encode(), {"text": "é"}),
        ("text/plain; charset=unheard-of", b"\xe9", {"base64": "6Q=="}),
        ("text/plain; charset=utf-7", b"+2AA-", {"text": "+2AA-"}),
        ("text/plain; charset=unicode-escape", b"\\ud800", {"text": "\\ud800"}),
        ("text/plain; charset=base64", b"YQ==", {"text": "YQ=="}),
        ("image/png", b"\x89PNG", {"base64": "iVBORw=="}),
    ],
)
async def test_a_body_is_shown_in_the_first_form_that_loses_nothing(
    ask: Asking, content_type: str, body: bytes, shown: Json
) -> None:
    """JSON if it says so and can be recorded exactly, else text, else bytes."""
    assert await ask.body(Reply(200, body, (("Content-Type", content_type),))) == shown


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "image/png"])
async def test_a_large_body_is_an_artifact(ask: Asking, content_type: str) -> None:
    """From one byte more than may stand in the answer, whatever it is; its size is told."""
    ask.new_factory(inline_bytes=4)
    headers = (("Content-Type", content_type),)
    assert "artifact_id" not in await ask.body(Reply(200, b"1234", headers))
    artifact_id = artifact_id_for_bytes(b"12345")
    assert await ask.body(Reply(200, b"12345", headers)) == {"artifact_id": artifact_id, "bytes": 5}
    assert ask.desk.artifacts[artifact_id] == b"12345"


async def test_a_body_is_bounded(ask: Asking) -> None:
    """The limit itself is allowed; of more, not even the beginning is kept."""
    ask.new_factory(limit_bytes=1000)
    assert await ask.body(Reply(200, b"x" * 1000)) == {"text": "x" * 1000}
    error = await ask.error(Reply(200, b"x" * 1001))
    assert (error.code, error.info.retryable) == ("http_response_too_large", False)


async def test_what_is_compressed_is_unpacked(ask: Asking) -> None:
    """Also in several members; the headers that told of the packed body are gone."""
    packed = gzip.compress(b'{"a":', mtime=0) + gzip.compress(b"1}", mtime=0)
    headers = (("Content-Type", "application/json"), ("Content-Encoding", "gzip"), ("ETag", "1"))
    answer = await ask.get(Reply(200, packed, headers))
    assert ask.server.seen[0].headers["accept-encoding"] == "gzip"
    assert answer == {
        "status": 200,
        "headers": {"content-type": "application/json", "etag": "1"},
        "json": {"a": 1},
    }
    answer = await ask.request("HEAD", "/", Reply(200, packed, headers))
    assert (answer["headers"]["content-encoding"], answer["text"]) == ("gzip", "")


async def test_a_bomb_is_stopped_while_it_unfolds(ask: Asking) -> None:
    """The limit counts unpacked bytes, and the limit itself is allowed."""
    ask.new_factory(limit_bytes=1 << 20)
    headers = (("Content-Encoding", "gzip"),)
    bomb = gzip.compress(bytes(1 << 26), mtime=0)
    assert len(bomb) < 1 << 17
    assert (await ask.error(Reply(200, bomb, headers))).code == "http_response_too_large"
    fits = await ask.body(Reply(200, gzip.compress(bytes(1 << 20), mtime=0), headers))
    assert fits == {"artifact_id": artifact_id_for_bytes(bytes(1 << 20)), "bytes": 1 << 20}


@pytest.mark.parametrize("cut", [b"no gzip", gzip.compress(b"x" * 99, mtime=0)[:-4]])
async def test_what_is_packed_badly_is_an_error(ask: Asking, cut: bytes) -> None:
    """It is no answer, whole or in part."""
    error = await ask.error(Reply(200, cut, (("Content-Encoding", "gzip"),)))
    assert (error.code, error.info.retryable) == ("http_failed", True)


async def test_headers_that_carry_credentials_are_left_out(ask: Asking) -> None:
    """And cookies are not sent back, neither in a redirect nor by a later call."""
    headers = (
        ("Set-Cookie", "session=1; Path=/"),
        ("Set-Cookie", "other=2"),
        ("X-Api-Key", "3"),
        ("X-Next-Token", "4"),
    )
    answer = await ask.get(Reply(200, b"", headers))
    assert answer["headers"] == {"content-length": "0", "x-next-token": "4"}
    await ask.get(Reply(302, b"", (*headers, ("Location", "/next"))), Reply())
    assert [seen.target for seen in ask.server.seen] == ["/", "/", "/next"]
    assert not any("cookie" in seen.headers for seen in ask.server.seen)


# What is no answer


@pytest.mark.parametrize("status", [500, 502, 503, 599])
async def test_a_server_in_trouble_has_no_answer_yet(ask: Asking, status: int) -> None:
    """A retryable error with the status, and nothing of the body."""
    error = await ask.error(Reply.text("out of order", status))
    assert isinstance(error, TransportError)
    assert (error.code, error.info.retryable) == ("http_server_error", True)
    assert error.info.details == {"status": status}
    assert "order" not in str(error)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ((), None),
        ((("Retry-After", "0"),), 0),
        ((("Retry-After", "120"),), 120_000),
        ((("Date", DATE), ("Retry-After", "Thu, 01 Jan 2026 00:01:30 GMT")), 90_000),
        ((("Date", DATE), ("Retry-After", "Thursday, 01-Jan-26 00:01:30 GMT")), 90_000),
        ((("Date", DATE), ("Retry-After", "Wed, 31 Dec 2025 23:59:59 GMT")), 0),
        ((("Retry-After", "-5"),), None),
        ((("Retry-After", "1.5"),), None),
        ((("Retry-After", "soon"),), None),
        ((("Retry-After", "9" * 40),), None),
    ],
)
async def test_a_server_may_ask_for_a_delay(
    ask: Asking, status: int, headers: tuple[tuple[str, str], ...], asked: int | None
) -> None:
    """In seconds, or as a date by its own clock; the details tell it in milliseconds."""
    error = await ask.error(Reply(status, b"", headers))
    assert isinstance(error, RateLimitedError) == (status == 429)
    assert error.code == ("http_rate_limited" if status == 429 else "http_server_error")
    assert error.info.retryable
    expected = {"status": status} if asked is None else {"status": status, "retry_after_ms": asked}
    assert error.info.details == expected


def test_without_a_clock_of_the_server_a_date_is_compared_with_ours() -> None:
    """To the millisecond after which it has passed."""
    asked = {"retry-after": "Thu, 01 Jan 2026 00:00:02 GMT"}
    assert retry_after_ms(asked, 1_767_225_600.5) == 1500
    assert retry_after_ms({**asked, "date": "nonsense"}, 1_767_225_601) == 1000


async def test_only_some_statuses_may_be_accepted(ask: Asking) -> None:
    """All but 429 and 5xx are answers, unless the request says otherwise."""
    assert (await ask.get(Reply(404)))["status"] == 404
    assert (await ask.get(Reply(404), accept_status=[200, 404]))["status"] == 404
    error = await ask.error(Reply.text("gone", 410), accept_status=[200, 404])
    assert (error.code, error.info.retryable) == ("http_status_unexpected", False)
    assert error.info.details == {"status": 410}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(holds=True, raw=b""),
        Reply(holds=True, raw=b"HTTP/1.1 200 OK\r\n"),
        Reply(holds=True, raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        Reply.redirect("/again"),
    ],
)
async def test_one_deadline_covers_everything(ask: Asking, reply: Reply) -> None:
    """The head, the body, and all redirects together."""
    error = await ask.error(reply, timeout_ms=150, redirects_max=10**9)
    assert (error.code, error.info.retryable) == ("http_timeout", True)
    assert error.info.details == {"timeout_ms": 150}
    assert (await ask.get(Reply.text("fine")))["text"] == "fine"


async def test_waiting_for_a_connection_takes_no_time_of_the_request(ask: Asking) -> None:
    """A request that was never sent is not in doubt because others took long."""
    import httpx

    ask.new_factory(options={"limits": httpx.Limits(max_connections=1)})
    ask.server.answers = [Reply(holds=True, raw=b""), Reply.text("fine")]
    first = asyncio.ensure_future(ask.error(timeout_ms=300))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(ask.get(timeout_ms=200))
    assert (await first).code == "http_timeout"
    assert (await second)["text"] == "fine"


async def test_a_server_that_is_not_there(ask: Asking) -> None:
    """``http_connect_failed``, which may be tried again."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        error = await ask.error(path=f"http://127.0.0.1:{nobody.getsockname()[1]}/")
    assert (error.code, error.info.retryable) == ("http_connect_failed", True)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_a_server_that_breaks_off(ask: Asking, raw: bytes) -> None:
    """Is no answer: ``http_failed``, which may be tried again."""
    error = await ask.error(Reply(raw=raw))
    assert (error.code, error.info.retryable) == ("http_failed", True)
    assert error.info.details == {"reason": "RemoteProtocolError"}


async def test_cancelling_the_call_ends_the_exchange(ask: Asking) -> None:
    """And the next one finds a good connection."""
    ask.server.answers = [Reply(holds=True, raw=b"HTTP/1.1 200 OK\r\n")]
    task = asyncio.ensure_future(ask.get())
    while not ask.server.seen:  # noqa: ASYNC110 — the server is no coroutine
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await ask.get(Reply.text("fine")))["text"] == "fine"


# Where it goes


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed_for_reading(ask: Asking, method: str, status: int) -> None:
    """As the same method, with the same headers while the origin is the same."""
    replies = (Reply.redirect("/b/c", status), Reply.redirect("d?x=1", status), Reply.text("there"))
    headers = {"Authorization": secret("API_TOKEN"), "X-Own": "1"}
    answer = await ask.request(method, "/a", *replies, headers=headers)
    assert (answer["status"], answer["text"]) == (200, "there" if method == "GET" else "")
    assert [(seen.method, seen.target) for seen in ask.server.seen] == [
        (method, "/a"),
        (method, "/b/c"),
        (method, "/b/d?x=1"),
    ]
    assert all(seen.headers["authorization"] == TOKEN for seen in ask.server.seen)
    assert all(seen.headers["x-own"] == "1" for seen in ask.server.seen)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_redirects_are_answers_to_everything_else(ask: Asking, method: str) -> None:
    """Nothing is sent twice."""
    answer = await ask.request(method, "/", Reply.redirect("/b", 307))
    assert (answer["status"], answer["headers"]["location"]) == (307, "/b")
    assert len(ask.server.seen) == 1


async def test_redirects_are_counted(ask: Asking) -> None:
    """As many as are allowed; none at all makes the redirect the answer."""
    step = Reply.redirect("/b")
    assert (await ask.get(step, step, Reply.text("there"), redirects_max=2))["text"] == "there"
    error = await ask.error(step, step, Reply.text("there"), redirects_max=1)
    assert (error.code, error.info.retryable) == ("http_too_many_redirects", False)
    assert (await ask.get(step, redirects_max=0))["status"] == 302
    ask.server.seen.clear()
    assert (await ask.error(step)).code == "http_too_many_redirects"
    assert len(ask.server.seen) == 11


async def test_to_another_origin_no_credentials_go_along(ask: Asking, other: HttpServer) -> None:
    """Neither what came from a secret, nor what is known to let in; not even on the way back."""
    headers = {
        "X-Key": secret("API_TOKEN"),
        "Authorization": "plain",
        "Cookie": "plain",
        "Proxy-Authorization": "plain",
        "X-Own": "1",
    }
    other.answers = [Reply.redirect(ask.server.url + "/back")]
    await ask.get(Reply.redirect(other.url + "/there"), Reply(), headers=headers)
    first, back = ask.server.seen
    (there,) = other.seen
    assert {name.lower() for name in headers} <= first.headers.keys()
    for seen in (there, back):
        assert not {"x-key", "authorization", "cookie", "proxy-authorization"} & seen.headers.keys()
        assert seen.headers["x-own"] == "1"
    assert there.headers["host"] == other.url.removeprefix("http://")


async def test_a_password_in_a_redirect_is_not_used(ask: Asking, other: HttpServer) -> None:
    """A server does not decide how we log in elsewhere."""
    address = other.url.replace("http://", "http://user:word@")
    await ask.get(Reply.redirect(address))
    assert "authorization" not in other.seen[0].headers


@pytest.mark.parametrize(
    "location",
    ["ftp://host/", "mailto:x", "http://[::1/", "http://host:99999/", "http://xn--/", "http://*\x7f/"],
)
async def test_a_redirect_that_leads_nowhere(ask: Asking, location: str) -> None:
    """Is an error of the exchange."""
    error = await ask.error(Reply.redirect(location))
    assert (error.code, error.info.retryable) == ("http_failed", True)
    assert location not in str(error)


async def test_only_hosts_of_the_list_are_asked(ask: Asking, other: HttpServer) -> None:
    """Whatever the port; a redirect cannot get round it."""
    ask.new_factory(["127.0.0.1"])
    assert (await ask.get(Reply.redirect(other.url), Reply()))["status"] == 200
    assert len(other.seen) == 1
    port = other.server_port
    error = await ask.error(path=f"http://localhost:{port}/")
    assert (error.code, error.info.details) == ("http_host_not_allowed", {"redirects": 0})
    error = await ask.error(Reply.redirect("/b"), Reply.redirect(f"http://localhost:{port}/"))
    assert (error.code, error.info.details) == ("http_host_not_allowed", {"redirects": 2})
    assert not error.info.retryable
    assert len(other.seen) == 1


@pytest.mark.parametrize(
    ("entry", "host", "allowed"),
    [
        ("example.org", "example.org", True),
        ("example.org", "EXAMPLE.org.", True),
        ("Example.ORG.", "example.org", True),
        ("example.org", "a.example.org", False),
        ("example.org", "example.org.evil.test", False),
        ("example.org", "badexample.org", False),
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "badexample.org", False),
        ("xn--bcher-kva.example", "bücher.example", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "2130706433", False),
        ("*.0.0.1", "127.0.0.1", False),
        ("::1", "[0:0:0:0:0:0:0:1]", True),
        ("[::1]", "[::1]", True),
    ],
)
async def test_how_the_list_is_read(ask: Asking, entry: str, host: str, allowed: bool) -> None:
    """Names without regard to case, addresses by value, patterns for what is below them."""
    factory = ask.new_factory([entry], options={"proxy": ask.server.url})
    # The proxy answers for every host, so that nothing leaves the loopback.
    ask.server.answers = [Reply.text("there")]
    transport = factory.make(ask.desk.env)
    request = {"kind": "http_request_v1", "method": "GET", "url": f"http://{host}/"}
    if allowed:
        assert (await transport.call(IoCall("http", request)))["text"] == "there"
    else:
        with pytest.raises(IoError, match="http_host_not_allowed"):
            await transport.call(IoCall("http", request))
    assert len(ask.server.seen) == allowed


@pytest.mark.parametrize(
    "entry", ["", "http://example.org", "example.org:80", "*", "a.*.org", "bücher.example"]
)
def test_an_entry_that_would_match_nothing_is_refused(entry: str) -> None:
    """At once, rather than when the host is needed."""
    with pytest.raises(ValueError, match="not a host"):
        http_transport([entry])


# Connections


async def test_connections_are_kept_and_shared(ask: Asking) -> None:
    """Among the transports of a factory, until it is closed; then a new one is opened."""
    for _ in range(3):
        await ask.get()
    await ask.factory.aclose()
    await ask.factory.aclose()
    await ask.get()
    peers = [seen.peer for seen in ask.server.seen]
    assert len(set(peers[:3])) == 1
    assert peers[3] != peers[0]


def test_one_factory_serves_loop_after_loop(server: HttpServer) -> None:
    """Closed or not: what belonged to a loop that is gone is never used again."""
    asking = Asking(server)

    async def once(*, close: bool) -> None:
        # Closed by the server, so that a loop that ends without aclose leaves no connection behind.
        answer = await asking.get(Reply(200, b"hello", (("Connection", "close"),)))
        assert answer["text"] == "hello"
        if close:
            await asking.aclose()

    for close in (False, True, False, True):
        asyncio.run(once(close=close))
    assert len(server.seen) == 4


async def test_the_environment_decides_nothing(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that it names is used only if the factory is told to."""
    with serving() as proxy:
        proxy.answers = [Reply.text("by proxy")]
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert (await ask.get(Reply.text("directly")))["text"] == "directly"
        ask.new_factory(options={"trust_env": True})
        assert (await ask.get())["text"] == "by proxy"
        await ask.factory.aclose()


def test_a_factory_serves_its_group() -> None:
    """The namespace is ``http``."""
    assert http_transport().namespace_group == "http"


async def test_libraries_log_nothing_of_a_call(ask: Asking, caplog: pytest.LogCaptureFixture) -> None:
    """They would tell URLs and headers; what others ask by them is logged as ever."""
    caplog.set_level(logging.DEBUG)
    await ask.get(Reply.redirect("/signed?word=1"), Reply(200, b"", (("Set-Cookie", "session=1"),)))
    assert not [record for record in caplog.records if record.name.startswith(("httpx", "httpcore"))]
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.get(ask.server.url)
    names = {record.name for record in caplog.records}
    assert {"httpx", "httpcore.http11", "httpcore.connection"} <= names


# In a run


class Runs:
    """Runs of one state that asks the server, over one store."""

    def __init__(self, server: HttpServer, stores: Stores, **options: Any) -> None:
        self.server = server
        self.stores = stores
        self.clock = InstantClock()
        self.factory = HttpTransportFactory(**options)

    async def run(self, *answers: Reply, redact: bool = False, **fields: Json) -> Json:
        """The state's final context, or the code that its last attempt failed with."""
        self.server.answers = list(answers)
        request = {"kind": "http_request_v1", "method": "GET", "url": self.server.url, **fields}

        async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
            result = await io.call(IoCall("http", request, "k", redact))
            answer = result.response
            ctx.write("answer", answer)
            if "artifact_id" in answer:
                ctx.write("content", (await io.read_artifact(answer["artifact_id"])).decode())

        plan = plan_of(("a", Scripted(handler)))
        engine = Engine(
            FixedResolver(plan), self.factory, clock=self.clock, secrets=[NamedSecrets({"API_TOKEN": TOKEN})]
        )
        self.result = await engine.start(self.stores, await start_run(self.stores, plan))
        if self.result.phase is RunPhase.FAILED:
            events = await self.stores.events.read_range(self.result.run_id, 1)
            return [each.event.error.info.code for each in events if isinstance(each.event, StateFailed)][-1]
        assert self.result.final_snapshot_id is not None
        return (await read_json(self.stores.artifacts, self.result.final_snapshot_id))[0]


@pytest.fixture
async def in_memory(server: HttpServer) -> AsyncIterator[Runs]:
    """Runs in memory."""
    runs = Runs(server, Stores.in_memory(), inline_bytes=200)
    yield runs
    await runs.factory.aclose()


async def test_what_is_no_answer_is_never_a_fact(in_memory: Runs) -> None:
    """The state is tried again, and the answer that comes at last is the only fact."""
    context = await in_memory.run(Reply.text("out of order", 503), Reply(429), Reply.text("fine"))
    assert context["answer"]["text"] == "fine"
    assert await stream(in_memory.stores, in_memory.result) == [
        "started",
        "entered a 0",
        "failed a http_server_error",
        "entered a 1",
        "failed a http_rate_limited",
        "entered a 2",
        "fact_recorded",
        "completed a",
        "run Completed",
    ]
    assert len(in_memory.server.seen) == 3


@pytest.mark.parametrize("status", [429, 503])
async def test_the_retry_waits_as_long_as_the_server_asks(in_memory: Runs, status: int) -> None:
    """Not less than the server's delay."""
    await in_memory.run(Reply(status, b"", (("Retry-After", "4"),)), Reply.text("fine"))
    assert in_memory.clock.slept_until == [START_MILLIS + 4000]


async def test_a_large_answer_is_kept_with_its_fact(in_memory: Runs) -> None:
    """At once for the handler, and in the store afterwards."""
    context = await in_memory.run(Reply.text("x" * 201))
    artifact_id = context["answer"]["artifact_id"]
    assert (context["answer"]["bytes"], context["content"]) == (201, "x" * 201)
    assert await read_bytes(in_memory.stores.artifacts, artifact_id) == b"x" * 201


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, LEAKED),
        Reply(200, LEAKED + b"\xff"),
        Reply(200, LEAKED + b"\n" + b"-" * 200),
        Reply.json({"password": "hunter2hunter2"}),
        Reply(200, b"", (("X-Debug", LEAKED.decode()),)),
        Reply(200, gzip.compress(LEAKED, mtime=0), (("Content-Encoding", "gzip"),)),
    ],
    ids=["text", "bytes", "large", "json", "header", "gzip"],
)
async def test_an_answer_with_a_secret_is_refused_or_redacted(in_memory: Runs, reply: Reply) -> None:
    """In whatever form it comes."""
    assert await in_memory.run(reply) == "secrets_detected"
    context = await in_memory.run(reply, redact=True)
    shown = json.dumps(context) + str(base64.b64decode(context["answer"].get("base64", "")))
    assert "hunter2" not in shown
    assert "[redacted:" in shown


def _forms(value: str) -> set[bytes]:
    """Every form in which a value might stand somewhere, in lower case."""
    raw = value.encode()
    texts = {value, json.dumps(value)[1:-1], raw.hex(), quote(value), quote(value, safe="")}
    for offset in range(3):
        # Without the characters that depend on what stands next to it.
        encoded = base64.b64encode(bytes(offset) + raw).decode()[(0, 2, 3)[offset] :].rstrip("=")[:-1]
        texts |= {encoded, encoded.replace("+", "-").replace("/", "_")}
    return {text.lower().encode() for text in texts}


ECHOES: dict[str, Callable[[str], Reply]] = {
    "nothing": lambda token: Reply.text("the lesson was learnt"),
    "text": lambda token: Reply.text(f"you sent {token}"),
    "json": lambda token: Reply.json({"sent": [token]}),
    "key": lambda token: Reply.json({token: 1}),
    "base64": lambda token: Reply.text(base64.b64encode(f"Bearer {token}".encode()).decode()),
    "hex": lambda token: Reply.text(token.encode().hex().upper()),
    "bytes": lambda token: Reply(200, b"\xff" + token.encode()),
    "large": lambda token: Reply.text("-" * 300 + token),
    "header": lambda token: Reply(200, b"", (("X-Echo", f"Bearer {token}"),)),
    "cookie": lambda token: Reply(200, b"", (("Set-Cookie", f"token={token}"),)),
    "content type": lambda token: Reply(200, b"", (("Content-Type", f"text/plain; charset={token}"),)),
    "status": lambda token: Reply.text(f"no such token: {token}", 500),
    "redirect": lambda token: Reply.redirect(f"ftp://host/{token}"),
    "protocol": lambda token: Reply(raw=f"{token}\r\n\r\n".encode()),
    "broken gzip": lambda token: Reply(200, token.encode(), (("Content-Encoding", "gzip"),)),
}


@pytest.mark.parametrize("redact", [False, True])
async def test_a_named_secret_is_found_nowhere_afterwards(
    server: HttpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, redact: bool
) -> None:
    """Neither in the store's file nor in the log, however the server gives it back."""
    caplog.set_level(logging.DEBUG)
    token = "marigold?velvet/compass+ember" + str(redact)
    completed: set[str] = set()
    async with Stores.sqlite(tmp_path / "store.db") as stores:
        factory = HttpTransportFactory(inline_bytes=200)

        async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
            headers = {"Authorization": secret("API_TOKEN", prefix="Bearer "), "X-Key": secret("API_TOKEN")}
            request = {"kind": "http_request_v1", "method": "GET", "url": server.url, "headers": headers}
            result = await io.call(IoCall("http", request, "k", redact))
            ctx.write("answer", result.response)

        plan = plan_of(("a", Scripted(handler)))
        source = NamedSecrets({"API_TOKEN": token})
        engine = Engine(FixedResolver(plan), factory, clock=InstantClock(), secrets=[source])
        for name, echo in ECHOES.items():
            server.answers = [echo(token)]
            result = await engine.start(stores, await start_run(stores, plan))
            completed |= {name} if result.phase is RunPhase.COMPLETED else set()
        await factory.aclose()
    assert all(seen.headers["authorization"] == f"Bearer {token}" for seen in server.seen)
    assert {seen.headers["x-key"] for seen in server.seen} == {token}
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir()).lower()
    logged = caplog.text.lower().encode()
    assert b"the lesson was learnt" in written
    for form in _forms(token):
        assert form not in written
        assert form not in logged
    echoed = {"text", "json", "base64", "hex", "bytes", "large", "header", "content type"}
    # A key is not redacted but refused.
    assert completed == {"nothing", "cookie"} | (echoed if redact else set())
