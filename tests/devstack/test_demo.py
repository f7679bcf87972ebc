"""The demo: from nothing to answers, and back to nothing."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from recplatform.devstack.demo import choose_port, kept_secret
from recplatform.devstack.errors import StackProblem
from recplatform.devstack.ports import free_port, http_status, listening_socket
from tests.devstack.test_process import eventually, gone

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("recplatform", "surfaces", "indexes", "enrichment", "templates", "manage.py")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.mark.unit
def test_the_secret_is_made_once_and_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "local" / "secret"
    secret = kept_secret(path)
    assert len(secret) >= 50
    assert kept_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.unit
def test_a_port_in_use_is_refused_with_the_way_out() -> None:
    with listening_socket() as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackProblem, match=rf"Port {port} is in use.*--port"):
            choose_port(port)
    assert choose_port(port) == port


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project without anything that was generated, as after git clone."""
    folder = tmp_path_factory.mktemp("clone")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    return folder


@pytest.fixture
def start(clone: Path) -> Iterator[Start]:
    """A factory: starts a demo of the clone, which does not outlive the test."""
    started = []
    ours = ("AWS_", "CELERY_", "DATABASE_URL", "DJANGO_", "PYTEST_", "VALKEY_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}

    def start(*arguments: str) -> "subprocess.Popen[str]":
        demo = subprocess.Popen(
            [sys.executable, "-m", "recplatform.devstack.demo", *arguments],
            cwd=clone,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(demo)
        return demo

    yield start
    for demo in started:
        demo.kill()
        demo.wait()


def read_until(demo: "subprocess.Popen[str]", text: str) -> None:
    assert demo.stdout is not None
    lines = []
    for line in demo.stdout:
        lines.append(line)
        if text in line:
            return
    raise AssertionError("".join(lines))


def children_of(demo: "subprocess.Popen[str]") -> list[psutil.Process]:
    children: list[psutil.Process] = psutil.Process(demo.pid).children(recursive=True)
    return children


@pytest.mark.parametrize("moment", ["Starting PostgreSQL", "Creating the database tables"])
def test_ctrl_c_while_it_starts_leaves_nothing(start: Start, moment: str) -> None:
    demo = start()
    read_until(demo, moment)
    servers = [child.pid for child in children_of(demo)]
    demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=30)
    assert demo.returncode == 0, output
    assert "Traceback" not in output
    assert eventually(gone(servers))


@pytest.mark.slow
def test_it_stays_up_until_a_part_of_it_dies_then_runs_again_on_the_same_data(
    start: Start, clone: Path
) -> None:
    port = free_port()
    demo = start("--port", str(port))
    read_until(demo, "Ctrl-C stops everything")
    assert http_status(port, "/readyz") == 200
    document = json.loads((clone / ".local" / "demo.json").read_text())
    assert document["base_url"] == f"http://127.0.0.1:{port}"
    assert len(document["surfaces"]) >= 4

    second = start()
    output, _ = second.communicate(timeout=30)
    assert second.returncode == 1
    assert f"Process {demo.pid} already uses" in output

    children = children_of(demo)
    worker = next(child for child in children if "worker" in child.cmdline())
    worker.kill()
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "worker was ended by signal 9 (SIGKILL)" in output
    assert eventually(gone([child.pid for child in children]))

    again = start("--once")
    output, _ = again.communicate(timeout=180)
    assert again.returncode == 0, output
    assert "live already" in output
