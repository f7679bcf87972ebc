"""An answer as cards and a waterfall, and failures in words."""

from typing import Any

import pytest

from enrichment.errors import EnrichmentError
from indexes.errors import EmbeddingError, SearchError
from surfaces.contracts import Debug, Explanation, Fallback, Item, RecommendResponse, Span
from surfaces.preview import result, words
from tests.surfaces.builders import index_spec

pytestmark = pytest.mark.unit


def item(item_id="a", rank=1, retrieved=1, parts=None, **fields):
    parts = parts or {}
    explanation = Explanation(similarity=0.5, distance=0.5, retrieved_rank=retrieved, parts=parts)
    return Item(
        id=item_id, rank=rank, score=sum(parts.values()), fields=fields, explanation=explanation
    )


def response(*items, total=20.0, spans=(), **changes):
    return RecommendResponse(
        request_id="r",
        surface="shelf",
        revision=1,
        build="v1",
        items=list(items),
        timings_ms={"total": total},
        debug=Debug(spans=list(spans)),
        **changes,
    )


def card(*items, live_ranks=None):
    return result.cards(response(*items), index_spec(), live_ranks or {})[0]


@pytest.mark.parametrize(
    "address",
    [
        "https://shop.example/a.jpg",
        "http://shop.example/a.jpg?w=1",
        "/media/a.png",
        "media/a.png",
        "data:image/png;base64,AAAA",
        "data:image/svg+xml,%3Csvg%3E",
        " /media/a.png ",
    ],
)
def test_images_that_may_be_loaded(address):
    assert result.safe_image(address) == address.strip()


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        " javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,<script>",
        "data:,x",
        "//evil.example/a.png",
        "/\\evil.example/a.png",
        "file:///etc/passwd",
        "ftp://shop.example/a.png",
        "https://",
        "http://[::1",
        "",
        None,
        7,
        ["/a.png"],
        {"alt": "no address"},
    ],
)
def test_images_that_may_not(address):
    assert result.safe_image(address) == ""


def test_an_image_may_be_an_object():
    assert result.safe_image({"src": "/a.png", "alt": "A"}) == "/a.png"
    assert result.safe_image({"url": "javascript:alert(1)"}) == ""


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({"title": "Tea", "name": "Other"}, "Tea"),
        ({"name": "Tea"}, "Tea"),
        ({"price": 3}, "a"),
        ({"title": ""}, "a"),
    ],
)
def test_a_card_has_a_title(fields, title):
    assert card(item(**fields)).title == title


def test_a_card_shows_every_field_once():
    shown = card(item(title="Tea", image="/t.png", price=3, region=["us", "eu"], text="x" * 50))
    assert (shown.title, shown.image) == ("Tea", "/t.png")
    assert shown.fields == [("price", "3"), ("region", "us, eu")]
    assert shown.texts == [("text", "x" * 50)]


def test_a_bad_image_stays_visible_as_a_value():
    shown = card(item(title="Tea", image="javascript:alert(1)"))
    assert shown.image == ""
    assert ("image", "javascript:alert(1)") in shown.fields


def test_bars_share_one_scale_and_names_one_colour():
    first, second = result.cards(
        response(
            item("a", 1, parts={"similarity": 0.8, "signal:likes:brand": 0.2}),
            item("b", 2, parts={"similarity": 0.4, "signal:likes:brand": -0.4}),
        ),
        index_spec(),
        {},
    )
    assert [(part.label, part.width) for part in first.parts] == [
        ("similarity", 100),
        ("likes", 25),
    ]
    assert [part.width for part in second.parts] == [50, 50]
    assert [part.colour for part in first.parts] == [part.colour for part in second.parts] == [0, 1]


def test_more_parts_than_colours_are_still_shown():
    parts = {f"field:f{n}": 0.1 for n in range(12)}
    assert max(part.colour for part in card(item(parts=parts)).parts) == result.COLOURS - 1


def test_scores_of_zero_make_no_bars():
    assert [part.width for part in card(item(parts={"similarity": 0.0})).parts] == [0.0]


def test_ranks_before_reranking_and_live_are_compared():
    shown = card(item(rank=2, retrieved=9), live_ranks={"a": 4})
    assert (shown.moved, shown.live_rank) == (7, 4)
    assert card(item("new"), live_ranks={"a": 4}).live_rank is None


def test_default_items_have_no_score_to_explain():
    shown = result.cards(
        response(Item(id="a", rank=1, score=0, fields={}), fallback=Fallback(level="default_list", reason="embed:timeout")),
        None,
        {},
    )  # fmt: skip
    assert shown[0].parts == []
    assert shown[0].moved == 0


def test_the_waterfall_shows_the_deadline_when_it_is_near():
    spans = [Span(stage="embed", start_ms=0, ms=60), Span(stage="search", start_ms=60, ms=20)]
    fall = result.waterfall(response(total=80, spans=spans), deadline_ms=100)
    assert [bar.label for bar in fall.bars] == ["Embedding the query", "Searching the index"]
    assert fall.bars[1].left == pytest.approx(60 / 102 * 100)
    assert fall.bars[0].width == pytest.approx(60 / 102 * 100)
    assert fall.deadline_left == pytest.approx(100 / 102 * 100)


def test_the_waterfall_of_a_fast_answer_is_not_squeezed():
    spans = [Span(stage="embed", start_ms=0, ms=8)]
    fall = result.waterfall(response(total=10, spans=spans), deadline_ms=300)
    assert fall.deadline_left is None
    assert fall.bars[0].width > 50


def test_a_stage_that_outlives_the_axis_stays_on_it():
    spans = [Span(stage="enrichment:hot", start_ms=90, ms=500, reason="timeout")]
    (bar,) = result.waterfall(response(total=100, spans=spans), deadline_ms=100).bars
    assert bar.left + bar.width <= 100
    assert bar.label == "Signals from hot"
    assert bar.failed == "gave no answer in time"


def test_nothing_ran():
    fall = result.waterfall(response(total=0), deadline_ms=100)
    assert fall.bars == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"),
        ({}, "empty"),
        ({"a": 0.25, "b": -3, "c": 1}, "b -3, c 1, a 0.25"),
        (
            {f"i{n}": n for n in range(14)},
            ", ".join(f"i{n} {n}" for n in range(13, 1, -1)) + " and 2 more",
        ),
    ],
)
def test_signals_show_their_heaviest_entries(value, text):
    run = response().model_copy(update={"debug": Debug(signals={"likes": value})})
    assert result.signals(run) == [("likes", text)]


def test_every_reason_that_a_stage_can_fail_for_has_words():
    families: tuple[Any, ...] = (EmbeddingError, SearchError, EnrichmentError)
    failures = [failure for family in families for failure in (family, *family.__subclasses__())]
    assert len(failures) > 10
    assert {failure.reason for failure in failures} <= words.REASONS.keys()
