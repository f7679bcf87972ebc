"""An embedding container of a test's own: an HTTP server in place of the SageMaker runtime."""

import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Answer = tuple[int, Mapping[str, str], bytes]


class Call(NamedTuple):
    """One request as it came in."""

    path: str
    headers: Mapping[str, str]
    body: Any


def answer(value: Any, status: int = 200, **headers: str) -> Answer:
    """An answer with a JSON body."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return status, headers, body


def refusal(status: int, kind: str, message: str, **more: Any) -> Answer:
    """An answer in the error form of AWS."""
    body = json.dumps({"message": message, "Message": message, **more}).encode()
    return status, {"x-amzn-ErrorType": kind}, body


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: Any) -> None:
        """A caller that went away is part of a test."""


@dataclass
class Container:
    """Answers each call by ``respond``; None closes the connection without an answer."""

    respond: Callable[[Call], Answer | None] = lambda call: answer([])
    calls: list[Call] = field(default_factory=list)
    port: int = 0

    def start(self) -> None:
        """Start, after a stop at the same port again."""
        self._open: set[socket.socket] = set()
        self._server = _Server(("127.0.0.1", self.port), self._handler())
        self.port = self._server.server_address[1]
        # A short poll, as stopping waits for it.
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Stop, and break every connection as the end of a process does."""
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._open):
            # Not only closed, as its reader still holds it.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        container = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                container._open.add(self.connection)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                call = Call(self.path, dict(self.headers), json.loads(body))
                container.calls.append(call)
                given = container.respond(call)
                if given is None:
                    self.close_connection = True
                    return
                status, headers, content = given
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
