"""DynamoDB, S3 and SageMaker's jobs: one moto server. Its data lives in memory and is gone when it stops.

A job is only kept there, not run: who tests one plays its container.

Run as ``python -m recplatform.devstack.aws FD`` it serves on an inherited socket.
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec

from recplatform.devstack.errors import ComponentMissing
from recplatform.devstack.ports import HOST, http_status, listening_socket
from recplatform.devstack.process import Children, wait_until

# What boto3 sends, down to the service name in the signature, by which moto tells services apart.
_SIGNED = "AWS4-HMAC-SHA256 Credential=dev/20260101/us-east-1/{}/aws4_request, SignedHeaders=host, Signature=0"
_LIST_TABLES = {
    "Authorization": _SIGNED.format("dynamodb"),
    "Content-Type": "application/x-amz-json-1.0",
    "X-Amz-Target": "DynamoDB_20120810.ListTables",
}
_LIST_BUCKETS = {"Authorization": _SIGNED.format("s3")}


class Aws:
    """A server for both stores; either variable that is set replaces its half.

    SageMaker's jobs go with S3, where they read and write.
    """

    variables = ("AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_S3")

    def __init__(self) -> None:
        if find_spec("moto") is None:
            raise ComponentMissing("DynamoDB and S3", "moto[server]", " and ".join(self.variables))

    def start(self, children: Children) -> None:
        with listening_socket() as listener:
            self._port: int = listener.getsockname()[1]
            self._child = children.spawn(
                "aws",
                [sys.executable, "-m", "recplatform.devstack.aws", str(listener.fileno())],
                env=_own_environment(),
                pass_fds=[listener.fileno()],
            )

    def wait(self) -> dict[str, str]:
        wait_until(self._child, self._answers)
        jobs = () if os.environ.get("AWS_ENDPOINT_URL_S3") else ("AWS_ENDPOINT_URL_SAGEMAKER",)
        return dict.fromkeys((*self.variables, *jobs), f"http://{HOST}:{self._port}")

    def _answers(self) -> bool:
        # One real call each: moto loads a service at its first call, which takes a second.
        # SageMaker's is left for the first job.
        calls = (("POST", _LIST_TABLES, b"{}"), ("GET", _LIST_BUCKETS, None))
        return all(
            http_status(self._port, "/", method=method, headers=headers, body=body, timeout_s=30)
            == 200
            for method, headers, body in calls
        )


def _own_environment() -> dict[str, str]:
    """Return the environment without the account that boto3, which moto stands on, would find."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return environment | {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


def serve(fd: int) -> None:
    """Serve on the socket until the process is ended."""
    application = import_module("moto.moto_server.werkzeug_app")
    serving = import_module("werkzeug.serving")
    server = serving.make_server(
        HOST,
        0,
        application.DomainDispatcherApplication(application.create_backend_app),
        threaded=True,
        request_handler=application.MotoRequestHandler,
        fd=fd,
    )
    # A line for each request would fill the disk under load.
    server.RequestHandlerClass.log_request = lambda *_: None
    # An answer goes out in several pieces, which must not wait for each other's receipt.
    server.RequestHandlerClass.disable_nagle_algorithm = True
    server.serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
