"""Imports: the layers and the vendor modules of pyproject.toml hold."""

import pytest
from importlinter.cli import lint_imports

pytestmark = pytest.mark.unit


def test_imports_keep_to_the_layers(capsys: pytest.CaptureFixture[str]) -> None:
    code = lint_imports(no_cache=True)
    assert code == 0, capsys.readouterr().out
