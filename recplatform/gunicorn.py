"""gunicorn's configuration: ``gunicorn --config python:recplatform.gunicorn recplatform.wsgi``."""

import os
from typing import Any

# Not the platform's own metrics: their gauges would then tell of this process too,
# which serves nothing.
from prometheus_client import multiprocess

worker_class = "gthread"
threads = 8
keepalive = 75
graceful_timeout = 5
# The most that gunicorn offers: a query of letters beyond ASCII is long when percent-encoded.
limit_request_line = 8190


def child_exit(server: Any, worker: Any) -> None:
    """Take a worker that ended out of what ``/metrics`` says of those that live."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # the library leaves it untyped
