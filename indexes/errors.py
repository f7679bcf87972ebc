"""What can go wrong in indexes, with the caller's decision on each error.

IndexesError
├── EmbeddingError            the embedding endpoint
│   ├── EmbeddingTimeout
│   ├── EmbeddingThrottled
│   ├── EmbeddingUnavailable
│   ├── EmbeddingRejected     the request itself is wrong: do not retry
│   ├── EmbeddingContract     an answer that cannot be read as vectors
│   └── EmbeddingOtherModel   vectors of another model than the index was built with
├── SearchError               the search engine
│   ├── SearchTimeout
│   ├── SearchUnavailable
│   ├── SearchIndexMissing
│   └── SearchRejected        the engine refused the command
├── FilterError               a filter that cannot be written for this schema
├── CatalogError              a source that cannot be opened or read
│   ├── CatalogUnavailable    for now: retry
│   └── RowError              one row of it, skipped and counted
├── UnknownIndex              no index has this slug
└── BuildError                a build that cannot start or go on
"""


class IndexesError(Exception):
    """Base of every error that leaves this package."""

    reason = "error"
    retryable = False


class EmbeddingError(IndexesError):
    """The embedding endpoint gave no usable vector."""


class EmbeddingTimeout(EmbeddingError):
    reason = "timeout"
    retryable = True


class EmbeddingThrottled(EmbeddingError):
    reason = "throttled"
    retryable = True


class EmbeddingUnavailable(EmbeddingError):
    reason = "unavailable"
    retryable = True


class EmbeddingRejected(EmbeddingError):
    reason = "rejected"


class EmbeddingContract(EmbeddingError):
    reason = "bad_response"


class EmbeddingOtherModel(EmbeddingError):
    reason = "other_model"


class SearchError(IndexesError):
    """The search engine gave no answer."""


class SearchTimeout(SearchError):
    reason = "timeout"
    retryable = True


class SearchUnavailable(SearchError):
    reason = "unavailable"
    retryable = True


class SearchIndexMissing(SearchError):
    reason = "index_missing"


class SearchRejected(SearchError):
    reason = "rejected"


class FilterError(IndexesError):
    """A filter names a field or value that the index schema does not allow."""

    reason = "bad_filter"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class CatalogError(IndexesError):
    """A catalog source cannot be opened or read."""

    reason = "catalog"


class CatalogUnavailable(CatalogError):
    """The store that holds the catalog gives no answer."""

    reason = "unavailable"
    retryable = True


class RowError(CatalogError):
    """One row cannot become an item. ``reason`` is a stable word that is counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnknownIndex(IndexesError):
    """No index has this slug."""

    reason = "unknown_index"

    def __init__(self, slug: str) -> None:
        super().__init__(f'There is no index "{slug}".')


class BuildError(IndexesError):
    """A build cannot start or go on; the message says what to do next."""

    reason = "build"
