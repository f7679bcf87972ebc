"""The life of a build."""

from indexes import valkey


def test_a_build_goes_live(built_index):
    assert valkey.index_info(built_index.live.index_name).num_docs == len(built_index.products)


def test_definition_points_at_the_built_index(definition, built_index):
    assert definition.live_build.to_live() == built_index.live
