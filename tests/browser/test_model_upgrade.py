"""The upgrade of an embedding model, as docs/model-upgrade.md tells it and a user does it."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from recplatform.demo.shop import Shop
from recplatform.devstack.model_server import SHORT_ENDPOINT_NAME
from tests.browser.camera import Camera
from tests.browser.site import Site

if TYPE_CHECKING:
    from playwright.sync_api import Page, expect
else:
    expect = pytest.importorskip("playwright.sync_api").expect

pytestmark = pytest.mark.slow
# A build of some hundred items, on a busy machine.
BUILD_MS = 90_000


def builds_asked(site: Site, sessions: int) -> dict[str, str]:
    """Ask as that many shoppers; return the build that answered each."""
    shop = Shop(site.url, site.api_key)
    builds = {}
    for session in (f"s{number}" for number in range(sessions)):
        question = {"query": "warm jacket for the rain", "session_id": session, "limit": 4}
        reply = shop.ask("search-carousel", question)
        assert reply.status == 200, reply.body
        answer = json.loads(reply.body)
        assert answer["items"]
        assert answer["fallback"] is None, answer
        builds[session] = answer["build"]
    return builds


def live_for(site: Site, sessions: int = 30) -> set[str]:
    return set(builds_asked(site, sessions).values())


def settle(page: Page) -> None:
    """Wait until every process serves what was moved: it takes at most a second."""
    page.wait_for_timeout(1200)


def click(page: Page, name: str) -> None:
    """Click the link or button of that name, which an icon's name may stand beside."""
    words = re.compile(rf"(^|\s){re.escape(name)}(\s|$)")
    page.get_by_role("link", name=words).or_(page.get_by_role("button", name=words)).first.click()


def test_a_model_is_upgraded_without_fear(site: Site, page: Page, camera: Camera):
    page.goto("/admin/")
    page.get_by_label("Username").fill(site.username)
    page.get_by_label("Password").fill(site.password)
    click(page, "Log in")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()

    # A second endpoint, tried out before anything depends on it.
    page.goto("/admin/indexes/embeddingendpoint/add/")
    page.get_by_label("Slug").fill("minilm-256")
    page.get_by_label("Endpoint name").fill(SHORT_ENDPOINT_NAME)
    page.get_by_label("Model", exact=True).fill("all-MiniLM-L6-v2@first-256")
    page.get_by_label("Dimension").fill("256")
    camera.take("upgrade-endpoint")
    # Slow enough for the progress to be seen.
    page.get_by_label("Calls a second").fill("2")
    click(page, "Save and continue editing")
    click(page, "Test endpoint")
    click(page, "Embed")
    expect(page.get_by_text(re.compile("2 × 256 numbers in"))).to_be_visible()
    camera.take("upgrade-endpoint-test")

    # The index names it; nothing changes for shoppers until a build is live.
    page.goto("/admin/indexes/indexdefinition/")
    page.get_by_role("link", name="Products").first.click()
    page.get_by_label("Endpoint").select_option(label="minilm-256")
    click(page, "Save and continue editing")
    expect(page.get_by_text("Changed since the live build: the embedding endpoint")).to_be_visible()
    expect(page.get_by_text(re.compile("^For 264 items"))).to_be_visible()
    camera.take("upgrade-index", height=900)
    assert live_for(site, 5) == {"products-v1"}

    page.get_by_role("button", name="Build", exact=True).dblclick()
    expect(page.get_by_text("products-v2 is being built")).to_be_visible()
    expect(page.get_by_text(re.compile("products-v3"))).to_have_count(0)
    page.get_by_role("link", name="products-v2").first.click()
    begun = "document.querySelector('progress[value]')?.value >= 10"
    page.wait_for_function(begun, timeout=BUILD_MS)
    camera.take("upgrade-progress")

    # It is measured, and then waits for a person, since its model is another one.
    ready = page.get_by_text(re.compile("another embedding model"))
    expect(ready.first).to_be_visible(timeout=BUILD_MS)
    expect(page.get_by_role("heading", name="Gates")).to_be_visible()
    camera.take("upgrade-gates")
    movers = page.locator("details[data-rp-keep='gate-overlap']")
    movers.locator("summary").click()
    expect(movers.get_by_text("Most changed")).to_be_visible()
    camera.take_part("upgrade-movers", movers)
    assert live_for(site, 5) == {"products-v1"}

    click(page, "Canary…")
    page.get_by_label("Share of the traffic").fill("10")
    camera.take("upgrade-canary")
    click(page, "Start the canary")
    expect(page.get_by_text("products-v2 answers 10 % of the traffic.")).to_be_visible()
    settle(page)
    sides = builds_asked(site, 200)
    share = Counter(sides.values())
    # 20 are to be expected; less than 3 or more than 45 of 200 come once in a million times.
    assert set(share) == {"products-v1", "products-v2"}
    assert 3 <= share["products-v2"] <= 45
    again = builds_asked(site, 50)
    assert again == {session: sides[session] for session in again}, "a shopper stays on a side"
    page.goto("/admin/indexes/indexdefinition/")
    page.get_by_role("link", name="Products").first.click()
    camera.take("upgrade-index-canary", height=900)

    page.get_by_role("link", name="products-v2").first.click()
    click(page, "Make live…")
    expect(page.get_by_text("Search carousel, Similar items")).to_be_visible()
    camera.take("upgrade-promote")
    page.get_by_label("Why").fill("Smaller vectors, and every gate passed.")
    click(page, "Make live")
    expect(page.get_by_text("products-v2 is live.")).to_be_visible()
    settle(page)
    assert live_for(site) == {"products-v2"}
    camera.take_part("upgrade-timeline", page.get_by_label("Timeline"))

    click(page, "Roll back to products-v1…")
    camera.take("upgrade-roll-back")
    click(page, "Roll back")
    expect(page.get_by_text("products-v1 is live again.")).to_be_visible()
    settle(page)
    assert live_for(site) == {"products-v1"}
