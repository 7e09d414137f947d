"""Tiles of the attention kernels, against what the CUDA build asks of its allocator."""

import pytest
from attention_facts import CARDS, facts

from vramplan.attention_tiles import Tile, efficient_tile, flash_splits
from vramplan.catalog.gpus import gpu
from vramplan.scenario import DType


def test_a_workspace_is_tiles_and_staged_keys() -> None:
    # 130 rows in tiles of 64 are 3, 128 columns are 2: 6 tiles of 16 + 64 x 64 x 4 B
    assert Tile(64, 64).workspace(1, 130, 130, 128, 128) == 6 * (16 + 16_384)
    # staged: 130 keys are 3 blocks of 64, each as wide as both heads, in fp32
    assert Tile(64, 64, stages=True).workspace(1, 130, 130, 128, 128) == 6 * (16 + 16_384) + 3 * 64 * 256 * 4
    # 160 thread blocks leave room for one split: 200 // 160
    assert Tile(64, 64, stages=True).workspace(160, 130, 130, 128, 128) == 6 * (16 + 16_384) + 1 * 64 * 256 * 4


@pytest.mark.parametrize("card", CARDS)
def test_the_workspace_is_what_the_cuda_build_asks_for(card: str) -> None:
    for row in facts(card)["efficient"]:
        head_dim, value_dim = row["sizes"]
        batch, heads, queries, keys = row["shape"]
        tile = efficient_tile(DType(row["dtype"]), head_dim, value_dim, gpu(card).capability)
        each = tile.workspace(batch * heads, queries, keys, head_dim, value_dim)
        assert batch * heads * each == row["workspace"], row


@pytest.mark.parametrize("card", CARDS)
def test_flash_splits_keys_as_the_cuda_build_does(card: str) -> None:
    target = gpu(card)
    assert bool(facts(card)["flash"]) is (target.capability >= (8, 0))
    for row in facts(card)["flash"]:
        batch, heads, queries, keys = row["shape"]
        splits = flash_splits(batch * heads, queries, keys, row["size"], target.multiprocessors)
        sums = splits * batch * heads * queries * 4  # fp32, a row sum and an output of the same rows per part
        assert row["parts"] == ([sums, sums * row["size"]] if splits > 1 else []), row
