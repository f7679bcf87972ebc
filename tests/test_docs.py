"""The documents say what is there: settings, checks, commands and links."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
OPERATIONS = (ROOT / "docs/operations.md").read_text()


def test_every_setting_from_the_environment_is_documented():
    settings = (ROOT / "recplatform/settings.py").read_text()
    names = set(re.findall(r'env\.\w+\(\s*"(\w+)"', settings)) - {"AWS_DEFAULT_REGION"}
    assert len(names) > 10
    assert sorted(name for name in names if f"`{name}`" not in OPERATIONS) == []


def test_every_system_check_is_documented():
    ids = set(re.findall(r"indexes\.E\d{3}", (ROOT / "indexes/checks.py").read_text()))
    assert ids
    assert sorted(name for name in ids if name not in OPERATIONS) == []


def test_the_readme_names_commands_that_make_has():
    makefile = (ROOT / "Makefile").read_text()
    for verb in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert f"\n{verb}: " in makefile


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_tree_of_the_architecture_is_that_of_the_project():
    tree = (ROOT / "docs/architecture.md").read_text().split("```")[1]
    package, missing = "", []
    for line in tree.strip().splitlines():
        if match := re.match(r"(\w+)/ ", line):
            package = match[1]
        elif names := re.match(r"  ([\w/, ]+?)(?:  |$)", line):
            for name in re.findall(r"\w+/?", names[1]):
                path = ROOT / package / name
                if not (path.is_dir() if name.endswith("/") else path.with_suffix(".py").exists()):
                    missing.append(f"{package}/{name}")
    assert missing == []
