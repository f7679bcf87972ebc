"""Catalog sources as streams of rows: JSONL, CSV and Parquet, packed or not, local or in S3.

Memory is flat in the size of the catalog. A row that cannot be read is a value
in the stream, never an exception; a source that cannot be read is a CatalogError
that says what to change.
"""

from __future__ import annotations

import gzip
import io
import os
import tempfile
import time
import zlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

from django.conf import settings

from indexes import s3
from indexes.errors import CatalogError
from indexes.formats import delimited, jsonl, parquet
from indexes.formats.rows import SourceRow
from indexes.schema import CatalogSpec

FORMATS = {"jsonl": jsonl, "csv": delimited, "parquet": parquet}
ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
GZIP_MARK = b"\x1f\x8b"
# What is there is no catalog: among it are the environments of processes, with their passwords.
SYSTEM_FOLDERS = ("/proc", "/sys", "/dev")


def read_rows(spec: CatalogSpec, *, start: int = 0) -> Generator[SourceRow, None, None]:
    """Yield the rows after row ``start`` (numbers count from 1), each read or with its RowError."""
    reader = _format(spec)
    # The others hold vectors as text: there is nothing to take them from but numbers one by one.
    options = {"array": spec.vector_field} if reader is parquet else {}
    with _translated(spec), _opened(spec, reader) as stream:
        yield from reader.read(stream, start, **options)


def count_rows(spec: CatalogSpec, *, seconds: float = 15) -> int | None:
    """Return the number of rows, or None when counting takes longer than ``seconds``."""
    reader = _format(spec)
    until = time.monotonic() + seconds
    number = 0
    with _translated(spec), _opened(spec, reader) as stream:
        for number in reader.count(stream):
            if number % 10_000 == 0 and time.monotonic() > until:
                return None
    return number


def check_address(spec: CatalogSpec) -> None:
    """Raise CatalogError when the address alone, unread, cannot be right."""
    _format(spec)
    if _is_s3(spec):
        s3.split(spec.uri)
    elif "://" in spec.uri and not spec.uri.startswith("file://"):
        raise CatalogError("A catalog is a path on the worker's machine or an s3:// URI.")
    else:
        _path(spec)


def version(spec: CatalogSpec) -> str:
    """Return what changes whenever the source does."""
    if _is_s3(spec):
        return s3.version(spec.uri)
    with _translated(spec):
        found = _path(spec).stat()
    return f"{found.st_size}-{found.st_mtime_ns}"


def modified_at(spec: CatalogSpec) -> datetime:
    """Return when the source was last written."""
    if _is_s3(spec):
        return s3.modified_at(spec.uri)
    with _translated(spec):
        return datetime.fromtimestamp(_path(spec).stat().st_mtime, UTC)


def _format(spec: CatalogSpec) -> ModuleType:
    name: str | None = spec.format
    if name == "auto":
        ending = Path(spec.uri.lower().removesuffix(".gz")).suffix
        name = ENDINGS.get(ending)
    if name is None:
        raise CatalogError(
            f'The ending of "{spec.uri}" does not tell its format: choose one in "format" '
            "of the catalog source."
        )
    return FORMATS[name]


@contextmanager
def _opened(spec: CatalogSpec, reader: ModuleType) -> Iterator[io.BufferedReader]:
    """Open the source for reading, unpacked; Parquet from S3 by way of a file, as it is read from its end."""
    with ExitStack() as stack:
        stream: io.BufferedReader
        if not _is_s3(spec):
            stream = stack.enter_context(_path(spec).open("rb"))
        elif reader is parquet:
            file = stack.enter_context(tempfile.NamedTemporaryFile())
            s3.download(spec.uri, file)
            file.flush()
            stream = stack.enter_context(Path(file.name).open("rb"))
        else:
            stream = stack.enter_context(s3.open_stream(spec.uri))
        if stream.peek(2)[:2] == GZIP_MARK:
            if reader is parquet:
                raise CatalogError("A Parquet catalog cannot be packed with gzip: unpack it.")
            unpacked = stack.enter_context(gzip.GzipFile(fileobj=stream))
            stream = io.BufferedReader(unpacked, 1 << 18)
        yield stream


@contextmanager
def _translated(spec: CatalogSpec) -> Iterator[None]:
    where = 'Correct "path or s3:// URI" of the catalog source.'
    try:
        yield
    except FileNotFoundError as error:
        raise CatalogError(
            f"There is no file {spec.uri} on the worker's machine. {where}"
        ) from error
    except IsADirectoryError as error:
        raise CatalogError(f"{spec.uri} is a folder, not a file. {where}") from error
    except PermissionError as error:
        raise CatalogError(f"The worker may not read {spec.uri}: allow it to.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CatalogError(
            f"{spec.uri} is damaged or was cut off: {error}. Upload it again."
        ) from error
    except OSError as error:
        raise CatalogError(f"Cannot read {spec.uri}: {error}.") from error


def _is_s3(spec: CatalogSpec) -> bool:
    return spec.uri.startswith("s3:")


def _path(spec: CatalogSpec) -> Path:
    """Return the file, or raise CatalogError where it may not be read as a catalog."""
    # Links are followed first, or one would lead out of the folders.
    path = Path(os.path.realpath(spec.uri.removeprefix("file://")))
    if any(path.is_relative_to(folder) for folder in SYSTEM_FOLDERS):
        raise CatalogError(f"{spec.uri} belongs to the system: it is no catalog.")
    allowed = [os.path.realpath(folder) for folder in settings.CATALOG_FOLDERS]
    if allowed and not any(path.is_relative_to(folder) for folder in allowed):
        raise CatalogError(
            f"{spec.uri} is in none of the folders of CATALOG_FOLDERS: move the file, "
            "or add its folder to that setting."
        )
    # Opening a pipe waits for whoever writes to it. A folder has an error of its own.
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise CatalogError(
            f"{spec.uri} is a pipe, a socket or a device, not a file. "
            'Correct "path or s3:// URI" of the catalog source.'
        )
    return path
