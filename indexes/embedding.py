"""Embedding: the text door. Texts in, float32 vectors out, in whatever shape the endpoint answers."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from indexes import sagemaker
from indexes.errors import EmbeddingContract, EmbeddingRejected
from indexes.passages import PassageCalls
from indexes.schema import EndpointSpec

Vectors = npt.NDArray[np.float32]

# Names under which containers answer their vectors, and the objects of a list theirs.
_KEYS: Final = ("embeddings", "embedding", "vectors", "predictions", "outputs", "data")

# Objects in objects: no container needs half as many.
_DEEPEST: Final = 8


def embed_query(endpoint: EndpointSpec, text: str, *, timeout_s: float | None = None) -> Vectors:
    """Return the vector of a query text, of shape (dimension,)."""
    limit = endpoint.timeout_ms / 1000
    limit = limit if timeout_s is None else min(limit, timeout_s)
    body = _body(endpoint, _clean(endpoint.query_prefix + text))
    answer = sagemaker.invoke(endpoint, body, timeout_s=limit)
    vector: Vectors = _finished(read_vectors(answer, count=1, endpoint=endpoint), endpoint)[0]
    return vector


def embed_passages(
    endpoint: EndpointSpec, texts: Sequence[str], *, within_s: float | None = None
) -> Vectors:
    """Return the vectors of item texts, of shape (len(texts), dimension), in their order.

    ``within_s``: the time that all of it may take. Without it an error is only raised
    after several attempts with pauses.
    """
    if not texts:
        return np.empty((0, endpoint.dimension), dtype=np.float32)
    vectors = np.empty((len(texts), endpoint.dimension), dtype=np.float32)
    with passage_calls(endpoint, within_s=within_s) as calls:
        for start, found in calls.embed(texts, halve=False):
            if isinstance(found, EmbeddingRejected):
                raise found
            vectors[start : start + len(found)] = found
    return vectors


def passage_calls(
    endpoint: EndpointSpec,
    *,
    beat: Callable[[], None] = lambda: None,
    within_s: float | None = None,
) -> PassageCalls:
    """Return what embeds item texts in parts for as long as it is open: what a load works with."""
    return PassageCalls(endpoint, _call, beat=beat, within_s=within_s)


def passage_record(endpoint: EndpointSpec, text: str) -> dict[str, Any]:
    """Return what the model is sent for one item text, as the record of a batch job is."""
    return {**endpoint.request_extra, endpoint.request_key: _clean(endpoint.passage_prefix + text)}


def read_vectors(body: bytes, *, count: int, endpoint: EndpointSpec) -> Vectors:
    """Return the vectors of an answer to ``count`` texts, of shape (count, dimension).

    Reads pooled, flat and token-level shapes, bare or under a key. Raises EmbeddingContract.
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _broken(endpoint, "is not JSON", body) from None
    return _read(answer, count, endpoint, lambda: body)


def read_answer(answer: Any, *, count: int, endpoint: EndpointSpec) -> Vectors:
    """Return what ``read_vectors`` does, of an answer that was read from its JSON before."""
    # Not as JSON, which cannot be written as deeply nested as it can be read.
    return _read(answer, count, endpoint, lambda: reprlib.repr(answer).encode(errors="replace"))


def _read(answer: Any, count: int, endpoint: EndpointSpec, shown: Callable[[], bytes]) -> Vectors:
    try:
        found = _unwrap(_at(answer, endpoint.response_key))
        pooled = _pool(found, count)
    except _Unreadable as error:
        raise _broken(endpoint, str(error), shown()) from None
    if pooled.shape[1] != endpoint.dimension:
        raise EmbeddingContract(
            f'The embedding endpoint "{endpoint.slug}" answered vectors of {pooled.shape[1]} '
            f"numbers, not {endpoint.dimension}. Set the dimension of the endpoint to what it answers."
        )
    with np.errstate(over="ignore"):
        vectors = pooled.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise _broken(endpoint, "holds numbers that are not finite", shown())
    return vectors


def unit_length(vectors: Vectors) -> Vectors:
    """Return the rows scaled to length 1. A vector of zeros has no direction and stays what it is."""
    # In 64 bits, as squares leave the range of 32 bits early.
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    scaled: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return scaled


class _Unreadable(Exception):
    """Why an answer holds no vectors; completes the sentence "The answer …"."""


