"""Which files of the machine may be read as catalogs."""

import os
import socket
from pathlib import Path

import pytest

from indexes.catalog import check_address, read_rows, version
from indexes.errors import CatalogError
from indexes.sampling import sample
from indexes.schema import CatalogSpec


def spec(uri: object) -> CatalogSpec:
    return CatalogSpec(uri=str(uri), format="jsonl", text_template="{title}")


@pytest.fixture
def catalog(tmp_path: Path, settings) -> Path:
    """A catalog in the one folder that is allowed."""
    folder = tmp_path / "catalogs"
    folder.mkdir()
    settings.CATALOG_FOLDERS = [str(folder)]
    path = folder / "products.jsonl"
    path.write_text('{"id": "1", "title": "Lamp"}\n')
    return path


def assert_refused(uri: object, message: str) -> None:
    for read in (check_address, version, lambda spec: list(read_rows(spec))):
        with pytest.raises(CatalogError, match=message):
            read(spec(uri))
    shown = sample(spec(uri))
    assert shown.rows == []
    assert message in shown.error


def test_a_catalog_in_an_allowed_folder_is_read(catalog: Path):
    for uri in (catalog, f"file://{catalog}", catalog.parent / "." / "products.jsonl"):
        check_address(spec(uri))
        assert [row.values for row in read_rows(spec(uri))] == [{"id": "1", "title": "Lamp"}]


def test_no_path_or_link_leads_out_of_the_folders(catalog: Path, tmp_path: Path):
    secret = tmp_path / "secret.jsonl"
    secret.write_text("hunter2\n")
    link = catalog.parent / "link.jsonl"
    link.symlink_to(secret)
    beside = tmp_path / "catalogs-of-others.jsonl"
    beside.write_text("{}\n")
    for uri in (secret, link, catalog.parent / ".." / "secret.jsonl", f"file://{secret}", beside):
        assert_refused(uri, "CATALOG_FOLDERS")


@pytest.mark.parametrize("uri", ["/proc/self/environ", "file:///proc/self/environ", "/dev/zero"])
def test_files_of_the_system_are_no_catalogs(uri: str, settings):
    settings.CATALOG_FOLDERS = []
    assert_refused(uri, "belongs to the system")


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "socket"])
def test_what_is_no_file_is_refused_unopened(kind: str, catalog: Path):
    path = other = catalog.parent / "other.jsonl"
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(other))
    else:
        os.mkfifo(other)
    if kind.startswith("link"):
        path = catalog.parent / "link.jsonl"
        path.symlink_to(other)
    # Opening a pipe that nobody writes to would wait without an end.
    assert_refused(path, "is a pipe, a socket or a device")


def test_s3_needs_no_folder(settings):
    settings.CATALOG_FOLDERS = ["/nowhere"]
    check_address(spec("s3://bucket/products.jsonl"))
