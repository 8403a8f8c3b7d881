"""The connections that a factory's transports share."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import ssl

    import httpx


# A filter does not count for the loggers below the one it was added to.
_LOGGERS = (
    *(f"httpcore.{name}" for name in ("connection", "http11", "http2", "proxy", "socks")),
    *(f"hpack.{name}" for name in ("hpack", "table")),
)
_unlogged = ContextVar("_unlogged", default=False)


@contextmanager
def unlogged() -> Iterator[None]:
    """Keep the library below from logging what is asked meanwhile: it tells headers in full.

    What others ask by the same library is logged as ever.
    """
    token = _unlogged.set(True)
    try:
        yield
    finally:
        _unlogged.reset(token)


def _may_be_logged(_: logging.LogRecord) -> bool:
    return not _unlogged.get()


_CONNECTIONS_MAX = 100
"""Of a pool, as httpx has it unless ``limits`` says otherwise."""


class Connections:
    """The pools of one factory: one for each event loop and proxy, since connections cannot change either.

    ``options`` are those of ``httpx.AsyncHTTPTransport``; with ``trust_env`` the environment's proxies are
    used. A pool remembers nothing of one answer for the next request: no cookies, nobody who is logged in.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = {"trust_env": False, **options}
        self._by_loop: dict[asyncio.AbstractEventLoop, dict[str | None, httpx.AsyncHTTPTransport]] = {}
        self._places: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
        self._tls: ssl.SSLContext | None = None

    def get(self, url: httpx.URL) -> httpx.AsyncHTTPTransport:
        """The running loop's pool for ``url``, made when it is first asked for."""
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:
            for other in [each for each in list(self._by_loop) if each.is_closed()]:
                self._by_loop.pop(other, None)
            self._by_loop[loop] = {}
        pools = self._by_loop[loop]
        proxy = self._environment_proxy(url)
        if proxy not in pools:
            pools[proxy] = self._make(proxy)
        return pools[proxy]

    def place(self) -> asyncio.Semaphore:
        """Where the running loop's requests wait for one of its connections.

        A request that waits in the pool would be in doubt when its time is up, though nothing was sent; and
        pools look at every connection for each request that waits.
        """
        loop = asyncio.get_running_loop()
        if loop not in self._places:
            self._places[loop] = asyncio.Semaphore(self._connections_max())
        return self._places[loop]

    def _connections_max(self) -> int:
        limits = self._options.get("limits")
        if limits is None:
            return _CONNECTIONS_MAX
        return sys.maxsize if limits.max_connections is None else int(limits.max_connections)

    async def aclose(self) -> None:
        """Close the running loop's pools."""
        for pool in self._by_loop.pop(asyncio.get_running_loop(), {}).values():
            await pool.aclose()

    def _environment_proxy(self, url: httpx.URL) -> str | None:
        if not self._options["trust_env"] or "proxy" in self._options:
            return None
        from urllib.request import getproxies_environment, proxy_bypass

        if proxy_bypass(url.host):
            return None
        proxies = getproxies_environment()
        return proxies.get(url.scheme) or proxies.get("all")

    def _make(self, proxy: str | None) -> httpx.AsyncHTTPTransport:
        import httpx

        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_may_be_logged)  # once, however often it is added
        options = self._options if proxy is None else {**self._options, "proxy": proxy}
        if "verify" not in options:
            if self._tls is None:  # slow to make
                self._tls = httpx.create_ssl_context(trust_env=options["trust_env"])
            options = {**options, "verify": self._tls}
        return httpx.AsyncHTTPTransport(**options)
