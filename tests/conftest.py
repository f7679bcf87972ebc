"""The stack under the tests, and the fixtures that every package shares."""

import itertools
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings

from recplatform.devstack.errors import StackProblem
from recplatform.devstack.model_server import DEFAULT_ENDPOINT_NAME
from recplatform.devstack.stack import Stack, remove_abandoned, running

ROOT = Path(__file__).resolve().parent.parent
STACKS = ROOT / ".local" / "test"

_exit = pytest.StashKey[ExitStack]()
_numbers = itertools.count(1)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Start the stack before Django reads its settings; workers inherit the environment."""
    if hasattr(config, "workerinput"):
        _load_django(config)
        return
    if settings.configured:
        raise pytest.UsageError(
            "Django's settings were read before the test servers started: "
            "unset DJANGO_SETTINGS_MODULE and give no --ds."
        )
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    run = os.environ["RECPLATFORM_TEST_RUN"] = secrets.token_hex(3)
    option = config.option
    if not (option.help or option.collectonly or option.markexpr == "unit"):
        _start_stack(config, run)
    if not getattr(option, "numprocesses", None):
        _load_django(config)


def _load_django(config: pytest.Config) -> None:
    django.setup()
    # Not in pytest_plugins, which are imported before the models can be.
    if find_spec("tests.fixtures_indexes"):
        config.pluginmanager.import_plugin("tests.fixtures_indexes")


def _start_stack(config: pytest.Config, run: str) -> None:
    config.stash[_exit] = ExitStack()
    remove_abandoned(STACKS)
    try:
        stack = config.stash[_exit].enter_context(running(STACKS / run, durable=False))
    except StackProblem as problem:
        raise pytest.UsageError(str(problem)) from problem
    os.environ.update(stack.environment)
    config.pluginmanager.register(Watch(stack), "stack-watch")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _exit in config.stash:
        config.stash[_exit].close()


class Watch:
    """Ends the run when a server died: what fails after it would only hide the cause."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        dead = self._stack.stopped()
        if dead is not None:
            pytest.exit(f"At or before {report.nodeid}: {dead.failure()}", returncode=3)


@pytest.fixture(scope="session", autouse=True)
def _leave_nothing_behind() -> Iterator[None]:
    """Remove this worker's indexes and keys: the server may be one that is shared."""
    yield
    if "VALKEY_URL" not in os.environ:
        return
    from indexes import valkey, valkey_client
    from indexes.errors import SearchUnavailable
    from indexes.valkey_connections import DEFAULT_TIMEOUT_S

    # A server that died has nothing left to remove.
    with suppress(SearchUnavailable):
        names = valkey_client.read(
            lambda servers: servers.run("FT._LIST"), DEFAULT_TIMEOUT_S, fresh=True
        )
        for name in map(bytes.decode, names):
            if name.startswith(settings.VALKEY_NAMESPACE):
                valkey.drop_index(name)
        valkey.delete_prefix(settings.VALKEY_NAMESPACE)


@pytest.fixture(scope="module", autouse=True)
def _watch_ends() -> Iterator[None]:
    """Stop the process's registry, which would go on asking the endpoints of other tests."""
    yield
    from surfaces.registry import registry

    registry.stop()


@pytest.fixture
def namespace() -> str:
    """A short prefix that no other test uses; none is the start of another."""
    return f"{settings.VALKEY_NAMESPACE}n{next(_numbers)}x"


@pytest.fixture
def valkey() -> Any:
    """The write side's client."""
    from indexes import valkey

    return valkey.writer()


@pytest.fixture(scope="session")
def endpoint_spec() -> Any:
    """The embedding endpoint that the environment offers: 384 dimensions."""
    from indexes.schema import EndpointSpec

    return EndpointSpec(
        slug="minilm",
        endpoint_name=os.environ.get("TEST_SAGEMAKER_ENDPOINT", DEFAULT_ENDPOINT_NAME),
        dimension=384,
    )


@pytest.fixture
def dynamodb_table(namespace: str) -> Iterator[Callable[[Iterable[dict[str, Any]]], str]]:
    """A factory: puts the items, each with its key ``pk``, into a new table and returns its name."""
    import boto3

    dynamodb = boto3.resource("dynamodb")
    tables: list[Any] = []

    def create(items: Iterable[dict[str, Any]]) -> str:
        table = dynamodb.create_table(
            TableName=f"{namespace}-{len(tables)}",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        tables.append(table)
        table.wait_until_exists()
        with table.batch_writer() as batch:
            for item in items:
                batch.put_item(Item=item)
        return table.name

    yield create
    for table in tables:
        table.delete()


@pytest.fixture
def catalog_file(tmp_path: Path) -> Callable[[Iterable[Mapping[str, Any]]], Path]:
    """A factory: writes the rows as JSON lines and returns the path."""
    names = (tmp_path / f"catalog-{number}.jsonl" for number in itertools.count(1))

    def write(rows: Iterable[Mapping[str, Any]]) -> Path:
        path = next(names)
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        return path

    return write
