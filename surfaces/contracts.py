"""What a recommendation call takes and gives: the public contract, without Django.

The API, the preview page and offline evaluation all speak these types.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

ItemId = Annotated[str, Field(min_length=1, max_length=256)]
Key = Annotated[str, Field(min_length=1, max_length=64)]


class RecommendRequest(BaseModel):
    """One question to one surface. At least what the surface needs of query, item_ids or user_id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: str | None = Field(None, max_length=1000, description="Text to search for.")
    item_ids: list[ItemId] = Field(
        default=[], max_length=50, description="Find items similar to these."
    )
    user_id: str | None = Field(None, max_length=256)
    session_id: str | None = Field(None, max_length=256)
    context: dict[Key, str | int | float | bool | None] = Field(
        default={},
        max_length=50,
        description="Free key-values that filters and enrichment sources may name.",
    )
    filters: dict[Key, JsonValue] = Field(
        default={},
        max_length=50,
        description='By field: a value, a list of values, or bounds such as {"lte": 30}. '
        "Only fields that the surface opens to callers.",
    )
    exclude_ids: list[ItemId] = Field(default=[], max_length=500)
    limit: int | None = Field(None, ge=1, le=1000)
    explain: bool = False


class Explanation(BaseModel):
    """How an item got its score: the parts add up to it."""

    similarity: float | None
    distance: float | None
    retrieved_rank: int
    parts: dict[str, float]


class Item(BaseModel):
    """A recommended item."""

    id: str
    rank: int
    score: float
    fields: dict[str, Any]
    explanation: Explanation | None = None


class Degraded(BaseModel):
    """A stage that failed or was skipped; the answer was made without it."""

    stage: str
    reason: str
    spent_ms: float


class Fallback(BaseModel):
    """Which fallback answered instead of the pipeline, why, and how old its items are."""

    level: str
    reason: str
    age_s: float | None = None


class Span(BaseModel):
    """One stage of a run: when it started after the request, and how long it took."""

    stage: str
    start_ms: float
    ms: float
    reason: str = ""


class Debug(BaseModel):
    """What engineers want to see of one run; only with ``explain``.

    ``retrieval`` says where the candidates came from: ``query``, ``items``,
    ``query+items``, ``signal``, ``default_query`` or ``browse``.
    """

    search: str | None = None
    retrieval: str | None = None
    candidates: int = 0
    signals: dict[str, Any] = {}
    spans: list[Span] = []


class RecommendResponse(BaseModel):
    """The answer of one surface."""

    request_id: str
    surface: str
    revision: int
    build: str | None = Field(description="The index build that was asked.")
    variant: str | None = Field(
        None, description='"canary" where a build on trial was asked; null for the live one.'
    )
    items: list[Item]
    degraded: list[Degraded] = []
    fallback: Fallback | None = None
    timings_ms: dict[str, float]
    debug: Debug | None = None
