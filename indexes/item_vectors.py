"""The vectors that one call, or one pass over many changes, needs: each text embedded once a model."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from indexes.embedding import passage_calls
from indexes.errors import EmbeddingError, EmbeddingRejected
from indexes.item_writes import Target, Write
from indexes.items import encode_vector, text_digest
from indexes.naming import VECTOR_FIELD
from indexes.passages import PassageCalls
from indexes.schema import EndpointSpec

# A caller waits for the answer, and web servers end requests after half a minute.
CALL_S: Final = 15.0
# So many without one that is taken, and the endpoint refuses them all.
MOST_REFUSED: Final = 16

_Key = tuple[str, bytes]


class Failure(NamedTuple):
    """Why a text has no vector."""

    code: str
    message: str
    retryable: bool


class Vectors:
    """Vectors by model and text, the texts that still need one, and those that get none."""

    def __init__(self) -> None:
        self.missing: dict[_Key, tuple[EndpointSpec, str]] = {}
        self._known: dict[_Key, bytes] = {}
        self._failed: dict[_Key, Failure] = {}
        self._texts: dict[_Key, str] = {}

    def complete(self, target: Target, write: Write) -> tuple[Write | None, Failure | None]:
        """Return the write with the vector of its text, or why it has none.

        A text met for the first time is noted as ``missing``. A build that is only kept for
        the way back gets what needs no vector instead of a failure.
        """
        if write.text is None:
            return write, None
        key = _key(target.spec.endpoint, write.text)
        if key in self._known:
            write.set[VECTOR_FIELD] = self._known[key]
            return write, None
        if key not in self._failed:
            self.missing[key] = (target.spec.endpoint, write.text)
            return write, None
        if target.required:
            return None, self._failed[key]
        return write.without_text(), None

    def take_over(self, target: Target, digest: bytes, vector: bytes) -> None:
        """Take a vector that another build of the same model has for the text of this digest."""
        key = target.spec.endpoint.fingerprint, digest
        if self.missing.pop(key, None) is not None:
            self._known[key] = vector

    def embed_all(self, beat: Callable[[], None]) -> None:
        """Embed every missing text, however long it takes; ``beat`` is called about once a second.

        A text that the endpoint refuses is one without a vector. Raises EmbeddingError where it
        refuses them all, or answers nothing.
        """
        for endpoint, keys in self._by_model():
            with passage_calls(endpoint, beat=beat) as calls:
                if error := self._embed(keys, calls):
                    raise error

    def embed(self) -> None:
        """Embed every missing text within the time of a call, or note why not. Raises SearchError."""
        until = time.monotonic() + CALL_S
        for endpoint, keys in self._by_model():
            left = max(1.0, until - time.monotonic())
            with passage_calls(endpoint, within_s=left) as calls:
                self._embed(keys, calls)

    def _by_model(self) -> list[tuple[EndpointSpec, list[_Key]]]:
        """Return what is missing, for each endpoint, which is missing no more."""
        by_model: dict[str, list[_Key]] = defaultdict(list)
        # Models pad a batch to its longest text: alike lengths together.
        for key in sorted(self.missing, key=lambda key: len(self.missing[key][1])):
            by_model[key[0]].append(key)
        found = [(self.missing[keys[0]][0], keys) for keys in by_model.values()]
        self._texts = {key: text for key, (_, text) in self.missing.items()}
        self.missing.clear()
        return found

    def _embed(self, keys: list[_Key], calls: PassageCalls) -> EmbeddingError | None:
        """Embed, and return the error that ended it for every text that is left."""
        left = dict.fromkeys(keys)
        refused, taken = 0, False
        try:
            for start, found in calls.embed([self._texts[key] for key in keys]):
                if not isinstance(found, EmbeddingRejected):
                    done = keys[start : start + len(found)]
                    self._known |= zip(done, map(encode_vector, found), strict=True)
                    taken = True
                    for key in done:
                        del left[key]
                    continue
                refused += 1
                # Bad texts are few among good ones: this is not about the text.
                if not taken and len(keys) > 1 and refused in (MOST_REFUSED, len(keys)):
                    raise found
                del left[keys[start]]
                self._fail([keys[start]], _failure(found))
        except EmbeddingError as error:
            self._fail(left, _failure(error))
            return error
        return None

    def _fail(self, keys: Iterable[_Key], failure: Failure) -> None:
        self._failed |= dict.fromkeys(keys, failure)


def _failure(error: EmbeddingError) -> Failure:
    if isinstance(error, EmbeddingRejected):
        return Failure("text_refused", f"The embedding endpoint refuses the text: {error}", False)
    again = " Send it again." if error.retryable else ""
    message = f"The text needs a new vector, and there is none: {error}{again}"
    return Failure("embedding_unavailable", message, error.retryable)


def _key(endpoint: EndpointSpec, text: str) -> _Key:
    return endpoint.fingerprint, text_digest(text)
