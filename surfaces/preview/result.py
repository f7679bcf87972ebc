"""An answer as the page shows it: cards with the parts of each score, and the waterfall of stages."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from indexes.schema import FieldType, IndexSpec
from surfaces.contracts import Item, RecommendResponse, Span
from surfaces.preview import words

TITLE_FIELDS = ("title", "name")
IMAGE_FIELDS = ("image", "image_url", "thumbnail", "picture")
# Of a map of weights, the heaviest are enough to see what it is.
MOST_WEIGHTS = 12
# Longer values are shown as text of their own.
LONG = 40
# Parts beyond this many share the last colour.
COLOURS = 8


class Part(NamedTuple):
    """One addend of a score; ``width`` is its share of the longest bar, in percent."""

    label: str
    value: float
    width: float
    colour: int


class Bar(NamedTuple):
    """One stage in the waterfall; ``left`` and ``width`` are percent of the time axis."""

    label: str
    ms: float
    left: float
    width: float
    failed: str


@dataclass(frozen=True, slots=True)
class Card:
    """One item. ``moved`` is how far reranking lifted it, ``live_rank`` where it stands live."""

    item: Item
    title: str
    image: str
    texts: list[tuple[str, str]]
    fields: list[tuple[str, str]]
    parts: list[Part]
    moved: int
    live_rank: int | None


@dataclass(frozen=True, slots=True)
class Waterfall:
    """The stages on one time axis, with the deadline as a place on it."""

    bars: list[Bar]
    total_ms: float
    deadline_ms: int
    # None where the answer came so early that the deadline is off the axis.
    deadline_left: float | None


def cards(
    response: RecommendResponse, spec: IndexSpec | None, live_ranks: Mapping[str, int]
) -> list[Card]:
    """Return the items of an answer, best first."""
    names = dict.fromkeys(
        name for item in response.items if item.explanation for name in item.explanation.parts
    )
    colours = {name: min(place, COLOURS - 1) for place, name in enumerate(names)}
    longest = max(map(abs, _values(response.items)), default=0.0)
    return [_card(item, spec, colours, longest, live_ranks.get(item.id)) for item in response.items]


def waterfall(response: RecommendResponse, deadline_ms: int) -> Waterfall:
    """Return when each stage ran, from the request to the answer or the deadline."""
    spans = response.debug.spans if response.debug else []
    total = response.timings_ms.get("total", 0.0)
    axis = max(total, deadline_ms) * 1.02 or 1.0
    far = total < deadline_ms / 4
    if far:
        # The stages would all be slivers before a long wait that nobody waited.
        axis = total * 1.1 or 1.0
    return Waterfall(
        bars=[_bar(span, axis) for span in spans],
        total_ms=total,
        deadline_ms=deadline_ms,
        deadline_left=None if far else 100 * deadline_ms / axis,
    )


def signals(response: RecommendResponse) -> list[tuple[str, str]]:
    """Return each signal of the run with its value, of a map the heaviest entries."""
    found = response.debug.signals if response.debug else {}
    return [(name, _signal(value)) for name, value in sorted(found.items())]


def safe_image(value: object) -> str:
    """Return the address if a page may load it as an image, else an empty text.

    Catalogs hold it as a text, or as an object with ``src`` or ``url``.
    """
    if isinstance(value, dict):
        value = value.get("src") or value.get("url")
    if not isinstance(value, str) or not value.isprintable() or "\\" in value:
        return ""
    try:
        address = urlsplit(value.strip())
    except ValueError:
        return ""
    web = address.scheme in ("http", "https") and bool(address.netloc)
    data = address.scheme == "data" and address.path.startswith("image/")
    relative = not address.scheme and not address.netloc and bool(address.path)
    return value.strip() if web or data or relative else ""


def part_label(name: str) -> str:
    """Return a part of a score in words: ``signal:brand_affinity:brand`` is “brand affinity”."""
    _, _, rest = name.partition(":")
    return (rest.partition(":")[0] or name).replace("_", " ")


def _card(
    item: Item,
    spec: IndexSpec | None,
    colours: Mapping[str, int],
    longest: float,
    live_rank: int | None,
) -> Card:
    title = _title(item, spec)
    image = next((name for name in IMAGE_FIELDS if safe_image(item.fields.get(name))), "")
    explanation = item.explanation
    parts = explanation.parts if explanation else {}
    rest = [
        (name, _text(value)) for name, value in item.fields.items() if name not in (title, image)
    ]
    return Card(
        item=item,
        title=str(item.fields.get(title) or item.id),
        image=safe_image(item.fields.get(image)),
        texts=[(name, text) for name, text in rest if len(text) > LONG],
        fields=[(name, text) for name, text in rest if len(text) <= LONG],
        parts=[
            Part(part_label(name), value, _share(value, longest), colours[name])
            for name, value in parts.items()
        ],
        moved=explanation.retrieved_rank - item.rank if explanation else 0,
        live_rank=live_rank,
    )


def _title(item: Item, spec: IndexSpec | None) -> str:
    fields: Sequence[str] = (
        [field.name for field in spec.fields if field.type is FieldType.TEXT] if spec else []
    )
    return next((name for name in (*TITLE_FIELDS, *fields) if name in item.fields), "")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _signal(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    heaviest = sorted(value.items(), key=lambda entry: -abs(entry[1]))
    text = ", ".join(f"{key} {weight:g}" for key, weight in heaviest[:MOST_WEIGHTS])
    left = len(heaviest) - MOST_WEIGHTS
    return f"{text} and {left} more" if left > 0 else text or "empty"


def _bar(span: Span, axis: float) -> Bar:
    left = min(100.0, 100 * span.start_ms / axis)
    return Bar(
        label=words.stage(span.stage),
        ms=span.ms,
        left=left,
        # A sliver that can be seen, however short the stage.
        width=max(0.6, min(100.0 - left, 100 * span.ms / axis)),
        failed=words.reason(span.reason) if span.reason else "",
    )


def _values(items: Iterable[Item]) -> Iterable[float]:
    return (
        value for item in items if item.explanation for value in item.explanation.parts.values()
    )


def _share(value: float, longest: float) -> float:
    return 100 * abs(value) / longest if longest else 0.0
