"""Requests of the ``http`` transport: what they may say, and what goes out for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, NoReturn
from urllib.parse import urlencode

import msgspec

from perdure.adapters.transports.bodies import BodyFields
from perdure.adapters.transports.http_answers import is_no_answer
from perdure.errors import ErrorCategory, IoError, Json
from perdure.secrets import is_reference

if TYPE_CHECKING:
    import httpx

HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?")
# Told by the URL and the body; a request that says otherwise could pass by the allow-list.
_OWN_HEADERS = frozenset({"connection", "content-length", "host", "te", "transfer-encoding", "upgrade"})
_CREDENTIAL_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})
_CONTENT_TYPES = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "base64": "application/octet-stream",
    "artifact_id": "application/octet-stream",
}

_Parameter = str | int | bool


class HttpRequest(BodyFields, forbid_unknown_fields=True, kw_only=True):
    """What a handler asks for, in the words of the documentation."""

    kind: Literal["http_request_v1"]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    url: str
    query: dict[str, _Parameter | list[_Parameter]] = msgspec.field(default_factory=dict)
    headers: dict[str, str | dict[str, str]] = msgspec.field(default_factory=dict)
    timeout_ms: int = 30_000
    redirects_max: int = 10
    accept_status: list[int] | None = None


def decode_request(data: Json) -> HttpRequest:
    """The request that a call holds; ``IoError`` (``http_request_invalid``) for anything else."""
    try:
        request = msgspec.convert(data, HttpRequest)
        request.form()
    except ValueError as error:
        refuse_request(str(error))
    for name, value in request.headers.items():
        if not HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS:
            refuse_request("a header has a name that cannot be set")
        if isinstance(value, dict) and not is_reference(value):
            refuse_request("a header's value is neither a string nor a reference to a secret")
    if len({name.lower() for name in request.headers}) < len(request.headers):
        refuse_request("a header stands twice")
    if request.timeout_ms <= 0 or request.redirects_max < 0:
        refuse_request("timeout_ms is not positive, or redirects_max is negative")
    if any(is_no_answer(status) for status in request.accept_status or ()):
        refuse_request("accept_status names 429 or 5xx, which are errors")
    return request


def url_of(request: HttpRequest) -> httpx.URL:
    """Where the request goes, with its query. Raises as :func:`decode_request`."""
    import httpx

    try:
        url = httpx.URL(_with_query(request.url, _query_of(request)))
        absolute = leads_somewhere(url)
    except (httpx.InvalidURL, ValueError):
        refuse_request("the URL is malformed")
    if not absolute:
        refuse_request("the URL is not an absolute one of http or https")
    if url.userinfo:
        refuse_request("the URL holds a user or a password; use a header that refers to a secret")
    return url


def headers_of(request: HttpRequest, fill: Callable[[Json], str]) -> dict[str, str]:
    """The request's headers by lower-case name; ``fill`` gives a secret for its reference."""
    headers = {"accept": "*/*", "user-agent": "perdure"}
    form = request.form()
    if form is not None:
        headers["content-type"] = _CONTENT_TYPES[form]
    for name, value in request.headers.items():
        headers[name.lower()] = fill(value)
    for value in headers.values():
        printable(value)
    # What a server compresses in another way is shown as it came.
    return {"accept-encoding": "gzip", **headers}


def printable(value: str) -> str:
    """``value``, which can be a header's; raises as :func:`decode_request` else."""
    if not _HEADER_VALUE.fullmatch(value):
        refuse_request("a header's value is not printable ASCII")
    return value


def leads_somewhere(url: httpx.URL) -> bool:
    """Whether ``url`` is one to ask; ``UnicodeError`` if its host is not a name in any script."""
    host = url.raw_host
    if b"xn--" in host:
        _ = url.host  # decodes it
    return url.scheme in ("http", "https") and bool(host) and (url.port or 0) < 1 << 16


def _query_of(request: HttpRequest) -> str:
    pairs = [
        (name, str(each).lower() if isinstance(each, bool) else str(each))
        for name, value in request.query.items()
        for each in (value if isinstance(value, list) else [value])
    ]
    return urlencode(pairs)


def _with_query(url: str, query: str) -> str:
    if not query:
        return url
    sent, _, _ = url.partition("#")
    return sent + ("" if sent.endswith(("?", "&")) else "&" if "?" in sent else "?") + query


def without_credentials(request: HttpRequest, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that another origin than the one that was asked may know."""
    secrets = {name.lower() for name, value in request.headers.items() if is_reference(value)}
    return {name: value for name, value in headers.items() if name not in _CREDENTIAL_HEADERS | secrets}


def origin_of(url: httpx.URL) -> tuple[str, bytes, int]:
    """The scheme, the host and the port, by which it is told whether two URLs belong together."""
    return url.scheme, url.raw_host, url.port or {"http": 80, "https": 443}[url.scheme]


def refuse_request(problem: str) -> NoReturn:
    """Raise ``IoError`` (``http_request_invalid``)."""
    raise IoError.of(
        "http_request_invalid",
        f"not an HTTP request: {problem}",
        category=ErrorCategory.PARSING_INPUT,
        hint='send {"kind": "http_request_v1", "method": "GET", "url": "https://…"}; the other fields are in '
        "the documentation of the http transport",
    ) from None
