"""The errors of the Valkey client and of both search engines as ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from valkey import exceptions

from indexes.errors import (
    SearchError,
    SearchIndexMissing,
    SearchRejected,
    SearchTimeout,
    SearchUnavailable,
)


@contextmanager
def translated() -> Iterator[None]:
    """Turn the client's errors into SearchErrors."""
    try:
        yield
    except exceptions.TimeoutError as error:
        raise SearchTimeout("Valkey did not answer in time.") from error
    except exceptions.AuthenticationError as error:
        raise SearchUnavailable(
            f"Valkey refused the login: {error}. Check the user and password in VALKEY_URL."
        ) from error
    except exceptions.ConnectionError as error:
        raise SearchUnavailable(f"Valkey cannot be reached: {error}") from error
    except _NOT_NOW as error:
        raise SearchUnavailable(f"Valkey cannot answer now: {error}") from error
    except exceptions.ResponseError as error:
        raise _by_wording(str(error)) from error
    except exceptions.ValkeyError as error:
        raise SearchUnavailable(f"Valkey cannot be reached: {error}") from error
    # What a cluster raises of which no node tells the map of slots; it is not one of the others.
    except exceptions.ValkeyClusterException as error:
        _raise_of_cluster(error)


def refused_by_replica(error: SearchError) -> bool:
    """Tell whether a replica refused a write, so that nothing of it was done."""
    return isinstance(error.__cause__, exceptions.ReadOnlyError)


def _raise_of_cluster(error: exceptions.ValkeyClusterException) -> NoReturn:
    """Raise what the last node said, if one did."""
    with translated():
        if isinstance(error.__cause__, exceptions.ValkeyError):
            raise error.__cause__
    step = "Unset VALKEY_CLUSTER if it is a single server." if "not enabled" in str(error) else ""
    raise SearchUnavailable(f"Valkey cannot be reached: {error}. {step}".rstrip()) from error


_NOT_NOW: Final = (
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.AskError,  # and MovedError
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
)
# No code tells these apart, and the two engines word them differently.
_MISSING_WORDS: Final = ("no such index", "unknown index name", "index with name")
_NOT_NOW_WORDS: Final = (
    "busy ", "clusterdown ", "masterdown ", "tryagain ", "consistency check",
)  # fmt: skip
_TIMEOUT_WORDS: Final = ("due to timeout", "timeout limit")


def _by_wording(message: str) -> SearchError:
    text = message.lower()

    def says(words: Iterable[str]) -> bool:
        return any(word in text for word in words)

    if says(_MISSING_WORDS):
        return SearchIndexMissing(f"The search index is missing: {message}")
    if "unknown command" in text and "ft." in text:
        return SearchRejected(
            "The server at VALKEY_URL has no vector search: load the valkey-search module."
        )
    # The client of a cluster has a class for it.
    if text.startswith("moved "):
        return SearchUnavailable(
            f"VALKEY_URL names a node of a cluster: set VALKEY_CLUSTER=1. It said: {message}"
        )
    if says(_NOT_NOW_WORDS):
        return SearchUnavailable(f"Valkey cannot answer now: {message}")
    if says(_TIMEOUT_WORDS):
        return SearchTimeout("The search engine did not finish in time.")
    return SearchRejected(f"The search engine refused the command: {message}")
