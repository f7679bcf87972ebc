"""Rows a second and peak memory of a build's load, against a bare script that pipelines the same HSETs.

    .venv/bin/python benchmarks/load.py [--quick] [--rows 10000,100000] [--dimension 384]
                                      [--algorithm FLAT] [--repeats 2]

Starts the embedded servers that the environment does not name. A build reads a Parquet file
with a column of vectors, in a real Celery worker. The bare script has the same hashes in
memory, ready to send, and writes them into the same kind of index, by as many connections as
are faster of one and four. Both are timed until the engine has indexed all, and run in turn,
the first one changing. The figures of each size are medians; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import django
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import valkey as client

ROOT = Path(__file__).resolve().parent.parent
SIZES, SIZES_QUICK = (10_000, 100_000, 1_000_000), (10_000,)
CALIBRATION_ROWS = 5_000
ROWS_A_GROUP = 100_000
# How many topics a catalog has, and how far an item lies from the middle of its topic.
ITEMS_PER_TOPIC = 100
SPREAD = 0.8
# What a script without any care for the engine sends at once.
BARE_PIPELINE = 500
FIELDS = (
    ("title", "text"),
    ("brand", "tag"),
    ("category", "tag"),
    ("price", "numeric"),
    ("rating", "numeric"),
    ("image", "stored"),
)


@dataclass(frozen=True)
class Vectors:
    """What is loaded: how many numbers a vector has, and how the engine indexes it."""

    dimension: int
    algorithm: str


@dataclass(frozen=True)
class Loaded:
    """One load: its rows a second, and the peak memory in MB of the process that did it."""

    rate: float
    peak_mb: float
    peak_after_mb: float = 0.0


def main() -> None:
    """Measure each size, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10,000 rows only")
    parser.add_argument("--rows", help="sizes, such as 10000,50000")
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument(
        "--algorithm", choices=("HNSW", "FLAT"), default="HNSW", help="FLAT builds no graph"
    )
    parser.add_argument("--repeats", type=int, default=2, help="loads of each kind and size")
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(json.dumps(bare(**json.loads(options.bare))))
        return
    sizes: tuple[int, ...] = SIZES_QUICK if options.quick else SIZES
    if options.rows:
        sizes = tuple(int(rows) for rows in options.rows.split(","))
    with servers() as folder:
        measure(folder, sizes, Vectors(options.dimension, options.algorithm), options.repeats)


@contextmanager
def servers() -> Iterator[Path]:
    """Start what the environment does not name; yield a folder for the run's files."""
    from recplatform.devstack.stack import running

    folder = ROOT / ".local" / "bench" / secrets.token_hex(3)
    with running(folder, durable=False) as stack:
        os.environ.update(stack.environment)
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recplatform.settings")
        # Beside whatever else is on servers that are shared.
        os.environ["VALKEY_NAMESPACE"] = f"bench{secrets.token_hex(3)}"
        os.environ.setdefault("LOG_LEVEL", "WARNING")
        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        yield folder


def measure(folder: Path, sizes: tuple[int, ...], vectors: Vectors, repeats: int) -> None:
    files = make_catalog(folder, CALIBRATION_ROWS, vectors.dimension)
    rates = {n: run_bare(files, CALIBRATION_ROWS, vectors, n).rate for n in (1, 4)}
    connections = max(rates, key=lambda n: rates[n])
    print(f"The bare script uses the faster of one and four connections: {connections}.")
    print(
        f"{vectors.dimension} dimensions, {vectors.algorithm}, {len(FIELDS)} fields, {repeats} loads of each kind.\n"
    )
    heads = ("rows", "bare rows/s", "build rows/s", "ratio", "worker MB", "with gates", "bare MB")
    print(" ".join(f"{head:>12}" for head in heads))
    result: dict[str, float] = {}
    for rows in sizes:
        files = make_catalog(folder, rows, vectors.dimension)
        bares, builds = [], []
        for turn in range(repeats):
            kinds = ["bare", "build"] if turn % 2 == 0 else ["build", "bare"]
            for kind in kinds:
                if kind == "bare":
                    bares.append(run_bare(files, rows, vectors, connections))
                else:
                    builds.append(run_build(folder, files["parquet"], rows, vectors))
        ratio = median(build.rate for build in builds) / median(bare.rate for bare in bares)
        result = {
            "rate_ratio": round(ratio, 3),
            "items_per_s": round(median(build.rate for build in builds)),
            "worker_peak_mb": round(max(build.peak_after_mb for build in builds)),
        }
        cells = (
            f"{rows:,}",
            f"{median(bare.rate for bare in bares):,.0f}",
            f"{result['items_per_s']:,}",
            f"{ratio:.2f}",
            f"{max(build.peak_mb for build in builds):.0f}",
            f"{result['worker_peak_mb']:.0f}",
            f"{max(bare.peak_mb for bare in bares):.0f}",
        )
        print(" ".join(f"{cell:>12}" for cell in cells), flush=True)
        for file in files.values():
            file.unlink()
    print(json.dumps(result))