def _at(answer: Any, path: str) -> Any:
    for key in path.split(".") if path else ():
        if not isinstance(answer, dict) or key not in answer:
            raise _Unreadable(f'has no "{path}", the response key of the endpoint')
        answer = answer[key]
    return answer


def _unwrap(value: Any, depth: int = 0) -> Any:
    """Return the nested lists of numbers inside the objects that containers put around them."""
    if depth > _DEEPEST:
        raise _Unreadable("is nested too deeply")
    if isinstance(value, dict):
        key = next((key for key in _KEYS if key in value), None)
        if key is None:
            raise _Unreadable("holds none of the keys " + ", ".join(_KEYS))
        return _unwrap(value[key], depth + 1)
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        return [_unwrap(part, depth + 1) for part in _in_order(value)]
    return value


def _in_order(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not any("index" in part for part in parts):
        return parts
    by_index: Mapping[Any, dict[str, Any]] = {
        part["index"]: part for part in parts if isinstance(part.get("index"), int)
    }
    if set(by_index) != set(range(len(parts))):
        raise _Unreadable(f"does not number its {len(parts)} vectors from 0")
    return [by_index[number] for number in range(len(parts))]


def _pool(value: Any, count: int) -> npt.NDArray[np.float64]:
    """Return (count, n) from pooled, flat or token-level numbers; tokens are averaged."""
    if not isinstance(value, list):
        raise _Unreadable("holds no list of numbers")
    whole = _numbers(value)
    if whole is None:
        # Texts of different lengths have different numbers of tokens.
        rows = [_numbers(part) if isinstance(part, list) else None for part in value]
        if len(rows) != count:
            raise _Unreadable(f"holds {len(rows)} parts for {_texts(count)}")
        means = [_mean(row) for row in rows]
        if len({mean.shape for mean in means}) != 1:
            raise _Unreadable("holds vectors of different lengths")
        return np.stack(means)
    if whole.ndim == 1 and count == 1:
        return whole[np.newaxis]
    if whole.ndim == 2 and count == 1:
        return _mean(whole)[np.newaxis]
    if whole.ndim == 2 and len(whole) == count:
        return whole
    if whole.ndim > 2 and len(whole) == count:
        return np.stack([_mean(row) for row in whole])
    raise _Unreadable(f"has the shape {list(whole.shape)} for {_texts(count)}")


def _texts(count: int) -> str:
    return "1 text" if count == 1 else f"{count} texts"


def _mean(row: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
    if row is not None and row.ndim == 3 and len(row) == 1:
        row = row[0]
    if row is None or row.ndim not in (1, 2):
        raise _Unreadable("holds something else than vectors")
    mean: npt.NDArray[np.float64] = row if row.ndim == 1 else row.mean(axis=0)
    return mean


def _numbers(value: list[Any]) -> npt.NDArray[np.float64] | None:
    """Return the nested lists as an array, None where they are ragged or hold no numbers."""
    try:
        array = np.array(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return array.astype(np.float64) if array.dtype.kind in "fiu" and array.size else None


def _broken(endpoint: EndpointSpec, problem: str, body: bytes) -> EmbeddingContract:
    start = body[:200].decode("utf-8", "replace")
    return EmbeddingContract(
        f'The embedding endpoint "{endpoint.slug}" gave an answer that {problem}. It begins: {start}'
    )


def _call(endpoint: EndpointSpec, texts: Sequence[str], timeout_s: float) -> Vectors:
    prefixed = [_clean(endpoint.passage_prefix + text) for text in texts]
    # One text goes as a string: some containers take no list.
    body = _body(endpoint, prefixed if len(prefixed) > 1 else prefixed[0])
    answer = sagemaker.invoke(endpoint, body, timeout_s=timeout_s)
    return _finished(read_vectors(answer, count=len(texts), endpoint=endpoint), endpoint)


def _body(endpoint: EndpointSpec, texts: str | list[str]) -> bytes:
    return orjson.dumps({**endpoint.request_extra, endpoint.request_key: texts})


def _clean(text: str) -> str:
    """Replace halves of surrogate pairs, which JSON cannot carry."""
    return text.encode("utf-8", "replace").decode()


def _finished(vectors: Vectors, endpoint: EndpointSpec) -> Vectors:
    return unit_length(vectors) if endpoint.normalize else vectors
