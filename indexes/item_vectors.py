"""The vectors that one call, or one pass over many changes, needs: each text embedded once a model."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from indexes.embedding import embed_passages
from indexes.errors import EmbeddingError, EmbeddingRejected, EmbeddingUnavailable
from indexes.item_writes import Target, Write
from indexes.items import encode_vector, text_digest
from indexes.naming import VECTOR_FIELD
from indexes.schema import EndpointSpec

# A caller waits for the answer, and web servers end requests after half a minute.
CALL_S: Final = 15.0
CALLS_PER_PART: Final = 8
# One bad text among many is found by halving. An endpoint that refuses more refuses them all.
MOST_REFUSED: Final = 16

_Key = tuple[str, bytes]
_Embed = Callable[[EndpointSpec, Sequence[str]], npt.NDArray[np.float32]]


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

    def embed_all(self, renew: Callable[[], object]) -> None:
        """Embed every missing text, however long it takes, and call ``renew`` every few calls.

        Raises EmbeddingUnavailable. A text that the endpoint refuses is one without a vector.
        """

        def embed(endpoint: EndpointSpec, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            renew()
            return embed_passages(endpoint, texts)

        self._embed_missing(embed)
        failed = next((one for one in self._failed.values() if one.retryable), None)
        if failed is not None:
            raise EmbeddingUnavailable(failed.message)

    def embed(self) -> None:
        """Embed every missing text within the time of a call, or note why not; raises nothing."""
        until = time.monotonic() + CALL_S
        self._embed_missing(
            lambda endpoint, texts: embed_passages(
                endpoint, texts, within_s=max(1.0, until - time.monotonic())
            )
        )

    def _embed_missing(self, embed: _Embed) -> None:
        by_model: dict[str, list[_Key]] = defaultdict(list)
        for key in self.missing:
            by_model[key[0]].append(key)
        for keys in by_model.values():
            self._embed(keys, embed)
        self.missing.clear()

    def _embed(self, keys: list[_Key], embed: _Embed) -> None:
        # Models pad a batch to its longest text: alike lengths together.
        keys.sort(key=lambda key: len(self.missing[key][1]))
        size = self.missing[keys[0]][0].max_batch * CALLS_PER_PART
        # In parts, so that what was embedded before a failure is not lost.
        waiting = [keys[start : start + size] for start in range(0, len(keys), size)]
        refused = 0
        while waiting:
            part = waiting.pop()
            endpoint = self.missing[part[0]][0]
            try:
                vectors = embed(endpoint, [self.missing[key][1] for key in part])
            except EmbeddingRejected as error:
                if len(part) > 1 and refused < MOST_REFUSED:
                    middle = len(part) // 2
                    waiting += [part[:middle], part[middle:]]
                    continue
                refused += len(part)
                message = f"The embedding endpoint refuses the text: {error}"
                self._fail(part, Failure("text_refused", message, retryable=False))
            except EmbeddingError as error:
                message = f"The text needs a new vector, and there is none: {error} Send it again."
                failure = Failure("embedding_unavailable", message, retryable=True)
                self._fail([key for keys in (part, *waiting) for key in keys], failure)
                return
            else:
                self._known |= zip(part, map(encode_vector, vectors), strict=True)

    def _fail(self, keys: Sequence[_Key], failure: Failure) -> None:
        self._failed |= dict.fromkeys(keys, failure)


def _key(endpoint: EndpointSpec, text: str) -> _Key:
    return endpoint.fingerprint, text_digest(text)
