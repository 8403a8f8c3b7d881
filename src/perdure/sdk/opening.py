"""``perdure.open``: a store and an app, opened together."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.clock import Clock
from perdure.engine.engine import PARK_AFTER
from perdure.errors import RunError
from perdure.sdk.app import App
from perdure.sdk.checks import expect
from perdure.sdk.client import MAX_CONCURRENCY, Client
from perdure.sdk.ops import Op
from perdure.sdk.pipelines import PipelineDefinition
from perdure.stores.bundle import Stores

if TYPE_CHECKING:
    from perdure.sdk.blocking import BlockingClient


class Opening:
    """What :func:`perdure.open` gives: enter it with ``async with``, with ``with``, or await it."""

    def __init__(
        self,
        store: str | Path | Stores,
        app: App,
        *,
        recover: bool,
        clock: Clock | None,
        park_after: timedelta,
        max_concurrency: int,
    ) -> None:
        self._max_concurrency = max_concurrency
        self._park_after = park_after
        self._store = store
        self._app = app
        self._recover = recover
        self._clock = clock
        self._client: Client | None = None
        self._blocking: BlockingClient | None = None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if hasattr(Client, name):
                raise RunError.of(
                    "client_not_open", f"{name} is a client's, and nothing was entered or awaited"
                )
            raise AttributeError(name)

    async def open(self) -> Client:
        """A client that its caller closes with ``aclose()``."""
        if isinstance(self._store, Stores):
            stores = self._store
        else:
            stores = Stores.sqlite(self._store) if isinstance(self._store, Path) else Stores.open(self._store)
        owned = stores is not self._store
        client = Client(
            stores,
            self._app,
            clock=self._clock,
            closes_stores=owned,
            park_after=self._park_after,
            max_concurrency=self._max_concurrency,
        )
        try:
            if self._recover:
                await client.recover()
                client.keep_recovering()
        except BaseException:
            await client.aclose()
            raise
        return client

    def __await__(self) -> Generator[Any, None, Client]:
        return self.open().__await__()

    async def __aenter__(self) -> Client:
        self._client = await self.open()
        return self._client

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await asyncio.shield(self._client.aclose())

    def __enter__(self) -> BlockingClient:
        from perdure.sdk.blocking import BlockingClient

        self._blocking = BlockingClient(self)
        return self._blocking

    def __exit__(self, *_: object) -> None:
        if self._blocking is not None:
            self._blocking.close()


def open(  # noqa: A001 — read as perdure.open
    store: str | Path | Stores,
    app: App | Op[Any, Any] | PipelineDefinition[Any, Any] | Sequence[Any],
    *,
    recover: bool = True,
    clock: Clock | None = None,
    park_after: timedelta = PARK_AFTER,
    max_concurrency: int = MAX_CONCURRENCY,
) -> Opening:
    """Open a store for an app: ``async with perdure.open("runs.db", app=app) as p: …``.

    ``store`` is a path, an address such as ``sqlite:PATH``, or stores that the caller closes. ``app`` may be
    one operation or pipeline too, or several. With ``recover`` every unfinished run that nobody owns is
    driven on here as soon as it is due, for as long as the client is open. A run that has to wait for longer
    than ``park_after`` leaves the memory, and comes back when it is due. Of the runs that were not started
    here, and of child runs, ``max_concurrency`` are executed at a time.

    In programs without an event loop ``with perdure.open(…) as p`` gives a ``BlockingClient``. In a
    notebook ``p = await perdure.open(…)``, and ``await p.aclose()`` in the end.
    """
    expect(store, (str, Path, Stores), "the store of perdure.open(…)", "a path, an address or Stores")
    if isinstance(app, (Op, PipelineDefinition)):
        app = App([app])
    elif not isinstance(app, App):
        app = App(app)
    return Opening(
        store, app, recover=recover, clock=clock, park_after=park_after, max_concurrency=max_concurrency
    )
