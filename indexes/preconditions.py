"""What must hold before a build starts, before it loads, after it loaded, and when it is indexed.

Each check raises an error whose sentence names the field to change. What is live
stays live whenever one says no.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice

from indexes import limits
from indexes.catalog import read_rows
from indexes.commands import IndexState
from indexes.embedding import embed_passages
from indexes.errors import BuildError, RowError, SearchError
from indexes.items import PLACEHOLDER, ItemMaker, encode_vector
from indexes.models import IndexBuild, IndexDefinition
from indexes.schema import PROBE_TEXT, IndexSpec

# An index may be built from old and new settings side by side; more than that is a mistake.
MAX_RUNNING = 2
# Read before anything is made: a catalog without one good row among these fails at once.
SAMPLE_ROWS = 1000


def problems(definition: IndexDefinition) -> list[str]:
    """Return every reason why the definition cannot be built now, each a sentence."""
    found = []
    running = definition.builds.filter(status__in=IndexBuild.RUNNING).order_by("number")
    if len(running) >= MAX_RUNNING:
        labels = " and ".join(build.label for build in running)
        found.append(f"{labels} are still being built: wait for one, or cancel it.")
    if not definition.fields.exists():
        found.append("The index has no fields: add those to filter by and to show.")
    if not PLACEHOLDER.search(definition.source.text_template):
        found.append(
            f'The text template of source "{definition.source}" names no field: '
            "write one in braces, such as {title}."
        )
    endpoint = definition.endpoint
    if definition.embed_with == IndexDefinition.EmbedWith.BATCH and not (
        endpoint.batch_model and endpoint.batch_s3_uri and endpoint.batch_instance_type
    ):
        found.append(
            f'The endpoint "{endpoint}" lacks a SageMaker model, a working folder or an instance '
            'type for Batch Transform: fill them in, or set "embed items by" to calls.'
        )
    return found


def check_server(spec: IndexSpec) -> None:
    """Raise where the server cannot take such an index, with what to change, which its own error lacks."""
    try:
        # Asked anew, as indexes come and go.
        fleet = limits.look()
    except SearchError:
        # It may not tell everybody what it is. Where it is away, FT.CREATE says so.
        return
    if found := limits.refusals(spec, fleet):
        raise BuildError(" ".join(found))


def check_source(build: IndexBuild) -> bytes | None:
    """Raise unless the catalog has a row that becomes an item, and the endpoint embeds its text.

    Return the probe vector. Where vectors are taken over from another build, the endpoint
    is not called and its probe is that build's; nor is it called where the row brings its
    own vector, and there is no probe then.
    """
    spec = build.to_spec()
    maker = ItemMaker.of(spec)
    rejected: list[tuple[int, RowError]] = []
    for row in islice(read_rows(spec.catalog), SAMPLE_ROWS):
        try:
            if isinstance(row.values, RowError):
                raise row.values
            item = maker.make(row.values)
        except RowError as error:
            rejected.append((row.number, error))
        else:
            if build.vectors_from is not None:
                return bytes(build.vectors_from.probe) if build.vectors_from.probe else None
            if item.vector is not None:
                return None
            _, probe = embed_passages(spec.endpoint, [item.text, PROBE_TEXT])
            return encode_vector(probe)
    if not rejected:
        raise BuildError(
            f'The catalog {spec.catalog.uri} has no rows: correct "path or s3:// URI" '
            "of the catalog source, or export the catalog again."
        )
    reason, times = Counter(error.reason for _, error in rejected).most_common(1)[0]
    number, example = next((n, e) for n, e in rejected if e.reason == reason)
    raise BuildError(
        f"None of the first {len(rejected):,} rows can become an item. Most often ({times:,} rows): "
        f"{example} (row {number}). {_advice(reason)}"
    )


def check_loaded(build: IndexBuild) -> None:
    """Raise when the catalog gave no items, or too many of its rows were rejected."""
    rows = build.written + build.rejected
    if not rows:
        raise BuildError(f"The catalog {build.to_spec().catalog.uri} has no rows.")
    percent = 100 * build.rejected / rows
    most = build.definition.max_rejected_percent
    if build.written and percent <= most:
        return
    reason, times = Counter(build.rejected_reasons).most_common(1)[0]
    example = build.rejected_rows.filter(reason=reason).first()
    # The first of a reason may be beyond the rows that are kept.
    said = f"{example.message} (row {example.row})." if example else f"{reason}."
    raise BuildError(
        f"{build.rejected:,} of {rows:,} rows were rejected ({percent:.0f} %); at most {most} % "
        f"may be. Most often ({times:,} rows): {said} {_advice(reason)}"
    )


def check_indexed(build: IndexBuild, state: IndexState) -> None:
    """Raise unless the engine has indexed exactly the items that were written."""
    if state.num_docs == build.written and not state.failures:
        return
    if state.failures:
        why = f"It could not index {state.failures:,} values (hash_indexing_failures in FT.INFO)."
    elif state.num_docs < build.written:
        why = "Items were lost after they were written: look for evictions (maxmemory) or a restart without persistence."
    else:
        why = f"Others write keys that start with {build.key_prefix}."
    raise BuildError(
        f"The search engine holds {state.num_docs:,} items of {build.written:,} written. {why} "
        "Start a new build when this is mended."
    )


def _advice(reason: str) -> str:
    """Return the next step for the reason that most rows were rejected for."""
    match reason:
        case "missing_id" | "bad_id":
            return 'Correct "id field" of the catalog source.'
        case "empty_text":
            return 'Correct "text template" of the catalog source.'
        case "duplicate_id":
            return 'Choose an "id field" of the catalog source that is different in each row.'
        case "bad_vector":
            return 'Correct "vector field" of the catalog source, or the vectors in the catalog.'
        case "bad_version":
            return 'Correct "version field" of the catalog source: numbers or ISO dates.'
        case "text_refused":
            return 'Shorten "text template" of the catalog source, or correct the endpoint.'
        case "long_tag":
            return "Make the field a text or a stored one: no filter can name a tag so long."
        case "bad_numeric" | "bad_tag" | "bad_text" | "bad_stored":
            return "Correct the field's type or source path in the index, or the catalog."
    return 'Correct the file, or "format" of the catalog source.'
