"""The output files of a Batch Transform job: lines of ``{"rp_row": …, "SageMakerOutput": …}``.

Read line by line, in any order. A file's vectors are kept until the next file is
read, as the shards of a load take them a thousand at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, Final

import orjson
import structlog

from indexes import s3
from indexes.embedding import Vectors, read_answer, unit_length
from indexes.errors import BuildError, CatalogError, EmbeddingContract
from indexes.naming import ROW_FIELD
from indexes.schema import EndpointSpec

log = structlog.get_logger(__name__)

ANSWER: Final = "SageMakerOutput"

# The file read last and its vectors.
_last: tuple[str, dict[int, Vectors]] = ("", {})


def read(uri: str, endpoint: EndpointSpec, beat: Callable[[], None]) -> dict[int, Vectors]:
    """Return the vectors of a file by row, each of shape (dimension,).

    ``beat`` is called with each line, as containers that answer a vector for each token
    make files of a gigabyte.

    A line without a usable vector is left out, even one that names an error: containers
    word those differently, and the endpoint, asked for the text again, says in one way
    whether it is the text that is refused. Raises BuildError when there is no such file.
    """
    global _last
    if _last[0] != uri:
        _last = ("", {})
        _last = (uri, _read(uri, endpoint, beat))
    return _last[1]


def first(uri: str, row: int, endpoint: EndpointSpec) -> Vectors | None:
    """Return the vector of one row, None where the file has none; raises BuildError where it is unusable."""
    with closing(_lines(uri)) as lines:
        for number, answer in lines:
            if number == row:
                try:
                    return _vector(answer, endpoint)
                except EmbeddingContract as error:
                    raise BuildError(f"The output of the Batch Transform job: {error}") from error
    return None


def forget() -> None:
    """Let go of the vectors read last."""
    global _last
    _last = ("", {})


def _read(uri: str, endpoint: EndpointSpec, beat: Callable[[], None]) -> dict[int, Vectors]:
    found = {}
    unusable: list[str] = []
    for number, answer in _lines(uri):
        beat()
        try:
            found[number] = _vector(answer, endpoint)
        except EmbeddingContract as error:
            unusable = unusable or [str(error)]
    if unusable:
        log.warning("unusable outputs", uri=uri, example=unusable[0][:300])
    return found


def _lines(uri: str) -> Generator[tuple[int, Any], None, None]:
    """Yield row and answer of each line that has both."""
    try:
        stream = s3.open_stream(uri, field=s3.WORKING_FOLDER)
    except CatalogError as error:
        if error.retryable:
            raise
        raise BuildError(
            f"An output of the Batch Transform job cannot be read: {error} "
            "Start a new build when this is mended."
        ) from error
    with stream:
        for line in stream:
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if (
                isinstance(record, dict)
                and isinstance(record.get(ROW_FIELD), int)
                and ANSWER in record
            ):
                yield record[ROW_FIELD], record[ANSWER]


def _vector(answer: Any, endpoint: EndpointSpec) -> Vectors:
    vectors = read_answer(answer, count=1, endpoint=endpoint)
    if endpoint.normalize:
        vectors = unit_length(vectors)
    vector: Vectors = vectors[0]
    return vector
