"""When bitsandbytes multiplies by a 4-bit matrix in one kernel, without dequantising it first.

bitsandbytes 0.50.2 backends/cuda/ops.py: `gemm_4bit` and `_gemm_4bit_use_custom_cuda`, rule by rule.
"""

from functools import cache

_ALWAYS_FUSED_ROWS = 4  # _GEMM_4BIT_CUSTOM_FLOOR_M
NEVER_FUSED_ROWS = 1536  # _gemm_4bit_custom_max_m
_SMALL_WEIGHT = 4 * 1024 * 1024  # elements


@cache
def fused_gemm_4bit(
    capability: tuple[int, int], processors: int, kind: str, rows: int, outputs: int, inputs: int, block: int
) -> bool:
    """Whether the product of `rows` tokens with an [outputs, inputs] matrix needs no dequantised copy."""
    if rows > NEVER_FUSED_ROWS or inputs % block:
        return False
    if rows <= _ALWAYS_FUSED_ROWS:
        return True
    major, minor = capability
    if kind == "float32" or major < 7 or (major == 7 and (minor < 5 or kind != "float16")):
        return rows < 8
    if capability == (8, 7) or major == 11:
        return False
    waves = -(-outputs // 64) / processors  # blocks of 64 columns over multiprocessors
    if major == 10:
        return _blackwell_data_center(rows, outputs, inputs, waves)
    if outputs * inputs < _SMALL_WEIGHT:
        return rows <= _small_weight_limit(capability, processors, outputs, inputs, rows)
    if rows > 512:
        return False
    if rows < 8:
        return _few_rows(capability, rows, outputs, inputs, waves)
    return rows <= _limit(capability, processors, outputs, inputs)


def _blackwell_data_center(rows: int, outputs: int, inputs: int, waves: float) -> bool:
    if waves >= 3:
        return rows <= 32
    return waves >= 1 and inputs < outputs and rows <= 8


def _small_weight_limit(capability: tuple[int, int], processors: int, outputs: int, inputs: int, rows: int) -> int:
    """Most rows for which the fused kernel is taken with a matrix below 4 Mi elements."""
    blocks = -(-outputs // 64)
    hbm = capability in ((8, 0),) or capability[0] == 9
    if inputs * 2 < outputs:
        return _short_limit(capability, processors, blocks, inputs)
    quarter = blocks * 4 <= processors
    if capability == (8, 0) and quarter:
        if inputs >= outputs:
            return 32 if blocks * 8 <= processors else 128
        return 384
    if capability == (7, 5) and blocks < processors and rows > 8:
        return 64
    if quarter:
        return 32 if (inputs < outputs or hbm) else 23
    return 16 if blocks * 2 <= processors else 0


def _short_limit(capability: tuple[int, int], processors: int, blocks: int, inputs: int) -> int:
    if capability == (8, 0) or capability[0] == 9:
        low = blocks * 3 < processors
        return (1536 if low else 512) if capability == (8, 0) else (512 if low else 320)
    if capability == (7, 5):
        if blocks >= processors * 3:
            return 320
        return 64 if inputs >= 1024 else 96 if inputs >= 704 else 320
    if blocks >= processors:
        return 320
    return 192 if blocks * inputs > processors * 320 else 320


def _few_rows(capability: tuple[int, int], rows: int, outputs: int, inputs: int, waves: float) -> bool:
    """Five to seven rows: fused, but for some shapes on cards with HBM."""
    hopper, ampere = capability[0] == 9, capability == (8, 0)
    if not (hopper or ampere) or rows < 6 or -(-outputs // 64) < (36 if hopper else 48):
        return True
    if inputs > outputs and waves < 0.75:
        return False
    if inputs == outputs:
        return not ((ampere and waves < 0.6) or (hopper and 0.6 <= waves < 0.75))
    return True


def _limit(capability: tuple[int, int], processors: int, outputs: int, inputs: int) -> int:
    """Most rows, from 8 to 512, for which the fused kernel is taken with a larger matrix."""
    blocks = -(-outputs // 64)
    if capability == (7, 5):
        if blocks >= processors * 3:
            return 128 if inputs < outputs else 64
        return 64 if blocks >= processors // 2 else 32
    if capability == (8, 0):
        return _ampere(processors, blocks, outputs, inputs)
    if capability == (8, 6):
        return 128 if blocks >= processors else 64 if blocks >= processors // 2 else 16
    if capability[0] == 9:
        return _hopper(processors, blocks, outputs, inputs)
    if capability == (12, 1) and blocks >= processors:
        return 256
    if capability == (12, 0):
        return _blackwell(processors, blocks, outputs, inputs)
    return _ada(processors, blocks, outputs, inputs)


def _ampere(processors: int, blocks: int, outputs: int, inputs: int) -> int:
    if blocks >= processors * 3:
        return 128
    if blocks >= processors:
        return 64 if inputs < outputs else 32
    if inputs >= outputs * 3 and blocks * 4 > processors:
        return 0
    if inputs == outputs and blocks >= 48 and blocks * 5 < processors * 3:
        return 0
    if blocks * 2 < processors:
        if inputs <= outputs:
            return 128
        if blocks * 3 >= processors:
            return 0
    return 128 if blocks >= processors // 2 and inputs < outputs else 16


def _hopper(processors: int, blocks: int, outputs: int, inputs: int) -> int:
    for waves, limit in ((3, 64), (2, 48), (1, 32)):
        if blocks >= processors * waves:
            return limit
    if blocks >= processors // 2:
        return 0 if inputs >= outputs and blocks * 4 < processors * 3 else 16
    return 0


def _blackwell(processors: int, blocks: int, outputs: int, inputs: int) -> int:
    for waves, limit in ((3, 256), (2, 128)):
        if blocks >= processors * waves:
            return limit
    if blocks * 5 >= processors * 4:
        return 96 if inputs >= outputs else 64
    if blocks >= processors // 2:
        return 64 if inputs * 2 >= outputs and blocks >= 128 else 8
    return 16 if inputs > outputs * 2 and blocks > 64 else 8


def _ada(processors: int, blocks: int, outputs: int, inputs: int) -> int:
    tall = inputs > outputs * 2
    for waves, limit in ((3, 256), (2, 128)):
        if blocks >= processors * waves:
            return limit
    if blocks * 5 >= processors * 4:
        if tall or blocks >= 200:
            return 128
        return (128 if processors >= 60 else 32) if inputs >= outputs else 64
    if blocks >= processors // 2:
        return 64 if tall else 8 if blocks >= 64 else 32
    if inputs > outputs and blocks <= 48:
        return 12 if inputs >= outputs * 3 else 10
    return 16 if tall or blocks < 48 else 8
