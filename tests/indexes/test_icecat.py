"""A real catalog of 19,406 products through the whole path: source, build, search."""

from pathlib import Path

import pytest

from indexes import builds
from indexes.embedding import embed_query
from indexes.filters import AnyOf, Clause, Range
from indexes.models import IndexBuild
from indexes.schema import EndpointSpec, LiveIndex
from indexes.search import Hit, knn

CATALOG = Path(__file__).resolve().parents[3] / "shared" / "icecat" / "products.jsonl.gz"
FIELDS = [
    {"name": "title", "type": "text"},
    {"name": "brand", "type": "tag"},
    {"name": "price_cents", "type": "numeric"},
    {"name": "released", "type": "numeric"},
    {"name": "kind", "type": "tag", "source_path": "attributes.attr_t_product_type"},
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CATALOG.exists(), reason=f"{CATALOG} is not on this machine"),
]


def find(
    live: LiveIndex, endpoint: EndpointSpec, query: str, clauses: tuple[Clause, ...] = ()
) -> list[Hit]:
    vector = embed_query(endpoint, query)
    fields = ["title", "brand", "price_cents"]
    return knn(live, vector, k=10, clauses=clauses, fields=fields, timeout_s=5).hits


def test_a_real_catalog_is_built_and_searched(new_definition, endpoint_spec):
    # Titles only, to keep the embedding of the whole catalog within a minute or two.
    definition = new_definition(CATALOG, fields=FIELDS, text_template="{title}")
    build = builds.start(definition, enqueue=False)
    builds.run_to_end(build.pk)
    build.refresh_from_db()
    assert (build.status, build.error) == (IndexBuild.Status.LIVE, "")
    assert build.written == build.indexed == 19_406
    assert build.rejected == 0

    live = build.to_live()
    for query, words in (
        ("gps watch", ("watch", "gps")),
        ("toner cartridge black", ("toner", "cartridge")),
        ("gaming laptop", ("laptop", "notebook", "gaming")),
    ):
        hits = find(live, endpoint_spec, query)
        sensible = [
            hit for hit in hits if any(word in hit.fields["title"].lower() for word in words)
        ]
        assert len(hits) == 10
        assert len(sensible) >= 8, (query, [hit.fields["title"] for hit in hits])

        # Narrowed by what the plain answer shows: its most frequent brand, and a price in its middle.
        brands = [hit.fields["brand"] for hit in hits]
        brand = max(brands, key=brands.count)
        price = sorted(hit.fields["price_cents"] for hit in hits)[5]
        clauses = (AnyOf("brand", (brand,)), Range("price_cents", lte=price))
        narrowed = find(live, endpoint_spec, query, clauses)
        assert narrowed
        assert {hit.fields["brand"] for hit in narrowed} == {brand}
        assert max(hit.fields["price_cents"] for hit in narrowed) <= price
        expected = {
            h.id for h in hits if h.fields["brand"] == brand and h.fields["price_cents"] <= price
        }
        assert expected <= {hit.id for hit in narrowed}
