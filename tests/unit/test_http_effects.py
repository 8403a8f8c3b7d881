"""Effects by http, with a real server on the loopback: keys, what is known of a call, and what is refused."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from perdure import (
    Context,
    Engine,
    FixedBackoff,
    IoCall,
    IoProvider,
    NotAppliedError,
    PerdureError,
    Recorder,
    RetryPolicy,
    RunConfig,
    RunPhase,
    SideEffectKind,
    StateMeta,
    Stores,
)
from perdure.adapters.transports.http import HttpTransportFactory
from perdure.errors import Json
from tests.servers import Desk, HttpServer, Reply, serving
from tests.support import FixedResolver, InstantClock, Scripted, plan_of, start_run, stream

APPLIES = StateMeta(side_effects=SideEffectKind.APPLY_SIDE_EFFECT, idempotency="pay")


class Paying:
    """Runs of one state that sends one request to a server."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.factories: list[HttpTransportFactory] = []
        self.stores = Stores.in_memory()

    def factory(self, **options: Any) -> HttpTransportFactory:
        """Loading certificates takes long, and nothing here uses them."""
        self.factories.append(HttpTransportFactory(options={"verify": False}, **options))
        return self.factories[-1]

    async def run(self, *answers: Reply, meta: StateMeta = APPLIES, **options: Any) -> Any:
        """How the run ends whose request the server answers so."""
        self.server.answers = list(answers)
        method, headers = options.pop("method", "POST"), options.pop("headers", {})
        url = options.pop("url", self.server.url)
        request: Json = {
            "kind": "http_request_v1",
            "method": method,
            "url": url,
            "headers": headers,
            "accept_status": options.pop("accept_status", None),
        }

        async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
            ctx.write("status", (await io.call(IoCall("http", request, "k"))).response["status"])

        plan = plan_of(("a", Scripted(handler, meta)))
        engine = Engine(FixedResolver(plan), self.factory(**options), clock=InstantClock())
        config = RunConfig(retry_policy=RetryPolicy(3, FixedBackoff(timedelta(seconds=1))))
        self.result = await engine.start(self.stores, await start_run(self.stores, plan, config))
        return self.result

    async def story(self) -> list[str]:
        return await stream(self.stores, self.result)


@pytest.fixture
def server() -> Iterator[HttpServer]:
    """Answers by script."""
    with serving() as running:
        yield running


@pytest.fixture
async def paying(server: HttpServer) -> AsyncIterator[Paying]:
    """Runs against the server."""
    runs = Paying(server)
    yield runs
    for factory in runs.factories:
        await factory.aclose()


async def test_what_changes_the_world_carries_its_key(paying: Paying, server: HttpServer) -> None:
    """The same in every attempt, under the header's usual name or another; what only asks carries none."""
    result = await paying.run(Reply(503), Reply(201))
    assert result.phase is RunPhase.COMPLETED
    key = f"{result.run_id}:m.main.a:0"
    assert [seen.headers["idempotency-key"] for seen in server.seen] == [key, key]
    result = await paying.run(Reply(), idempotency_header="X-Request-Key")
    assert server.seen[-1].headers["x-request-key"] == f"{result.run_id}:m.main.a:0"
    assert "idempotency-key" not in server.seen[-1].headers
    for method in ("GET", "HEAD", "OPTIONS"):
        await paying.run(Reply(), method=method)
        assert "idempotency-key" not in server.seen[-1].headers
        assert "effect_intended" not in await paying.story()


async def test_a_header_of_the_request_s_own_is_kept(paying: Paying, server: HttpServer) -> None:
    """Who names a key knows why."""
    await paying.run(Reply(), headers={"Idempotency-Key": "mine"})
    assert server.seen[-1].headers["idempotency-key"] == "mine"


async def test_nothing_is_sent_from_a_state_that_is_not_declared(paying: Paying, server: HttpServer) -> None:
    """Whatever the method is that changes the world."""
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert (await paying.run(Reply(), meta=StateMeta(), method=method)).phase is RunPhase.FAILED
        assert "failed a effect_not_declared" in await paying.story()
    assert server.seen == []


async def test_a_server_that_knows_no_keys_is_asked_once(paying: Paying, server: HttpServer) -> None:
    """Where it is not known what happened, the run asks."""
    parked = await paying.run(Reply(500), Reply(201), keyed_hosts=["bank.example"])
    assert parked.waiting_for == f"effect_in_doubt {parked.run_id}:m.main.a:0"
    assert len(server.seen) == 1
    done = await paying.run(Reply(500), Reply(201), keyed_hosts=["127.0.0.1"])
    assert done.phase is RunPhase.COMPLETED


