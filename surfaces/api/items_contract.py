"""The bodies of the calls that change items."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MOST_ITEMS = 1000
# In bytes: a thousand items with vectors of some 700 numbers.
LARGEST_BODY = 16 * 1024 * 1024


class ItemsToPut(BaseModel):
    """Rows as the index's catalog has them."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_ITEMS)]


class ItemToDelete(BaseModel):
    """An item, and which version of it the deletion is: `version` or `updated_at`, as in a row."""

    id: str | int
    version: float | str | None = None


class ItemsToDelete(BaseModel):
    """Items to delete: either their ids, or objects that may carry a version."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[str | int], Field(min_length=1, max_length=MOST_ITEMS)] | None = None
    items: Annotated[list[ItemToDelete], Field(min_length=1, max_length=MOST_ITEMS)] | None = None


class RefusedItem(BaseModel):
    """An entry that was not taken."""

    index: int = Field(description="Its place in the call, from 0.")
    id: str | None = Field(description="Its id, where it could be read.")
    code: str = Field(
        description="Stable; such as `older_version`, `unknown_item`, `embedding_unavailable`, "
        "or the reason why a load rejects a row, such as `bad_numeric`."
    )
    message: str
    retryable: bool = Field(description="Sent again later, it may be accepted.")


class ItemsOutcome(BaseModel):
    """What became of each entry: those that `refused` does not name were accepted."""

    request_id: str
    accepted: int
    refused: list[RefusedItem]
    builds: list[str] = Field(
        description="The builds that have the changes now. Those under way take them over."
    )
