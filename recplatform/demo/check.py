"""The demo checks itself as its users would: through HTTP."""

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from recplatform.demo.content import SURFACES
from recplatform.demo.credentials import Credentials
from recplatform.demo.report import CALLS
from recplatform.demo.shop import Reply, Shop
from surfaces.contracts import RecommendResponse

PROBLEM = "application/problem+json"
HOSTILE = "{}|@*\"'\\"
ASK = "/api/v1/surfaces/search-carousel/recommendations"


class CheckFailed(Exception):
    """What was found, and where to look."""


def checks(shop: Shop, credentials: Credentials) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield every check by what it shows; each raises CheckFailed."""
    for call in CALLS:
        yield (
            f"{call.surface} answers in the contract's shape",
            lambda call=call: answers(shop, call.surface, call.question),  # type: ignore[misc]  # bound now
        )
    yield "filters hold", lambda: filters_hold(shop)
    yield "a shopper's taste changes the order", lambda: taste_counts(shop)
    yield "similar items leave out the item itself", lambda: seed_is_left_out(shop)
    yield "deals are reduced by 10 % or more", lambda: deals_are_reduced(shop)
    yield "a page of surfaces is answered at once", lambda: page_is_answered(shop)
    yield "an unknown item is no error", lambda: unknown_item_is_served(shop)
    yield "hostile filter values are only values", lambda: hostile_filter_is_a_value(shop)
    yield "a wrong field is named in a problem", lambda: wrong_field_is_named(shop)
    yield "unknown surfaces and missing keys are problems", lambda: doors_are_closed(shop)
    yield "product pictures are served", lambda: pictures_are_served(shop)
    yield "the admin lets its user in", lambda: admin_opens(shop, credentials)
    yield "the preview shows each surface", lambda: preview_shows(shop)


def answers(shop: Shop, slug: str, question: dict[str, Any]) -> RecommendResponse:
    """Return the answer after looking at everything that the contract promises of it."""
    reply = shop.ask_warm(slug, {**question, "explain": True})
    expect(reply, 200)
    try:
        answer = RecommendResponse.model_validate_json(reply.body)
    except ValidationError as error:
        raise CheckFailed(f"{slug} answers in another shape: {error}") from error
    if answer.fallback or answer.degraded:
        raise CheckFailed(
            f"{slug} does not answer in full: {answer.fallback or answer.degraded}. "
            "See web.log and model_server.log."
        )
    if not answer.items:
        raise CheckFailed(f"{slug} gives no items for {question}")
    if [item.rank for item in answer.items] != list(range(1, len(answer.items) + 1)):
        raise CheckFailed(f"{slug} does not rank its items from 1")
    for item in answer.items:
        parts = item.explanation.parts if item.explanation else {}
        if abs(sum(parts.values()) - item.score) > 1e-6:
            raise CheckFailed(f"{slug}: the parts of {item.id} do not add up to its score")
        if missing := {"title", "price", "image"} - item.fields.keys():
            raise CheckFailed(f"{slug}: {item.id} lacks {', '.join(sorted(missing))}")
    return answer


def filters_hold(shop: Shop) -> None:
    question = {
        "query": "warm jacket",
        "context": {"region": "apac"},
        "filters": {"category": ["jackets", "camping"], "price": {"lte": 150}},
    }
    for item in answers(shop, "search-carousel", question).items:
        fields = item.fields
        if (
            fields["category"] not in ("jackets", "camping")
            or fields["price"] > 150
            or fields["in_stock"] != "true"
            or "apac" not in fields["region"]
        ):
            raise CheckFailed(f"{item.id} should have been filtered out: {fields}")


def taste_counts(shop: Shop) -> None:
    question = {"query": "running shoes", "context": {"region": "us"}}
    anyone = answers(shop, "search-carousel", question)
    anna = answers(shop, "search-carousel", {**question, "user_id": "anna"})
    if [item.id for item in anyone.items] == [item.id for item in anna.items]:
        raise CheckFailed("anna gets the order of everyone; is her row in DynamoDB?")
    if not any(
        item.explanation and item.explanation.parts.get("signal:brand_affinity:brand")
        for item in anna.items
    ):
        raise CheckFailed("none of anna's items is lifted by a brand she likes")


def seed_is_left_out(shop: Shop) -> None:
    seed = "coffee-001"
    answer = answers(shop, "similar-items", {"item_ids": [seed]})
    if seed in [item.id for item in answer.items]:
        raise CheckFailed(f"{seed} is recommended beside itself")


def deals_are_reduced(shop: Shop) -> None:
    for item in answers(shop, "deals-row", {"context": {"region": "us"}}).items:
        if item.fields["discount"] < 10:
            raise CheckFailed(f"{item.id} is reduced by {item.fields['discount']} % only")


def page_is_answered(shop: Shop) -> None:
    requests = [{"surface": call.surface, **call.question} for call in CALLS]
    reply = shop.post("/api/v1/recommendations", {"requests": requests})
    expect(reply, 200)
    responses = reply.json()["responses"]
    if [entry.get("surface") for entry in responses] != [call.surface for call in CALLS]:
        raise CheckFailed(f"the page is answered otherwise: {reply.body[:300]!r}")


def unknown_item_is_served(shop: Shop) -> None:
    expect(shop.ask("similar-items", {"item_ids": ["no-such-item"]}), 200)


def hostile_filter_is_a_value(shop: Shop) -> None:
    question = {"query": "tea", "filters": {"brand": HOSTILE, "category": [HOSTILE]}}
    reply = shop.ask("search-carousel", question)
    expect(reply, 200)
    if reply.json()["items"]:
        raise CheckFailed("a filter that no item can pass gives items")


def wrong_field_is_named(shop: Shop) -> None:
    reply = shop.ask("search-carousel", {"query": "tea", "filters": {"colour": "red"}})
    expect(reply, 400, PROBLEM)
    if [error["field"] for error in reply.json()["errors"]] != ["filters.colour"]:
        raise CheckFailed(f"the problem does not name filters.colour: {reply.body!r}")


def doors_are_closed(shop: Shop) -> None:
    expect(shop.ask("no-such-surface", {"query": "tea"}), 404, PROBLEM)
    expect(shop.post(ASK, {"query": "tea"}, key=""), 401, PROBLEM)
    expect(shop.post(ASK, {"query": "tea"}, key="rp_wrong"), 401, PROBLEM)


def pictures_are_served(shop: Shop) -> None:
    answer = answers(shop, "home-row", {})
    expect(shop.get(answer.items[0].fields["image"]), 200, "image/svg+xml")


def admin_opens(shop: Shop, credentials: Credentials) -> None:
    login = "/admin/login/?next=/admin/"
    expect(shop.get(login), 200, "text/html")
    reply = shop.submit(login, username=credentials.admin_user, password=credentials.admin_password)
    expect(reply, 200, "text/html")
    if not shop.cookie("sessionid"):
        raise CheckFailed("the admin refuses the printed user and password")


def preview_shows(shop: Shop) -> None:
    for slug in SURFACES:
        for revision in ("live", "draft"):
            path = f"/preview/{slug}/?query=tea&revision={revision}"
            reply = shop.get(path)
            expect(reply, 200, "text/html")
            if b'class="rp-card"' not in reply.body:
                raise CheckFailed(f"{path} shows no items")


def expect(reply: Reply, status: int, content_type: str = "application/json") -> None:
    """Raise CheckFailed unless the reply has this status and type."""
    if (reply.status, reply.content_type) != (status, content_type):
        raise CheckFailed(
            f"status {reply.status} with {reply.content_type} instead of {status} with "
            f"{content_type}: {reply.body[:300]!r}. See web.log."
        )
