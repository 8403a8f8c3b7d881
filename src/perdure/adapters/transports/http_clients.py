"""The HTTP clients that a factory's transports share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

    import httpx


# A filter does not count for the loggers below the one it was added to.
_LOGGERS = (
    "httpx",
    *(f"httpcore.{name}" for name in ("connection", "http11", "http2", "proxy", "socks")),
    *(f"hpack.{name}" for name in ("hpack", "table")),
)
_unlogged = ContextVar("_unlogged", default=False)


@contextmanager
def unlogged() -> Iterator[None]:
    """Keep the libraries below from logging what is asked meanwhile: they tell URLs and headers in full.

    What others ask by the same libraries is logged as ever.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_may_be_logged)  # once, however often it is added
    token = _unlogged.set(True)
    try:
        yield
    finally:
        _unlogged.reset(token)


def _may_be_logged(_: logging.LogRecord) -> bool:
    return not _unlogged.get()


class Clients:
    """One client for each event loop: connections cannot change loops, and making a client is slow.

    ``options`` are httpx's. What would be remembered from one answer to the next request is not.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._by_loop: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}
        self._tls: ssl.SSLContext | None = None

    def get(self) -> httpx.AsyncClient:
        """The running loop's client, made when it is first asked for."""
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:
            for other in [each for each in list(self._by_loop) if each.is_closed()]:
                self._by_loop.pop(other, None)
            self._by_loop[loop] = self._make()
        return self._by_loop[loop]

    async def aclose(self) -> None:
        """Close the running loop's client."""
        client = self._by_loop.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _make(self) -> httpx.AsyncClient:
        from http.cookiejar import CookieJar, DefaultCookiePolicy

        import httpx

        options = {"trust_env": False, **self._options}
        if "verify" not in options:
            if self._tls is None:
                self._tls = httpx.create_ssl_context(trust_env=options["trust_env"])
            options["verify"] = self._tls
        # Runs share the client, so it must not remember anything: least of all who is logged in.
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        return httpx.AsyncClient(**{**options, "cookies": no_cookies, "timeout": None})