@pytest.mark.parametrize("keyed_hosts", [None, []])
async def test_what_a_server_refuses_has_not_happened(
    paying: Paying, server: HttpServer, keyed_hosts: list[str] | None
) -> None:
    """It asks for less, cannot be reached, or does not take the request: the next attempt begins anew."""
    assert (await paying.run(Reply(429), Reply(201), keyed_hosts=keyed_hosts)).phase is RunPhase.COMPLETED
    assert (await paying.story()).count("effect_settled") == 2
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        failed = await paying.run(Reply(), url=url, keyed_hosts=keyed_hosts)
    assert failed.phase is RunPhase.FAILED
    assert (await paying.story()).count("effect_settled") == 3
    await paying.run(Reply(), headers={"Idempotency-Key": "\n"}, keyed_hosts=keyed_hosts)
    assert (await paying.story())[2:5] == [
        "effect_intended",
        "effect_settled",
        "failed a http_request_invalid",
    ]


@pytest.mark.parametrize(
    ("status", "is_refusal", "is_retryable"),
    [
        (400, True, False),
        (404, True, False),
        (422, True, False),
        (425, True, True),
        (408, False, True),
        (409, False, False),
        (423, False, False),
        (499, False, False),
        (302, False, False),
        (202, False, False),
    ],
)
async def test_a_status_that_refuses_says_that_nothing_happened(
    paying: Paying, server: HttpServer, status: int, is_refusal: bool, is_retryable: bool
) -> None:
    """Another one that is not accepted says nothing: a request of the same key may be under way."""
    server.answers = [Reply(status)]
    request: Json = {"kind": "http_request_v1", "method": "POST", "url": server.url, "accept_status": [201]}
    with pytest.raises(PerdureError, match="http_status_unexpected") as caught:
        await paying.factory().make(Desk().env).call(IoCall("http", request))
    assert isinstance(caught.value, NotAppliedError) is is_refusal
    assert caught.value.info.retryable is is_retryable


async def test_what_is_slow_to_prepare_does_not_count_as_time_for_an_answer(
    paying: Paying, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour goes by while certificates are loaded; then the request has all of its time."""
    context, loop = ssl.create_default_context(), asyncio.get_running_loop()
    begun, hours = loop.time, list[int]()
    monkeypatch.setattr(loop, "time", lambda: begun() + 3600 * len(hours))

    def slow(**_: Any) -> ssl.SSLContext:
        hours.append(1)
        return context

    monkeypatch.setattr(httpx, "create_ssl_context", slow)
    factory = HttpTransportFactory()
    paying.factories.append(factory)
    request: Json = {"kind": "http_request_v1", "method": "POST", "url": server.url}
    assert (await factory.make(Desk().env).call(IoCall("http", request)))["status"] == 200
    assert hours == [1]


async def test_what_cannot_be_prepared_was_not_sent(paying: Paying) -> None:
    """A proxy of a scheme that is none, or certificates that are not there: no effect is in doubt."""
    for options in ({"proxy": "gopher://proxy.example"}, {"proxy": "http://[proxy"}):
        factory = HttpTransportFactory(options=options)
        request: Json = {"kind": "http_request_v1", "method": "POST", "url": "http://localhost"}
        with pytest.raises(NotAppliedError, match="http_connect_failed"):
            await factory.make(Desk().env).call(IoCall("http", request))


async def test_a_conflict_leaves_an_effect_in_doubt(paying: Paying, server: HttpServer) -> None:
    """It is asked again under the same key, or a person is."""
    done = await paying.run(Reply(409), Reply(408), Reply(201), accept_status=[201])
    assert done.phase is RunPhase.COMPLETED
    assert (await paying.story()).count("effect_intended") == 1
    assert len({seen.headers["idempotency-key"] for seen in server.seen}) == 1
    parked = await paying.run(Reply(409), accept_status=[201], keyed_hosts=[])
    assert parked.waiting_for == f"effect_in_doubt {parked.run_id}:m.main.a:0"


def test_a_header_that_cannot_be_one_is_refused() -> None:
    """When the transport is made."""
    with pytest.raises(ValueError, match="not a header's name"):
        HttpTransportFactory(idempotency_header="Idempotency Key")
