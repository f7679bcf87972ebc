"""Run by test_conftest.py alone: tests during which the search engine dies."""

import os
import signal
import time
from typing import Any


def test_that_the_engine_does_not_survive(valkey: Any) -> None:
    os.kill(valkey.info()["process_id"], signal.SIGKILL)
    time.sleep(0.5)


def test_after_it() -> None:
    raise AssertionError("The run should have ended.")
