"""The words of the preview's page: every reason that an answer may give has some."""

import ast
import re
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from enrichment.errors import EnrichmentError
from indexes.errors import EmbeddingError, SearchError
from surfaces import pipeline
from surfaces.errors import PlanInvalid
from surfaces.plan import compile_plan
from surfaces.preview import words

pytestmark = pytest.mark.unit

SOURCES = Path(pipeline.__file__).parent
# Where a stage is said to have failed, and which argument says why.
SAYING = {"StageFailed": 1, "degrade": 1, "_failed": 0}


def reasons_of(error: Any) -> set[str]:
    """The reason of an error of a store and of all that are narrower."""
    return {error.reason}.union(*map(reasons_of, error.__subclasses__()))


def reasons_spelled_out() -> set[str]:
    """The words that stand in the code where no error of a store says why."""
    return {
        part.value
        for path in SOURCES.glob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and (place := SAYING.get(ast.unparse(call.func).rpartition(".")[2])) is not None
        for part in ast.walk(call.args[place])
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }


def test_every_reason_that_the_code_gives_has_words():
    given = reasons_spelled_out()
    assert {"overloaded", "timeout", "unknown_items", "no_signal"} <= given
    given.add(signature(compile_plan).parameters["unavailable"].default)
    for error in (EnrichmentError, EmbeddingError, SearchError, PlanInvalid):
        given |= reasons_of(error)
    assert given == words.REASONS.keys()


def test_the_pipeline_explains_the_same_reasons():
    explained = re.findall(r"^([a-z_]+(?:, [a-z_]+)*)  ", pipeline.__doc__ or "", re.MULTILINE)
    assert {name for line in explained for name in line.split(", ")} == words.REASONS.keys()


def test_the_api_promises_the_same_reasons():
    text = (SOURCES.parent / "docs" / "api.md").read_text()
    listed = text.partition("Reasons are stable words:")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == words.REASONS.keys()
