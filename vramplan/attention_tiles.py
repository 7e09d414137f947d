"""How attention kernels cut their work into tiles, which decides what they take inside themselves.

Sources are torch 2.11-2.13, aten/src/ATen/native/transformers/cuda: flash_attn/flash_api.cpp for flash;
mem_eff_attention/kernel_backward.h, and the list of kernels generated beside it, for the efficient kernel. Sizes were
compared with what the CUDA build of torch asks of its allocator.
"""

from typing import NamedTuple

from vramplan.scenario import DType

#: Heads of flash that are no multiple of it are padded (attention.cpp `pad_last_dim`).
FLASH_ALIGNMENT = 8
#: Wider heads are added up outside registers.
_REGISTERS = 128
#: Keys that a thread block of the efficient backward works on at once (`kBlockSizeJ`).
_KEY_BLOCK = 64
#: The efficient backward splits keys no further once so many thread blocks stage their gradients.
_MOST_STAGED = 200
#: Compute capabilities of 164 KiB of shared memory and more per multiprocessor; the others from 8.0 on have 100.
_ROOMY = ((8, 0), (8, 7), (9, 0), (10, 0))
#: Those with a kernel of their own for heads of up to 96.
_NARROW = ((8, 6), (8, 9))
#: `GradQTempStorage`: a lock and a counter before each tile, padded to 16 bytes.
_TILE_HEAD = 16


class Tile(NamedTuple):
    """A part of the query's gradient that the efficient backward adds up in fp32: rows by columns."""

    rows: int
    columns: int
    stages: bool = False
    """Whether the gradients of keys and values are added up in memory too."""

    def workspace(self, blocks: int, rows: int, keys: int, head_dim: int, value_dim: int) -> int:
        """Bytes of the workspace for each of `blocks` = batch x heads (kernel_backward.h `workspace_strideBH`)."""
        tiles = -(-rows // self.rows) * -(-head_dim // self.columns)
        own = tiles * (_TILE_HEAD + self.rows * self.columns * 4)
        if not self.stages:
            return own
        columns = sum(-(-size // self.rows) * self.rows for size in (head_dim, value_dim))
        return own + _key_splits(blocks, keys) * _KEY_BLOCK * columns * 4


def efficient_tile(dtype: DType, head_dim: int, value_dim: int, capability: tuple[int, int]) -> Tile:
    """The tile of the first kernel that fits the heads and the card's shared memory (`dispatch_cutlassB`)."""
    widest, roomy = max(head_dim, value_dim), capability in _ROOMY
    if widest <= 64:
        return Tile(64, 64)
    if dtype is DType.FLOAT32:
        return Tile(128 if roomy else 64, 64)
    if widest > _REGISTERS:
        return Tile(128, 64, stages=True)
    if roomy:
        return Tile(128, 128)
    narrow = capability < (8, 0) or (widest <= 96 and capability in _NARROW)
    return Tile(128, 64) if narrow else Tile(64, 64, stages=True)


def accumulates(dtype: DType, head_dim: int, value_dim: int) -> bool:
    """Whether the efficient forward adds 16-bit outputs up in fp32 memory of its own (kernel_forward.h)."""
    return dtype is not DType.FLOAT32 and max(head_dim, value_dim) > _REGISTERS


def flash_width(head_dim: int) -> int:
    """fp32 columns of flash's accumulators (`head_size_rounded`)."""
    multiple = 32 if head_dim <= 128 else 64
    return -(-head_dim // multiple) * multiple


def _key_splits(blocks: int, keys: int) -> int:
    """In how many parts staged keys are worked on, for `blocks` = batch x heads."""
    return max(1, min(-(-keys // _KEY_BLOCK), _MOST_STAGED // blocks))


def flash_splits(blocks: int, rows: int, keys: int, head_dim: int, multiprocessors: int) -> int:
    """In how many parts flash's forward splits the keys to keep a card busy (`num_splits_heuristic`); 1 with dropout.

    Each part has an output and a log-sum-exp of its own in fp32 until they are combined.
    """
    width = 256 if head_dim <= 64 else 128 if head_dim <= 128 else 64
    key_blocks, busy = -(-keys // width), blocks * -(-rows // 64)
    slots = 2 * multiprocessors
    if busy >= 0.8 * slots:
        return 1
    shares = {n: -(-key_blocks // n) for n in range(1, min(128, slots, key_blocks) + 1)}
    counts = [n for n, share in shares.items() if share != shares.get(n - 1)]
    used = {n: (busy * n / slots) / -(-busy * n // slots) for n in counts}
    return next(n for n in counts if used[n] >= 0.85 * max(used.values()))
