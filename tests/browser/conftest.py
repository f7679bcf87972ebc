"""A browser, and the platform in processes of its own for it to visit.

While the browser is open, tests ask the platform only as users do: Playwright runs an event loop
in this thread, in which Django refuses to touch the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from indexes.schema import EndpointSpec
from tests.browser import chromium
from tests.browser.camera import WIDE, Camera
from tests.browser.site import Site, processes

if TYPE_CHECKING:
    # Not on every machine: the C library of Alpine has no build of it.
    from playwright.sync_api import Page, Response

# Nothing but the page: no updates, no calls home. As root there is no sandbox.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
USERNAME, PASSWORD = "robin", "correct-horse-battery"


@pytest.fixture(scope="session")
def browser_path() -> str:
    """The path of Chromium. Tests that ask for it are skipped without one, or fail where it is required."""
    path = chromium.find()
    if path is None:
        (pytest.fail if chromium.required() else pytest.skip)(f"no browser. {chromium.HELP}")
    return path


@pytest.fixture
def site(transactional_db: None, tmp_path: Path, endpoint_spec: EndpointSpec) -> Iterator[Site]:
    """A shop with a live index and two published surfaces, served by real processes."""
    # Not above: this file is read before the models can be.
    from tests.browser.shop import open_shop

    api_key = open_shop(tmp_path, endpoint_spec, USERNAME, PASSWORD)
    with processes(tmp_path / "log") as url:
        yield Site(url, USERNAME, PASSWORD, api_key)


@pytest.fixture
def page(site: Site, browser_path: str) -> Iterator[Page]:
    """A page of a browser on the site. Errors of its scripts fail the test."""
    from playwright.sync_api import sync_playwright

    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        context = browser.new_context(viewport=WIDE, base_url=site.url, color_scheme="light")
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("response", lambda answer: errors.extend(_bad(answer)))
        yield page
        browser.close()
    assert errors == []


def _bad(answer: Response) -> list[str]:
    # Browsers ask for this one by themselves.
    wanted = answer.status >= 400 and not answer.url.endswith("/favicon.ico")
    return [f"{answer.status} {answer.url}"] if wanted else []


@pytest.fixture
def camera(page: Page) -> Camera:
    return Camera.from_environment(page)