def make_catalog(folder: Path, rows: int, dimension: int) -> dict[str, Path]:
    """Write the same items as a Parquet catalog and as an array of vectors; a part in memory at a time."""
    files = {
        "parquet": folder / f"catalog-{rows}.parquet",
        "vectors": folder / f"vectors-{rows}.npy",
    }
    random = np.random.default_rng(7)
    topics = random.standard_normal((max(rows // ITEMS_PER_TOPIC, 1), dimension), dtype=np.float32)
    array = np.lib.format.open_memmap(
        files["vectors"], mode="w+", dtype="<f4", shape=(rows, dimension)
    )
    writer = None
    for start in range(0, rows, ROWS_A_GROUP):
        count = min(ROWS_A_GROUP, rows - start)
        vectors = topics[random.integers(0, len(topics), count)]
        vectors = vectors + SPREAD * random.standard_normal((count, dimension), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        array[start : start + count] = vectors
        values = [item(number) for number in range(start, start + count)]
        table = pa.table(
            {name: [row[name] for row in values] for name in values[0]}
            | {"vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimension)}
        )
        writer = writer or pq.ParquetWriter(files["parquet"], table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()
    array.flush()
    return files


def item(number: int) -> dict[str, Any]:
    """Return the fields of an item, of the length that products have."""
    return {
        "id": f"sku-{number}",
        "title": f"Product {number} with a title of an ordinary length, in colour {number % 17}",
        "brand": f"Brand {number % 400}",
        "category": f"category {number % 60}",
        "price": round(number % 20_000 / 7, 2),
        "rating": number % 50 / 10,
        "image": f"/images/sku-{number}.svg",
    }


def index_spec(vectors: Vectors) -> Any:
    from indexes.schema import CatalogSpec, EndpointSpec, FieldSpec, FieldType, IndexSpec

    return IndexSpec(
        slug="bench",
        endpoint=EndpointSpec(
            slug="bench", endpoint_name="minilm-l6-v2", dimension=vectors.dimension
        ),
        algorithm=vectors.algorithm,
        catalog=CatalogSpec(uri="/none", text_template="{title}", vector_field="vector"),
        fields=tuple(
            FieldSpec(name=name, type=FieldType(kind), source=name) for name, kind in FIELDS
        ),
    )


def run_bare(files: dict[str, Path], rows: int, vectors: Vectors, connections: int) -> Loaded:
    """Run the bare script in a process of its own."""
    task = json.dumps(
        {
            "path": str(files["vectors"]),
            "rows": rows,
            **asdict(vectors),
            "connections": connections,
        }
    )
    done = subprocess.run(
        [sys.executable, __file__, "--bare", task], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return Loaded(**json.loads(done.stdout.splitlines()[-1]))


def bare(
    path: str, rows: int, connections: int, dimension: int, algorithm: str
) -> dict[str, float]:
    """Create the index, write the hashes in pipelines, wait for the engine; return rate and peak."""
    django.setup()
    from indexes import valkey
    from indexes.commands import create_args

    url = re.sub("^valkey", "redis", os.environ["VALKEY_URL"])
    prefix = f"{os.environ['VALKEY_NAMESPACE']}:bare:"
    name = prefix.replace(":", "_")
    vectors = np.load(path, mmap_mode="r")
    cluster = bool(os.environ.get("VALKEY_CLUSTER"))
    make = client.ValkeyCluster.from_url if cluster else client.Valkey.from_url
    started = time.monotonic()
    make(url).execute_command(*create_args(name, prefix, index_spec(Vectors(dimension, algorithm))))

    def write(first: int) -> None:
        own = make(url)
        pipeline = own.pipeline(transaction=False)
        for number in range(first, rows, connections):
            pipeline.hset(f"{prefix}{number}", mapping=bare_hash(number, vectors[number]))
            if len(pipeline) >= BARE_PIPELINE:
                pipeline.execute()
        pipeline.execute()

    threads = [threading.Thread(target=write, args=(first,)) for first in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: valkey.index_info(name).ready and valkey.index_info(name).num_docs == rows)
    rate = rows / (time.monotonic() - started)
    valkey.drop_index(name)
    valkey.delete_prefix(prefix)
    return {"rate": rate, "peak_mb": peak_mb(psutil.Process())}


def bare_hash(number: int, vector: Any) -> dict[str, Any]:
    """Return the hash of an item as a build writes it, with the digests at their length."""
    values = item(number)
    del values["id"]
    return values | {
        "rp_vector": vector.tobytes(),
        "rp_row": number,
        "rp_text": b"",
        "rp_content": b"\0" * 16,
    }


def run_build(folder: Path, catalog: Path, rows: int, vectors: Vectors) -> Loaded:
    """Run a build in a Celery worker; timed until the engine has indexed all."""
    from celery import current_app

    from indexes import builds, valkey
    from indexes.models import BuildTransition, IndexBuild

    definition = define(catalog, vectors)
    with worker(folder) as process:
        build = builds.start(definition, enqueue=False)
        current_app.send_task("indexes.tasks.run_build", (build.pk,))

        def moved() -> bool:
            build.refresh_from_db()
            return build.status not in IndexBuild.RUNNING[:-1]

        wait_for(moved)
        load_peak = peak_mb(process)

        def ended() -> bool:
            build.refresh_from_db()
            return not build.is_running

        wait_for(ended)
        peak = peak_mb(process)
    if build.written != rows or build.indexed != rows:
        raise SystemExit(f"The build is {build.status} with {build.indexed:,} items. {build.error}")
    at = dict(BuildTransition.objects.filter(build=build).values_list("to_status", "at"))
    seconds = (at["validating"] - at["creating"]).total_seconds()
    valkey.drop_index(build.index_name)
    valkey.delete_prefix(build.key_prefix)
    forget(definition)
    return Loaded(rows / seconds, load_peak, peak)


def define(catalog: Path, vectors: Vectors) -> Any:
    from indexes.models import CatalogSource, EmbeddingEndpoint, IndexDefinition, IndexField

    slug = f"bench-{secrets.token_hex(3)}"
    endpoint = EmbeddingEndpoint.objects.create(
        slug=slug, endpoint_name="minilm-l6-v2", dimension=vectors.dimension
    )
    source = CatalogSource.objects.create(
        slug=slug, uri=str(catalog), text_template="{title}", vector_field="vector"
    )
    definition = IndexDefinition.objects.create(
        slug=slug,
        name=slug,
        endpoint=endpoint,
        source=source,
        promotion="manual",
        algorithm=vectors.algorithm,
    )
    for position, (name, kind) in enumerate(FIELDS):
        IndexField.objects.create(definition=definition, name=name, type=kind, position=position)
    return definition


def forget(definition: Any) -> None:
    """Remove the rows of a definition: the database may be one that is kept."""
    endpoint, source = definition.endpoint, definition.source
    definition.delete()
    endpoint.delete()
    source.delete()


@contextmanager
def worker(folder: Path) -> Iterator[psutil.Process]:
    """A Celery worker of one process."""
    command = ("celery", "-A", "recplatform", "worker", "--concurrency", "1", "--loglevel", "ERROR")
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, stdout=log, stderr=log
        )
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def peak_mb(process: psutil.Process) -> float:
    """Return the most memory that a process or one of its children has had so far."""
    peaks = []
    for each in (process, *process.children(recursive=True)):
        status = Path(f"/proc/{each.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        if found:
            peaks.append(int(found[1]) / 1024)
    return max(peaks)


def wait_for(told: Any) -> None:
    while not told():
        time.sleep(0.1)


if __name__ == "__main__":
    if not Path("/proc/self/status").exists():
        raise SystemExit("The peak of memory is read from /proc: run this on Linux.")
    main()
