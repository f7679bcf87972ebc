"""Settings that refuse to start an unsafe installation."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit


def start(**environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "SECRET_KEY"}
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from recplatform import settings; print(settings.SESSION_COOKIE_SECURE)",
        ],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_production_needs_a_secret_key_of_its_own():
    refused = start(ENVIRONMENT="production")
    assert refused.returncode != 0
    assert 'SECRET_KEY must be set where ENVIRONMENT is "production"' in refused.stderr


def test_behind_https_cookies_are_secure():
    assert start(ENVIRONMENT="production", SECRET_KEY="x" * 50, HTTPS="1").stdout == "True\n"
    assert start(HTTPS="0").stdout == "False\n"
