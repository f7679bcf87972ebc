"""The stack as a whole: what the environment does not name is started, ready to use, and stopped."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import environ

from recplatform.devstack.aws import Aws
from recplatform.devstack.errors import AlreadyRunning
from recplatform.devstack.ports import HOST
from recplatform.devstack.postgres import Postgres
from recplatform.devstack.process import Child, Children
from recplatform.devstack.sagemaker import SageMaker
from recplatform.devstack.valkey_server import Valkey

REGION = "us-east-1"
# Any of them means that boto3 finds credentials without the dummy ones.
CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


class Service(Protocol):
    """One server of the stack. ``variables`` are set by it, or replace it."""

    @property
    def variables(self) -> tuple[str, ...]: ...

    def start(self, children: Children) -> None:
        """Start the process and return at once."""

    def wait(self) -> dict[str, str]:
        """Return its variables when it is ready; raise ServiceFailed."""


class Stack:
    """Running servers, and the environment in which programs find them."""

    def __init__(self, children: Children, environment: Mapping[str, str]) -> None:
        self._children = children
        self.environment = dict(environment)

    def stopped(self) -> Child | None:
        """Return a server that ended although nobody asked it to, or None."""
        return self._children.stopped()


@contextmanager
def running(
    data_dir: Path, *, durable: bool = True, log_dir: Path | None = None
) -> Iterator[Stack]:
    """Start what the environment does not name; stop it on the way out.

    ``durable`` keeps the data for the next time; otherwise the folder is removed.
    Raises StackProblem. Call it from the main thread.
    """
    with _locked(data_dir):
        children = Children(log_dir or data_dir / "log")
        try:
            services = _missing_services(data_dir, durable=durable)
            for service in services:
                service.start(children)
            environment: dict[str, str] = {}
            for service in services:
                environment |= service.wait()
            yield Stack(children, _complete(environment))
        finally:
            children.stop()
            if not durable:
                shutil.rmtree(data_dir, ignore_errors=True)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of throwaway stacks whose owner was killed."""
    for folder in parent.glob("*/"):
        try:
            with _locked(folder):
                shutil.rmtree(folder, ignore_errors=True)
        except AlreadyRunning:
            continue


def _missing_services(data_dir: Path, *, durable: bool) -> list[Service]:
    """Return the services to start, the slowest to become ready first."""
    given = os.environ
    services: list[Service] = []
    if not given.get("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"):
        services.append(SageMaker())
    if not all(given.get(name) for name in Aws.variables):
        services.append(Aws())
    if not given.get("VALKEY_URL"):
        services.append(Valkey(data_dir, durable=durable))
    elif environ.Env().bool("VALKEY_CLUSTER", default=False) and not given.get("CELERY_BROKER_URL"):
        # kombu cannot keep its queues in a cluster.
        services.append(Valkey(data_dir, durable=durable, search=False))
    if not given.get("DATABASE_URL"):
        services.append(Postgres(data_dir, durable=durable))
    return services


def _complete(started: Mapping[str, str]) -> dict[str, str]:
    """Return what programs need to find the servers, without what the environment has."""
    environment = dict(started)
    given = os.environ
    region = given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION") or REGION
    environment |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    embeds_aws = any(name.startswith("AWS_ENDPOINT_URL") for name in started)
    if embeds_aws and not any(given.get(name) for name in CREDENTIALS):
        environment |= {"AWS_ACCESS_KEY_ID": "embedded", "AWS_SECRET_ACCESS_KEY": "embedded"}
    return {
        **{name: value for name, value in environment.items() if not given.get(name)},
        **_without_proxy(),
    }


def _without_proxy() -> dict[str, str]:
    """Return what keeps calls to the servers of this machine away from a proxy, if one is set."""
    if not any(os.environ.get(name) for name in PROXIES):
        return {}
    kept = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    value = ",".join(filter(None, [kept, HOST, "localhost"]))
    # Of the two spellings, which one wins depends on the client.
    return {"no_proxy": value, "NO_PROXY": value}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock ends with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise AlreadyRunning(
                f"Process {lock.read().strip() or 'of another user'} already uses {folder}. "
                "Stop it first."
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
