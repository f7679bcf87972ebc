"""The set of ids that a refresh has seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.refresh.seen import Seen, digests

pytestmark = pytest.mark.unit
_ids = st.lists(st.binary(max_size=3), max_size=30)


@given(shards=st.lists(_ids, max_size=12), asked=_ids)
def test_it_holds_what_was_added_and_nothing_else(shards, asked):
    seen = Seen()
    for shard in shards:
        seen.add(digests(shard))
    known = {item_id for shard in shards for item_id in shard}
    assert seen.has(digests(asked)).tolist() == [item_id in known for item_id in asked]


def test_it_takes_eight_bytes_an_id_in_few_arrays():
    seen = Seen()
    random = np.random.default_rng(1)
    for _ in range(500):
        seen.add(random.integers(0, 2**64, 2000, dtype=np.uint64))
    assert sum(run.nbytes for run in seen._runs) == 8 * 1_000_000
    assert len(seen._runs) <= 10
