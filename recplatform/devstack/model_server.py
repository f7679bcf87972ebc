"""A SageMaker-runtime-compatible server for the embedding model.

It answers what boto3's ``sagemaker-runtime`` client sends
(``POST /endpoints/{name}/invocations``) and what a SageMaker container must
(``GET /ping``, ``POST /invocations``), with SageMaker's own errors.

Two endpoint names lead to the one transformer in memory: ``minilm-l6-v2`` answers its
384 numbers, ``minilm-l6-v2-256`` the first 256 of them scaled to length 1 again, which
makes it another model to upgrade to.

Run as ``python -m recplatform.devstack.model_server [--port N] [--endpoint NAME]``.
"""

import argparse
import asyncio
import socket
import uuid
from collections.abc import Mapping
from types import MappingProxyType

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from recplatform.devstack.batching import Batcher, QueueFull
from recplatform.devstack.model import DIMENSION, SHORT_DIMENSION, MiniLM, shortened

DEFAULT_ENDPOINT_NAME = "minilm-l6-v2"
SHORT_ENDPOINT_NAME = "minilm-l6-v2-256"
# The names that are served, and how many numbers a vector of each has.
ENDPOINTS: Mapping[str, int] = MappingProxyType(
    {DEFAULT_ENDPOINT_NAME: DIMENSION, SHORT_ENDPOINT_NAME: SHORT_DIMENSION}
)
MAX_BODY_BYTES = 6 * 1024 * 1024
LOG_STREAM = "arn:aws:logs:us-east-1:000000000000:log-group:/aws/sagemaker/Endpoints/{}"


class Refused(Exception):
    """An answer in the error form of AWS: a status, an error type and a message."""

    def __init__(self, status: int, kind: str, message: str, **more: object) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.body = {"message": message, "Message": message, **more}


def build_app(batcher: Batcher, endpoints: Mapping[str, int] = ENDPOINTS) -> Starlette:
    """Return the application that serves the model under each endpoint name, in its dimension.

    What asks for no endpoint is answered as the first of them.
    """
    first = next(iter(endpoints))

    async def invoke_endpoint(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in endpoints:
            raise Refused(
                400, "ValidationError", f"Endpoint {name} of account 000000000000 not found."
            )
        return await answer(request, name)

    async def invoke(request: Request) -> Response:
        return await answer(request, first)

    async def answer(request: Request, name: str) -> Response:
        texts = read_inputs(await read_body(request))
        try:
            vectors = await asyncio.wrap_future(batcher.submit(texts))
        except QueueFull:
            raise Refused(429, "ThrottlingException", "Rate exceeded") from None
        except Exception as exc:
            raise Refused(
                424,
                "ModelError",
                f"Received server error (500) from model with message {str(exc)!r}.",
                OriginalStatusCode=500,
                OriginalMessage=str(exc),
                LogStreamArn=LOG_STREAM.format(name),
            ) from exc
        if vectors.shape[1] > endpoints[name]:
            vectors = shortened(vectors, endpoints[name])
        body = orjson.dumps(vectors, option=orjson.OPT_SERIALIZE_NUMPY)
        return _json(body, 200, {"x-Amzn-Invoked-Production-Variant": "AllTraffic"})

    async def ping(_: Request) -> Response:
        return Response(status_code=200)

    async def refuse(_: Request, exc: Exception) -> Response:
        if not isinstance(exc, Refused):
            raise exc
        return _json(orjson.dumps(exc.body), exc.status, {"x-amzn-ErrorType": exc.kind})

    return Starlette(
        routes=[
            Route("/endpoints/{name}/invocations", invoke_endpoint, methods=["POST"]),
            Route("/invocations", invoke, methods=["POST"]),
            Route("/ping", ping),
        ],
        exception_handlers={Refused: refuse},
    )


async def read_body(request: Request) -> bytes:
    """Return the body; refuse one beyond SageMaker's limit without reading all of it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Refused(
                400,
                "ValidationError",
                f"1 validation error detected: Value at 'body' failed to satisfy constraint: "
                f"Member must have length less than or equal to {MAX_BODY_BYTES}",
            )
    return bytes(body)


def read_inputs(body: bytes) -> list[str]:
    """Return the texts of ``{"inputs": "text"}`` or ``{"inputs": ["text", …]}``."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise Refused(400, "ValidationError", f"The body is not JSON: {exc}") from exc
    inputs = document.get("inputs") if isinstance(document, dict) else None
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
        raise Refused(
            400, "ValidationError", 'Send {"inputs": "text"} or {"inputs": ["text", …]}, not empty.'
        )
    return texts


def _json(body: bytes, status: int, headers: dict[str, str]) -> Response:
    return Response(
        body,
        status_code=status,
        media_type="application/json",
        headers={"x-amzn-RequestId": str(uuid.uuid4()), **headers},
    )


def main() -> None:
    """Load the model and serve it until the process is ended."""
    parser = argparse.ArgumentParser(description="Serve the embedding model as SageMaker does.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--fd", type=int, help="serve on this inherited socket instead of a port")
    parser.add_argument(
        "--endpoint",
        action="append",
        help=f"a name to serve in {DIMENSION} numbers; default {' and '.join(ENDPOINTS)}",
    )
    args = parser.parse_args()
    named = dict.fromkeys(args.endpoint or (), DIMENSION)
    app = build_app(Batcher(MiniLM()), named or ENDPOINTS)
    config = uvicorn.Config(
        app,
        host=args.host,
        port=args.port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )
    # Given as a socket, since uvicorn takes a number for one of another family, and
    # would then leave out the option without which an answer waits for 40 ms.
    sockets = None if args.fd is None else [socket.socket(fileno=args.fd)]
    uvicorn.Server(config).run(sockets=sockets)


if __name__ == "__main__":
    main()
