"""What transports talk to in tests: a real HTTP server on the loopback, and an attempt's environment."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from typing import Any, NamedTuple

from perdure import ArtifactId, RunId, StateId, Stores, TransportEnv, artifact_id_for_bytes
from perdure.errors import Json
from perdure.secrets import SecretResolver


class Reply(NamedTuple):
    """What the server answers. ``raw`` is sent instead, as it is; ``holds`` leaves the rest of it out."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    raw: bytes | None = None
    holds: bool = False
    """Whether the client waits for the end of the answer until the server is closed."""

    @classmethod
    def text(cls, text: str, status: int = 200) -> Reply:
        """A plain text."""
        return cls(status, text.encode(), (("Content-Type", "text/plain"),))

    @classmethod
    def json(cls, value: Json, status: int = 200) -> Reply:
        """A JSON document."""
        return cls(status, json.dumps(value).encode(), (("Content-Type", "application/json"),))

    @classmethod
    def redirect(cls, location: str, status: int = 302) -> Reply:
        """Another address."""
        return cls(status, b"", (("Location", location),))


class Seen(NamedTuple):
    """A request as it came: header names are in lower case, and ``peer`` tells connections apart."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    peer: int


class HttpServer(ThreadingHTTPServer):
    """Answers by script, and remembers what it was asked.

    ``answers`` holds the script: each request takes the first that is left, and the last one stays.
    """

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers: list[Reply] = [Reply()]
        self.seen: list[Seen] = []
        self.closing = threading.Event()
        self._connections: set[socket] = set()
        self._lock = threading.Lock()

    def next_reply(self, seen: Seen) -> Reply:
        """Remember a request and take its answer."""
        with self._lock:
            self.seen.append(seen)
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def get_request(self) -> tuple[socket, Any]:
        connection, address = super().get_request()
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def end(self) -> None:
        """Cut what is connected, and wait for all that the server started."""
        self.closing.set()
        self.shutdown()
        with self._lock:
            for connection in self._connections:
                connection.shutdown(SHUT_RDWR)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client may go away whenever it likes."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HttpServer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.next_reply(Seen(self.command, self.path, headers, body, self.client_address[1]))
        if reply.raw is not None:
            self.wfile.write(reply.raw)
            self.close_connection = True
        else:
            self.send_response_only(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else reply.body)
        if reply.holds:
            self.server.closing.wait()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 — the base class names it so
        pass


@contextmanager
def serving() -> Iterator[HttpServer]:
    """A running server."""
    server = HttpServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.end()
        thread.join()


class NamedSecrets:
    """A source of secrets."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def get(self, name: str) -> str | None:
        return self._values.get(name)


class Desk:
    """What an attempt gives to its transports: secrets by name, and room for large bytes."""

    def __init__(self, secrets: Mapping[str, str] | None = None, artifacts: Iterable[bytes] = ()) -> None:
        self.artifacts = {artifact_id_for_bytes(data): data for data in artifacts}
        self.env = TransportEnv(
            Stores.in_memory(),
            RunId("00000000-0000-0000-0000-000000000001"),
            StateId("m.main.s"),
            0,
            SecretResolver([NamedSecrets(secrets or {})]),
            self._keep,
            self._read,
        )

    def _keep(self, data: bytes, _redact: bool) -> ArtifactId:
        artifact_id = artifact_id_for_bytes(data)
        self.artifacts[artifact_id] = data
        return artifact_id

    async def _read(self, artifact_id: ArtifactId) -> bytes:
        return self.artifacts[artifact_id]
