"""The choice of attention kernel: one rule of torch's sdp_utils.cpp per case."""

from dataclasses import replace

import pytest

from vramplan.attention import AttentionInput, Choice, Kernel, resolve
from vramplan.scenario import DType

AMPERE = AttentionInput(
    dtype=DType.BFLOAT16, head_dim=128, value_dim=128, grouped=True, masked=False, capability=(8, 0)
)


def test_16_bit_causal_attention_is_flash() -> None:
    assert resolve(AMPERE) == Choice(Kernel.FLASH)


@pytest.mark.parametrize(
    ("change", "kernel", "reason"),
    [
        ({"dtype": DType.FLOAT32, "grouped": False}, Kernel.EFFICIENT, "float32"),
        ({"dtype": DType.FLOAT32}, Kernel.MATH, "enable_gqa"),  # neither flash nor efficient
        ({"masked": True, "grouped": False}, Kernel.EFFICIENT, "mask"),
        # transformers repeats keys and values where there is a mask, so that fp32 queries do not end in math
        ({"masked": True, "grouped": False, "dtype": DType.FLOAT32}, Kernel.EFFICIENT, "float32"),
        ({"masked": True, "grouped": False, "capability": (7, 5)}, Kernel.MATH, "bfloat16"),
        ({"capability": (7, 5), "dtype": DType.FLOAT16, "grouped": False}, Kernel.EFFICIENT, "7.5 is below 8.0"),
        ({"capability": (7, 5), "grouped": False}, Kernel.MATH, "bfloat16"),
        ({"head_dim": 320, "value_dim": 320, "grouped": False}, Kernel.EFFICIENT, "320 are larger than 256"),
        ({"head_dim": 192, "grouped": False}, Kernel.EFFICIENT, "192 for keys and 128 for values"),
        ({"head_dim": 100, "value_dim": 100, "masked": True, "grouped": False}, Kernel.MATH, "multiple of 8"),
    ],
)
def test_what_pushes_attention_off_flash(change: dict[str, object], kernel: Kernel, reason: str) -> None:
    choice = resolve(replace(AMPERE, **change))
    assert choice.kernel is kernel
    assert reason in choice.reason


def test_a_named_kernel_is_taken() -> None:
    assert resolve(AMPERE, pinned="efficient").kernel is Kernel.EFFICIENT


def test_only_the_math_kernel_is_warned_about() -> None:
    assert resolve(AMPERE).warning == ""
    assert "[heads, seq, seq]" in resolve(replace(AMPERE, dtype=DType.FLOAT32)).warning
