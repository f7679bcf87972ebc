"""What a surface serves when its pipeline cannot: the default list held in process, or 503."""

from datetime import UTC, datetime
from itertools import islice

from indexes.filters import matches
from surfaces.binding import Question
from surfaces.contracts import Fallback, Item
from surfaces.document import FallbackMode
from surfaces.errors import ServiceUnavailable, StageFailed
from surfaces.plan import Plan


def fall_back(plan: Plan, question: Question, failure: StageFailed) -> tuple[list[Item], Fallback]:
    """Return the default items that the request's filters let through, in their order.

    Raises ServiceUnavailable where the surface is set to fail fast. Scores are 0:
    nothing was compared.
    """
    if plan.document.fallback is FallbackMode.FAIL:
        raise ServiceUnavailable(plan.slug, failure.reason) from failure
    held = (
        item
        for item in plan.published.default_items
        if item.id not in question.excluded and matches(question.clauses, item.fields)
    )
    items = [
        Item(
            id=item.id,
            rank=rank,
            score=0.0,
            fields={name: item.fields[name] for name in plan.fields if name in item.fields},
        )
        for rank, item in enumerate(islice(held, question.limit), 1)
    ]
    made = plan.published.default_items_at
    age_s = max(0.0, (datetime.now(UTC) - made).total_seconds()) if made else None
    return items, Fallback(
        level=FallbackMode.DEFAULT_LIST.value, reason=failure.reason, age_s=age_s
    )
