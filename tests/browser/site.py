"""The platform as it runs: a web server and a worker of their own, over the test's database."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.db import connection

from recplatform.devstack.demo import WEB
from recplatform.devstack.ports import HOST, free_port, http_status
from recplatform.devstack.process import Children, wait_until

ROOT = Path(__file__).resolve().parents[2]
# One process each: the machine has the servers and the browser beside them.
WORKER = [
    *("celery", "--app", "recplatform", "worker", "--pool", "solo"),
    *("--without-gossip", "--without-mingle", "--loglevel", "INFO"),
]


@dataclass(frozen=True)
class Site:
    """Where the platform answers, and who may log in."""

    url: str
    username: str
    password: str
    api_key: str


@contextmanager
def processes(logs: Path) -> Iterator[str]:
    """Run web server and worker on the database of this test; give the address of the web server."""
    children = Children(logs)
    port = free_port()
    python = [sys.executable, "-m"]
    try:
        environment = _environment()
        children.spawn("worker", [*python, *WORKER], env=environment, cwd=ROOT)
        command = [*python, *WEB, "--bind", f"{HOST}:{port}"]
        web = children.spawn("web", command, env=environment, cwd=ROOT)
        wait_until(web, lambda: http_status(port, "/readyz") == 200, timeout_s=90)
        yield f"http://{HOST}:{port}"
        ended = children.stopped()
        if ended is not None:
            raise ended.failure()
    finally:
        children.stop()


def _environment() -> dict[str, str]:
    database = urlsplit(os.environ["DATABASE_URL"])
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "recplatform.settings",
        "DATABASE_URL": database._replace(path=f"/{connection.settings_dict['NAME']}").geturl(),
        "VALKEY_NAMESPACE": settings.VALKEY_NAMESPACE,
        "WEB_CONCURRENCY": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
