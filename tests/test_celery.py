"""Where Celery finds its broker: in a process of its own, as it reads variables past the settings."""

import os
import ssl
import subprocess
import sys

import pytest

SCRIPT = """
from recplatform.celery import app
for connection in (app.connection_for_read(), app.connection_for_write()):
    print(connection.as_uri(include_password=True))
"""


@pytest.mark.parametrize(
    ("variables", "broker"),
    [
        ({"VALKEY_URL": "valkey://:p@h:1/0"}, "redis://:p@h:1/0"),
        ({"VALKEY_URL": "valkeys://h:1/0"}, "rediss://h:1/0"),
        (
            {"VALKEY_URL": "valkey://h:1/0", "CELERY_BROKER_URL": "valkey://valkey.example:2/0"},
            "redis://valkey.example:2/0",
        ),
        (
            {"VALKEY_URL": "valkey://h:1/0", "CELERY_BROKER_URL": "redis://valkey.example:2/0"},
            "redis://valkey.example:2/0",
        ),
    ],
)
def test_the_broker_is_the_one_that_is_named(variables: dict[str, str], broker: str):
    assert said(SCRIPT, variables) == [broker, broker]


@pytest.mark.parametrize(
    ("url", "checks"),
    [
        ("valkeys://h:1/0", str(int(ssl.CERT_REQUIRED))),
        ("valkeys://h:1/0?ssl_ca_certs=/ca.pem", "None"),
        ("valkeys://h:1/0?ssl_cert_reqs=none", str(int(ssl.CERT_NONE))),
    ],
)
def test_certificates_of_the_broker_are_checked(url: str, checks: str):
    """Without any option kombu would check nothing; without this one the client under it does."""
    script = (
        "from recplatform.celery import app\n"
        "ssl = app.connection_for_read().ssl\n"
        "assert ssl\n"
        "print(ssl.get('ssl_cert_reqs'))"
    )
    assert said(script, {"VALKEY_URL": url}) == [checks]


def said(script: str, variables: dict[str, str]) -> list[str]:
    """The lines that a process with these variables prints."""
    inherited = {name: value for name, value in os.environ.items() if name != "CELERY_BROKER_URL"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**inherited, "DJANGO_SETTINGS_MODULE": "recplatform.settings", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()
