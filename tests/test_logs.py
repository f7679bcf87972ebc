"""Log lines as they leave a process: run in one of its own, since logging is set up once."""

import json
import os
import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured

from recplatform.logs import configure

SCRIPT = """
import django; django.setup()
import logging, structlog
log = structlog.get_logger("surfaces.test")
log.debug("quiet")
log.info("spoken", surface="shelf", items=3)
logging.getLogger("elsewhere").warning("from a library: %s", 5, extra={"code": 7})
try:
    password = "hunter" + "2"
    1 / 0
except ZeroDivisionError:
    log.exception("broken")
"""


def run(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "recplatform.settings", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_in_production_a_line_is_a_json_object():
    spoken, library, broken = (json.loads(line) for line in run(DEBUG="0", LOG_LEVEL="info"))

    assert spoken["event"] == "spoken"
    assert (spoken["surface"], spoken["items"], spoken["level"]) == ("shelf", 3, "info")
    assert spoken["logger"] == "surfaces.test"
    assert spoken["timestamp"].endswith("Z")
    assert (library["event"], library["code"]) == ("from a library: 5", 7)
    assert broken["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert "hunter2" not in json.dumps(broken)


def test_in_development_a_line_is_text_for_people():
    lines = run(DEBUG="1", LOG_LEVEL="DEBUG")

    assert any("quiet" in line for line in lines)
    assert any("surface=shelf" in line for line in lines)


def test_a_level_that_does_not_exist_is_named():
    with pytest.raises(ImproperlyConfigured, match="LOG_LEVEL=LOUD"):
        configure(debug=False, level="LOUD")
