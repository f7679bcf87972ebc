"""What is configured and built: endpoints, catalogs, index definitions and their builds.

Rows are edited in the admin; everything that runs reads the frozen specs of
``indexes.schema`` made from them. Only builds and refreshes carry state.
"""

from indexes.models.builds import BuildTransition, IndexBuild, RejectedRow
from indexes.models.changes import IndexRefresh, ItemChange, RefreshShard
from indexes.models.definitions import IndexDefinition, IndexField
from indexes.models.sources import CatalogSource, EmbeddingEndpoint
from indexes.models.validation import GateResult, JudgedQuery, Judgment
from indexes.models.validators import between, field_name_validator, slug_validator

__all__ = [
    "BuildTransition",
    "CatalogSource",
    "EmbeddingEndpoint",
    "GateResult",
    "IndexBuild",
    "IndexDefinition",
    "IndexField",
    "IndexRefresh",
    "ItemChange",
    "JudgedQuery",
    "Judgment",
    "RefreshShard",
    "RejectedRow",
    "between",
    "field_name_validator",
    "slug_validator",
]
