"""The ``http`` transport: one request, and what the server answers.

A request is ``{"kind": "http_request_v1", "method", "url", "query", "headers", "timeout_ms",
"redirects_max", "accept_status"}`` with at most one of ``json``, ``text``, ``base64`` and ``artifact_id``
as its body. A header's value may be a reference of ``perdure.secrets.secret``. The answer is ``{"status",
"headers"}`` with exactly one of ``json``, ``text``, ``base64`` and ``artifact_id`` (then with ``bytes``, its
size). Headers that carry credentials are left out.

A request that is an effect carries its idempotency key, in the header ``Idempotency-Key`` unless another is
named. Every method but GET, HEAD and OPTIONS changes the world.

429 and 5xx are errors, never answers: they say that there is none yet. Redirects are followed for GET and
HEAD, unless ``redirects_max`` is 0; to another origin nothing goes along that came from a secret. With
``accept_status`` every other status is an error. No error tells anything of what was sent or came back.

That an effect was not made is taken from 429 and, where ``accept_status`` leaves them out, from the statuses
of 4xx by which a server refuses this very request (``REFUSALS``); 408, 409 and others leave it in doubt.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast
from urllib.parse import urlsplit

from perdure.adapters.transports.bodies import shown
from perdure.adapters.transports.http_answers import (
    Gunzip,
    content_type,
    refuse_no_answer,
    shown_headers,
    unexpected_status,
)
from perdure.adapters.transports.http_connections import Connections, unlogged
from perdure.adapters.transports.http_hosts import AllowedHosts
from perdure.adapters.transports.http_requests import (
    HEADER_NAME,
    HttpRequest,
    decode_request,
    headers_of,
    leads_somewhere,
    origin_of,
    printable,
    refuse_request,
    url_of,
    without_credentials,
)
from perdure.adapters.transports.limits import HTTP_BODY_BYTES, INLINE_BYTES
from perdure.arguments import expect_many
from perdure.errors import ErrorCategory, IoError, Json, NotAppliedError, TransportError
from perdure.io.effects import EffectTraits
from perdure.io.port import TransportEnv
from perdure.model.handler import IoCall

if TYPE_CHECKING:
    import httpx

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
IDEMPOTENCY_HEADER = "Idempotency-Key"
KEY_LIFETIME = timedelta(hours=24)
_READS, _CHANGES = EffectTraits(is_effect=False), EffectTraits(is_effect=True)


class _Keys(NamedTuple):
    """How idempotency keys are sent, and who honours them; None is everybody."""

    header: str
    traits: EffectTraits
    hosts: AllowedHosts | None

    def traits_for(self, url: str) -> EffectTraits:
        if self.hosts is None or self.hosts.allow(urlsplit(url).hostname or ""):
            return self.traits
        return _CHANGES


class _Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes


class HttpTransportFactory:
    """Makes ``http`` transports, which share their connections.

    ``allowed_hosts`` names the hosts that may be asked, whatever the port: ``example.org`` that very host,
    ``*.example.org`` the hosts below it; None allows all. ``limit_bytes`` bounds the body of an answer,
    decompressed; more than ``inline_bytes`` of it become an artifact. Servers are taken to honour the key in
    ``idempotency_header`` for ``key_lifetime``; where ``keyed_hosts`` are given, only these. ``options`` go
    to ``httpx.AsyncHTTPTransport`` (``verify``, ``proxy``, ``limits``, …). Proxies and certificates that the
    environment names are used only with ``trust_env``.
    """

    namespace_group = "http"

    def __init__(
        self,
        allowed_hosts: Iterable[str] | None = None,
        *,
        limit_bytes: int = HTTP_BODY_BYTES,
        inline_bytes: int = INLINE_BYTES,
        idempotency_header: str = IDEMPOTENCY_HEADER,
        key_lifetime: timedelta = KEY_LIFETIME,
        keyed_hosts: Iterable[str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if not HEADER_NAME.fullmatch(idempotency_header):
            raise ValueError(f"not a header's name: {idempotency_header!r}")
        self._hosts = _hosts(allowed_hosts, "allowed_hosts")
        self._keys = _Keys(
            idempotency_header.lower(),
            EffectTraits(is_effect=True, is_idempotent=True, key_lifetime=key_lifetime),
            _hosts(keyed_hosts, "keyed_hosts"),
        )
        self._limit_bytes = limit_bytes
        self._inline_bytes = inline_bytes
        self._connections = Connections(options or {})

    def make(self, env: TransportEnv) -> HttpTransport:
        """A transport; only connections are kept between calls."""
        return HttpTransport(
            env, self._connections, self._hosts, self._keys, self._limit_bytes, self._inline_bytes
        )

    async def aclose(self) -> None:
        """Close the connections of the running event loop. A later call opens new ones."""
        await self._connections.aclose()


class HttpTransport:
    """Sends requests. Raises ``IoError``, ``TransportError`` and ``RateLimitedError`` (``http_…``)."""

    def __init__(
        self,
        env: TransportEnv,
        connections: Connections,
        hosts: AllowedHosts | None,
        keys: _Keys,
        limit_bytes: int,
        inline_bytes: int,
    ) -> None:
        self._keys = keys
        self._env = env
        self._connections = connections
        self._hosts = hosts
        self._limit_bytes = limit_bytes
        self._inline_bytes = inline_bytes

    def effect_traits(self, call: IoCall) -> EffectTraits:
        """What the method and the host of a request say."""
        request = call.request if isinstance(call.request, dict) else {}
        if request.get("method") in SAFE_METHODS:
            return _READS
        return self._keys.traits_for(str(request.get("url")))

    async def call(self, call: IoCall) -> Json:
        request = decode_request(call.request)
        url = url_of(request)
        self._check_host(url, redirects=0)
        try:
            content = await request.content(self._env)
        except ValueError as error:
            refuse_request(str(error))
        headers = headers_of(request, self._env.secrets.fill)
        if call.idempotency_key is not None and request.method not in SAFE_METHODS:
            headers.setdefault(self._keys.header, printable(call.idempotency_key))
        reply = await self._within_deadline(request, url, headers, content)
        charset, may_be_json = content_type(reply.headers)
        body = shown(
            reply.content, call, self._env, self._inline_bytes, may_be_json=may_be_json, charset=charset
        )
        if "artifact_id" in body:
            body["bytes"] = len(reply.content)
        return {"status": reply.status, "headers": reply.headers, **body}

    def _check_host(self, url: httpx.URL, *, redirects: int) -> None:
        if self._hosts is None or self._hosts.allow(url.raw_host.decode()):
            return
        raise IoError.of(
            "http_host_not_allowed",
            "a redirect leads to a host that is not on the allow-list"
            if redirects
            else "the host is not on the allow-list",
            category=ErrorCategory.PARSING_INPUT,
            details={"redirects": redirects},
        )

    async def _within_deadline(
        self, request: HttpRequest, url: httpx.URL, headers: dict[str, str], content: bytes | None
    ) -> _Reply:
        import httpx

        try:
            # Made before the deadline begins: what is slow to make is no reason to doubt what was sent.
            self._connections.get(url)
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
            raise NotAppliedError.of(
                "http_connect_failed",
                "no connection could be prepared: look at the transport's options",
                details={"reason": type(error).__name__},
            ) from None
        try:
            async with self._connections.place(), asyncio.timeout(request.timeout_ms / 1000):
                with unlogged():
                    return await self._exchange(request, url, headers, content)
        except TimeoutError:
            raise TransportError.of(
                "http_timeout",
                f"no complete answer came within {request.timeout_ms} ms",
                retryable=True,
                details={"timeout_ms": request.timeout_ms},
            ) from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            raise NotAppliedError.of(
                "http_connect_failed", "the server could not be reached", retryable=True
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, zlib.error) as error:
            # UnicodeError: a redirect to a host whose name is no text.
            _failed(type(error).__name__)

    async def _exchange(
        self, request: HttpRequest, url: httpx.URL, headers: dict[str, str], content: bytes | None
    ) -> _Reply:
        import httpx

        follows = request.method in ("GET", "HEAD") and request.redirects_max > 0
        redirects = 0
        while True:
            message = httpx.Request(request.method, url, headers=headers, content=content)
            response = await self._connections.get(url).handle_async_request(message)
            try:
                refuse_no_answer(response.status_code, response.headers, time.time())
                if not (follows and response.has_redirect_location):
                    return await self._read(request, response)
                redirects += 1
                if redirects > request.redirects_max:
                    raise TransportError.of(
                        "http_too_many_redirects",
                        f"the server redirects more than {request.redirects_max} times",
                    )
                origin, url = origin_of(url), url.join(response.headers["location"])
                if not leads_somewhere(url):
                    _failed("a redirect that leads nowhere")
                if origin_of(url) != origin:
                    headers = without_credentials(request, headers)
                self._check_host(url, redirects=redirects)
            finally:
                await response.aclose()

    async def _read(self, request: HttpRequest, response: httpx.Response) -> _Reply:
        if request.accept_status is not None and response.status_code not in request.accept_status:
            raise unexpected_status(response.status_code)
        headers = shown_headers(response.headers)
        unpacked = Gunzip() if headers.get("content-encoding", "").lower() in ("gzip", "x-gzip") else None
        data = bytearray()
        chunks = cast("httpx.AsyncByteStream", response.stream).__aiter__()
        async with aclosing(cast("AsyncGenerator[bytes, None]", chunks)) as stream:
            async for chunk in stream:
                for piece in (chunk,) if unpacked is None else unpacked.pieces(chunk):
                    data += piece
                    if len(data) > self._limit_bytes:
                        raise TransportError.of(
                            "http_response_too_large",
                            f"the answer's body is larger than {self._limit_bytes} bytes",
                        )
        if unpacked is not None and unpacked.begun:
            unpacked.finish()
            # They tell of the body before it was unpacked.
            headers = {
                name: headers[name] for name in headers.keys() - {"content-encoding", "content-length"}
            }
        return _Reply(response.status_code, headers, bytes(data))


def _failed(what: str) -> NoReturn:
    raise TransportError.of(
        "http_failed", "the exchange with the server failed", retryable=True, details={"reason": what}
    ) from None


def _hosts(hosts: Iterable[str] | None, name: str) -> AllowedHosts | None:
    if hosts is None:
        return None
    return AllowedHosts(expect_many(hosts, str, f"http_transport({name}=…)", "names of hosts"))
