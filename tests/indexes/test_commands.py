"""Commands as they are sent, and replies of both engines as they were recorded."""

import pytest

from indexes.commands import (
    EngineFacts,
    IndexState,
    SearchCommand,
    add_states,
    create_args,
    printable,
    read_facts,
    read_state,
)
from indexes.schema import FieldType
from tests.indexes.conftest import field, spec_of


def test_ft_create_keeps_to_what_both_engines_take():
    fields = (
        field("title", FieldType.TEXT),
        field("brand", FieldType.TAG),
        field("category", FieldType.TAG, multiple=True, separator=";"),
        field("price", FieldType.NUMERIC),
        field("image", FieldType.STORED),
    )
    spec = spec_of(fields, m=24, ef_construction=150, ef_runtime=80, metric="L2")
    text = printable(create_args("rp_things_v1", "rp:things:v1:", spec)).replace("\x1f", "US")
    assert text == (
        "FT.CREATE rp_things_v1 ON HASH PREFIX 1 rp:things:v1: STOPWORDS 0 SCHEMA "
        'title TEXT NOSTEM brand TAG SEPARATOR "US" category TAG SEPARATOR ; price NUMERIC '
        "rp_vector VECTOR HNSW 12 TYPE FLOAT32 DIM 4 DISTANCE_METRIC L2 "
        "M 24 EF_CONSTRUCTION 150 EF_RUNTIME 80"
    )


def test_ft_create_of_a_flat_index_names_no_graph():
    text = printable(create_args("x", "x:", spec_of((), algorithm="FLAT")))
    assert text.endswith("rp_vector VECTOR FLAT 6 TYPE FLOAT32 DIM 4 DISTANCE_METRIC COSINE")


def test_ft_search():
    command = SearchCommand(
        index="x",
        query="(@a:{b})=>[KNN 3 @v $q AS d]",
        limit=3,
        return_fields=("d", "price", "d"),
        params={"q": b"1234"},
        sort_by="price",
        descending=True,
    )
    assert command.args(timeout_ms=21) == [
        "FT.SEARCH", "x", "(@a:{b})=>[KNN 3 @v $q AS d]",
        # A field named twice would come twice from valkey-search.
        "RETURN", 2, "d", "price",
        "SORTBY", "price", "DESC",
        "LIMIT", 0, 3,
        "TIMEOUT", 21,
        "PARAMS", 2, "q", b"1234",
        "DIALECT", 2,
    ]  # fmt: skip
    bare = SearchCommand(index="x", query="@a:{b}", limit=0)
    assert str(bare) == "FT.SEARCH x @a:{b} NOCONTENT LIMIT 0 0 DIALECT 2"


@pytest.mark.parametrize(("asked", "sent"), [(0, 1), (-5, 1), (100, 100), (90_000, 60_000)])
def test_the_engines_time_limit_stays_within_what_valkey_search_takes(asked, sent):
    args = SearchCommand(index="x", query="@a:{b}", limit=1).args(timeout_ms=asked)
    assert args[args.index("TIMEOUT") + 1] == sent


def test_hits_are_read():
    command = SearchCommand(index="x", query="q", limit=9, return_fields=("d",))
    reply = [3, b"k1", [b"d", b"0.5", b"price", b"7"], b"k2", [], b"deleted meanwhile", None]
    assert command.read(reply) == (3, [(b"k1", {"d": b"0.5", "price": b"7"}), (b"k2", {})])
    assert command.read([0]) == (0, [])
    keys_only = SearchCommand(index="x", query="q", limit=9)
    assert keys_only.read([50, b"k1", b"k2"]) == (50, [(b"k1", {}), (b"k2", {})])


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain:{a}", "plain:{a}"), ("a b", '"a b"'), ('a"b', '"a\\"b"'), ("a\\b", '"a\\\\b"'), ("", '""')],
)  # fmt: skip
def test_commands_are_quoted_as_a_command_line_reads_them(text, shown):
    assert printable(["X", text, 5, b"12345678"]) == f"X {shown} 5 <8 bytes>"


# FT.INFO of valkey-search 1.2.1: right after FT.CREATE, in a backfill, and done.
VALKEY_SEARCH = [
    b"index_name", b"idx",
    b"attributes", [[b"identifier", b"cat"]],
    b"num_docs", 300,
    b"num_records", 1200,
    b"hash_indexing_failures", b"2",
    b"backfill_in_progress", b"0",
    b"backfill_complete_percent", b"1.000000",
    b"mutation_queue_size", b"0",
    b"recent_mutations_queue_delay", b"0 sec",
    b"state", b"ready",
]  # fmt: skip
REDISEARCH = [
    b"index_name", b"idx",
    b"num_docs", 300,
    b"hash_indexing_failures", 2,
    b"indexing", 0,
    b"percent_indexed", b"1",
    b"number_of_uses", 1,
]  # fmt: skip


def changed(reply, **changes):
    flat = dict(zip(reply[::2], reply[1::2], strict=True))
    flat |= {name.encode(): value for name, value in changes.items()}
    return [part for pair in flat.items() for part in pair]


@pytest.mark.parametrize(
    ("reply", "state"),
    [
        (VALKEY_SEARCH, IndexState(300, True, 1.0, 2)),
        (
            changed(VALKEY_SEARCH, state=b"backfill_in_progress", num_docs=0),
            IndexState(0, False, 1.0, 2),
        ),
        (
            changed(
                VALKEY_SEARCH,
                state=b"backfill_paused_by_oom",
                backfill_complete_percent=b"0.712850",
            ),
            IndexState(300, False, 0.71285, 2),
        ),
        (changed(VALKEY_SEARCH, mutation_queue_size=b"7"), IndexState(300, False, 1.0, 2)),
        (REDISEARCH, IndexState(300, True, 1.0, 2)),
        (
            changed(REDISEARCH, indexing=1, percent_indexed=b"0.5"),
            IndexState(300, False, 0.5, 2),
        ),
    ],
)
def test_the_state_of_an_index(reply, state):
    assert read_state(reply) == state


def test_an_index_over_several_nodes_is_as_far_as_the_slowest():
    nodes = [IndexState(100, True, 1.0, 1), IndexState(199, False, 0.4, 0)]
    assert add_states(nodes) == IndexState(299, False, 0.4, 1)


@pytest.mark.parametrize(
    ("version", "has_aliases", "facts"),
    [
        (66049, False, EngineFacts("valkey-search", "1.2.1")),
        (21005, True, EngineFacts("redisearch", "2.10.5")),
        (80001, True, EngineFacts("redisearch", "8.0.1")),
    ],
)
def test_engines_are_told_apart(version, has_aliases, facts):
    modules = [
        [b"name", b"lua", b"ver", 1],
        [b"name", b"search", b"ver", version, b"path", b"/x.so", b"args", []],
    ]
    assert read_facts(modules, has_aliases=has_aliases) == facts
    assert read_facts(modules[:1], has_aliases=has_aliases) == EngineFacts(facts.name, "")
