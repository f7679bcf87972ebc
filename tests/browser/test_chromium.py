"""Which browser the browser tests take, and what happens without one."""

import pytest

from tests.browser import chromium

pytestmark = pytest.mark.unit


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A factory: a program of that name on a path that holds nothing else."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)

    def make(name: str, exit_code: int = 0) -> str:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\nexit {exit_code}\n")
        path.chmod(0o755)
        return str(path)

    return make


def test_the_first_browser_that_starts_is_taken(program):
    assert chromium.find() is None
    # As on Ubuntu, where it only says how to get a snap.
    program("chromium-browser", exit_code=1)
    assert chromium.find() is None
    chrome = program("google-chrome")
    assert chromium.find() == chrome


def test_the_environment_names_another_one(program, monkeypatch):
    program("chromium")
    own = program("my-browser")
    monkeypatch.setenv("CHROMIUM", own)
    assert chromium.find() == own
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    assert chromium.find() is None


@pytest.mark.parametrize(("asked", "code"), [("", 0), ("1", 1)])
def test_a_missing_browser_is_an_error_where_it_is_required(monkeypatch, capsys, asked, code):
    # A browser that is named is never installed.
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    monkeypatch.setenv("REQUIRE_BROWSER", asked)
    assert chromium.main() == code
    assert "CHROMIUM" in capsys.readouterr().out
