"""What an HTTP answer's status, headers and compression mean."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from perdure.errors import NotAppliedError, RateLimitedError, TransportError
from perdure.secrets.names import is_key_name

if TYPE_CHECKING:
    import httpx

_CHUNK_BYTES = 64 << 10

# Others are recognised by the words in their names.
_CREDENTIALS = frozenset(
    {"authentication-info", "cookie", "proxy-authentication-info", "set-cookie", "set-cookie2"}
)


REFUSALS = frozenset(
    {400, 401, 402, 403, 404, 405, 410, 411, 412, 413, 414, 415, 417, 421, 422, 425, 426, 428, 431, 451}
)
"""The statuses by which a server says that it has not done what this request asks for.

Besides 429. 408 may come from something between that has passed the request on; 409, 423, 424 tell of other
requests, one of the same key perhaps; 406 is about the answer alone. The rest mean what each server likes.
"""
_COME_BACK = frozenset({408, 425})


def unexpected_status(status: int) -> TransportError:
    """The error (``http_status_unexpected``) for a status that the request does not accept.

    ``NotAppliedError`` for a refusal; retryable where the server asks for the request once more.
    """
    kind = NotAppliedError if status in REFUSALS else TransportError
    return kind.of(
        "http_status_unexpected",
        f"the server answered with status {status}",
        retryable=status in _COME_BACK,
        details={"status": status},
    )


def is_no_answer(status: int) -> bool:
    """Whether a server says by ``status`` that it has no answer yet."""
    return status == 429 or 500 <= status <= 599


def refuse_no_answer(status: int, headers: Mapping[str, str], now_seconds: float) -> None:
    """Raise for 429 (``http_rate_limited``) and 5xx (``http_server_error``).

    The details hold the status and, if the server asks for a delay, ``retry_after_ms``.
    """
    if not is_no_answer(status):
        return
    details = {"status": status}
    asked = retry_after_ms(headers, now_seconds)
    if asked is not None:
        details["retry_after_ms"] = asked
    if status == 429:
        limited = RateLimitedError.of(
            "http_rate_limited", "the server asks to be called less often", retryable=True, details=details
        )
        limited.not_applied = True
        raise limited
    raise TransportError.of(
        "http_server_error", f"the server answered with status {status}", retryable=True, details=details
    )


def retry_after_ms(headers: Mapping[str, str], now_seconds: float) -> int | None:
    """What ``retry-after`` asks for, in seconds or as a date; None if it is absent or malformed.

    A date is compared with the server's own ``date`` where there is one, since clocks differ.
    """
    asked = headers.get("retry-after", "").strip()
    if re.fullmatch("[0-9]{1,12}", asked):
        return int(asked) * 1000
    due = _date(asked)
    if due is None:
        return None
    served = _date(headers.get("date", "")) or datetime.fromtimestamp(now_seconds, UTC)
    return max(0, math.ceil((due - served).total_seconds() * 1000))


def content_type(headers: Mapping[str, str]) -> tuple[str, bool]:
    """The charset to read a body by, and whether the body is said to be JSON."""
    return _content_type(headers.get("content-type", ""))


@lru_cache(maxsize=64)
def _content_type(header: str) -> tuple[str, bool]:
    from email.message import Message

    message = Message()
    message["content-type"] = header
    kind = message.get_content_type()
    is_json = kind in ("application/json", "text/json") or kind.endswith("+json")
    return message.get_content_charset("utf-8"), is_json


def shown_headers(headers: httpx.Headers) -> dict[str, str]:
    """The headers that an answer shows, by lower-case name; one that came several times with commas."""
    shown: dict[str, str] = {}
    try:
        for raw_name, raw_value in headers.raw:
            name, value = raw_name.decode("ascii").lower(), raw_value.decode("ascii")
            if not tells_credentials(name):
                shown[name] = f"{shown[name]}, {value}" if name in shown else value
    except UnicodeDecodeError:
        return {name: value for name, value in headers.items() if not tells_credentials(name)}
    return shown


@lru_cache(maxsize=256)
def tells_credentials(header: str) -> bool:
    """Whether a header of this lower-case name may hold what lets its reader in somewhere."""
    return header in _CREDENTIALS or is_key_name(header)


class Gunzip:
    """Unpacks in small pieces, so that a bomb is never in memory as a whole."""

    def __init__(self) -> None:
        self.begun = False
        self._member = _gzip_member()

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What ``data`` adds. ``zlib.error`` for what is not gzip."""
        while data:
            self.begun = True
            if self._member.eof:
                self._member = _gzip_member()
            piece = b""
            while data or len(piece) == _CHUNK_BYTES:
                piece = self._member.decompress(data, _CHUNK_BYTES)
                yield piece
                data = self._member.unconsumed_tail
            data = self._member.unused_data

    def finish(self) -> None:
        """``zlib.error`` if the end is missing."""
        if not self._member.eof:
            raise zlib.error


def _gzip_member() -> Any:
    return zlib.decompressobj(zlib.MAX_WBITS | 16)


def _date(text: str) -> datetime | None:
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
