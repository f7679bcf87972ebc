"""A server that answers DynamoDB's protocol as badly as a test wants."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

Misbehave = Callable[["Trouble"], str]

_numbers = itertools.count(1)


@dataclass
class Trouble:
    """What the server does with each request: wait, then send this, or hang up."""

    status: int = 200
    body: bytes = b"{}"
    delay_s: float = 0.0
    hang_up: bool = False
    calls: list[str] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)


def error(code: str, message: str = "the server said so", status: int = 400) -> Trouble:
    kind = f"com.amazonaws.dynamodb.v20120810#{code}"
    return Trouble(status, json.dumps({"__type": kind, "message": message}).encode())


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Misbehave]:
    """A factory: starts a server with this trouble and returns the region it stands for."""
    with _servers(monkeypatch) as start:
        yield start


@contextmanager
def _servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Misbehave]:
    servers: list[ThreadingHTTPServer] = []
    stopped = Event()

    def start(trouble: Trouble) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                trouble.calls.append(self.headers["X-Amz-Target"].partition(".")[2])
                trouble.connections.add(self.client_address[1])
                stopped.wait(trouble.delay_s)
                if trouble.hang_up:
                    self.close_connection = True
                    return
                self.send_response(trouble.status)
                self.send_header("Content-Type", "application/x-amz-json-1.0")
                self.send_header("Content-Length", str(len(trouble.body)))
                self.end_headers()
                self.wfile.write(trouble.body)

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        # Clients are kept by region: one of its own gives this server clients of its own.
        monkeypatch.setenv(
            "AWS_ENDPOINT_URL_DYNAMODB", f"http://127.0.0.1:{server.server_address[1]}"
        )
        return f"trouble-{next(_numbers)}-{time.time_ns()}"

    yield start
    stopped.set()
    for server in servers:
        server.shutdown()
        server.server_close()
