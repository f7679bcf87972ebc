"""Model servers of this process, for the tests of what they speak."""

import threading
from collections.abc import Callable, Iterator

import boto3
import pytest
import uvicorn
from botocore.config import Config

from recplatform.devstack.batching import Batcher
from recplatform.devstack.model import MiniLM
from recplatform.devstack.model_server import build_app
from recplatform.devstack.ports import HOST, http_status, listening_socket

# One attempt: what a retry would hide is what these tests are about.
ONCE = Config(retries={"total_max_attempts": 1}, read_timeout=30)


class Served:
    """A model server and a real client of it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.client = boto3.client(
            "sagemaker-runtime",
            endpoint_url=f"http://{HOST}:{port}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=ONCE,
        )


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Batcher], Served]]:
    """A factory: serves the batcher's model until the end of the session."""
    servers = []

    def start(batcher: Batcher) -> Served:
        listener = listening_socket()
        server = uvicorn.Server(uvicorn.Config(build_app(batcher), log_level="error"))
        servers.append(server)
        threading.Thread(target=server.run, args=([listener],), daemon=True).start()
        port = listener.getsockname()[1]
        assert http_status(port, "/ping") == 200
        return Served(port)

    yield start
    for server in servers:
        server.should_exit = True


@pytest.fixture(scope="session")
def model() -> MiniLM:
    return MiniLM()


@pytest.fixture(scope="session")
def served(serve: Callable[[Batcher], Served], model: MiniLM) -> Served:
    """The real model, served."""
    return serve(Batcher(model))
