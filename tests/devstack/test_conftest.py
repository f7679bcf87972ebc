"""The stack under the tests: a run says so when a server dies."""

import os
import subprocess
import sys
from pathlib import Path


def test_a_run_ends_with_the_server_that_died() -> None:
    embedded = ("AWS_", "CELERY_", "DATABASE_URL", "VALKEY_CLUSTER", "VALKEY_REPLICA", "VALKEY_URL")
    ours = (*embedded, "PYTEST_", "DJANGO_")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"),
            Path(__file__).with_name("crash_case.py"),
        ],
        env={name: value for name, value in os.environ.items() if not name.startswith(ours)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "valkey was ended by signal 9 (SIGKILL)" in done.stdout + done.stderr
    assert "test_after_it" not in done.stdout
